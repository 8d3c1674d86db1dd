"""The base of everything that a recipe is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Field(allow_inf_nan=False)
FiniteFloat = Annotated[float, Finite]


class Part(BaseModel):
    """A part of a recipe: unknown fields are refused, values are not coerced from other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _with_integers(cls, value: Any) -> Any:
        """In JSON 3.0 is the integer 3."""
        if not isinstance(value, dict):
            return value
        return {
            key: int(each) if isinstance(each, float) and each.is_integer() else each
            for key, each in value.items()
        }
