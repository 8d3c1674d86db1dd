"""The base of everything that a recipe is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Finite = Field(allow_inf_nan=False)
FiniteFloat = Annotated[float, Finite]


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
