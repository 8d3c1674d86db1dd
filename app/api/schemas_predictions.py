"""Bodies and answers of predictions."""

from typing import Annotated

from pydantic import BaseModel, Field, WithJsonSchema

from app.domain.part import Part
from app.domain.prediction import MAX_TEXTS

ClassifiableText = Annotated[
    str,
    # Shown only: the use case checks it, and says of each text what is wrong.
    WithJsonSchema({"type": "string", "pattern": r"^[^\x00]*[^\s\x00\x1c-\x1f\x85][^\x00]*$"}),
]
"""Neither empty nor white space only."""


class PredictionRequest(Part):
    """Texts to classify."""

    texts: list[ClassifiableText] = Field(min_length=1, max_length=MAX_TEXTS)
    top_k: int | None = Field(
        5, ge=1, le=10_000, description="How many labels to tell of each text; null: all of them."
    )


class LabelProbability(BaseModel):
    """One class, and how probable it is."""

    label: str
    probability: float


class Prediction(BaseModel):
    """What the student says of one text."""

    label: str = Field(description="The most probable class.")
    probability: float = Field(description="Of that class: softmax over all classes.")
    top: list[LabelProbability] = Field(description="The `top_k` most probable classes, in falling order.")
    truncated: bool = Field(
        description="The text has more tokens than the student reads, and its end was cut off."
    )


class Predictions(BaseModel):
    """What a student says of each text, in the order of the texts."""

    student_id: str
    digest: str = Field(description="Of the student that answered: as at the student itself.")
    data: list[Prediction]
