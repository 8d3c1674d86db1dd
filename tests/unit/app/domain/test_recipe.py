"""Values of a recipe are what its schema says, and never guessed from others."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.recipe import Recipe

BODY: dict[str, Any] = {"teachers": ["acme/a", "acme/b"], "corpus": {"texts": ["one", "two"]}}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("training", "epochs", "3"),
        ("training", "epochs", True),
        ("training", "epochs", 2.5),
        ("training", "learning_rate", "0.1"),
        ("training", "learning_rate", float("inf")),
        ("student", "layers", "6"),
        ("checkpoints", "keep", False),
    ],
)
def test_another_type_is_refused(part: str, field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        Recipe.model_validate({**BODY, part: {field: value}})
    assert [error["loc"] for error in raised.value.errors()] == [(part, field)]


@pytest.mark.parametrize("value", [0, 1, "true", "yes", None])
def test_yes_and_no_are_booleans(value: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({**BODY, "method": {"name": "muka", "adaptive": value}})


def test_json_knows_numbers_only() -> None:
    """3.0 is an integer there, and 1 a number."""
    training = Recipe.model_validate({**BODY, "training": {"epochs": 3.0, "learning_rate": 1}}).training
    assert (training.epochs, training.learning_rate) == (3, 1.0)
    assert isinstance(training.epochs, int)
    assert Recipe.model_validate({**BODY, "checkpoints": {"every": 5.0}}).checkpoints.every == 5


def test_what_is_stored_is_read_again() -> None:
    recipe = Recipe.model_validate(BODY)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
