"""Settings that know what they allow: checked on construction, told as JSON Schema."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

JsonSchema = dict[str, Any]

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def parameter(
    default: Any,
    description: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with what it allows.

    Args:
        default: Of the parameter; its type is the parameter's.
        description: One sentence for the user.
        choices: The allowed words.
        minimum: The least allowed value.
        maximum: The greatest allowed value.
    """
    limits = {
        "enum": list(choices) or None,
        "minimum": minimum,
        "maximum": maximum,
    }
    schema = {"type": _TYPES[type(default)], "description": description, "default": default}
    return field(default=default, metadata=schema | {k: v for k, v in limits.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of settings whose fields are made by `parameter`."""

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(each.name, getattr(self, each.name), each.metadata)

    @classmethod
    def parameters(cls) -> dict[str, JsonSchema]:
        """Each parameter by name: its JSON Schema with default and description."""
        return {each.name: dict(each.metadata) for each in fields(cls)}


def _check(name: str, value: Any, schema: Any) -> None:
    if schema["type"] == "string":
        one_of(name, value, tuple(schema["enum"]))
    elif schema["type"] == "boolean":
        _of_type(name, value, bool, "true or false")
    else:
        if schema["type"] == "integer":
            _of_type(name, value, int, "whole numbers")
        within(name, value, schema.get("minimum", -math.inf), schema.get("maximum", math.inf))


def _of_type(name: str, value: Any, expected: type, words: str) -> None:
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}; allowed: {words}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse any other word with a ValueError that tells name, value and the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a value outside of the interval with a ValueError that tells name, value and interval."""
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        left, right = ("(" if open_low else "["), ("]" if math.isfinite(high) else ")")
        raise ValueError(f"{name} is {value}; allowed: {left}{low}, {high}{right}")
