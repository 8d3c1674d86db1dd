"""A body with faults in one place is still checked in all others."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.api.recipe_body import RecipeBody
from app.domain.recipe import Recipe

READ = TypeAdapter(RecipeBody).validate_python
SOUND: dict[str, Any] = {"teachers": ["acme/a", "acme/b"], "corpus": "cor-1"}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_a_sound_body_is_its_recipe() -> None:
    assert READ(SOUND) == RecipeBody(Recipe.model_validate(SOUND), ())


def test_faulty_fields_are_left_out_of_what_is_checked_further() -> None:
    body = READ(SOUND | {"training": {"epochs": 0}, "colour": "red"})
    assert body.recipe == Recipe.model_validate(SOUND)
    assert [fault.pointer for fault in body.faults] == ["/training/epochs", "/colour"]


def test_faulty_teachers_keep_the_places_of_the_others() -> None:
    body = READ(SOUND | {"teachers": [7, "acme/b"]})
    assert body.recipe is not None
    assert [teacher.model for teacher in body.recipe.teachers] == ["?", "acme/b"]
    assert [fault.pointer for fault in body.faults] == ["/teachers/0"]


@given(body=ANY_JSON | st.dictionaries(st.sampled_from([*Recipe.model_fields, "x"]), ANY_JSON))
def test_whatever_is_sent_gives_a_recipe_or_faults_that_can_be_written(body: Any) -> None:
    read = READ(body)
    assert read.faults or read.recipe is not None
    json.dumps([vars(fault) for fault in read.faults]).encode()
    assert all(fault.detail and fault.code for fault in read.faults)
