"""The schema of `method`, and that it is the library's own."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.domain.methods import CATALOGUE, SPECS
from app.domain.recipe import Recipe
from worker.muka.methods import METHODS, catalogue, get_method


def recipe(method: Any) -> Recipe:
    return Recipe.model_validate({"teachers": ["acme/a", "acme/b"], "corpus": "cor-1", "method": method})


def faults(method: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as refused:
        recipe(method)
    return {"/".join(map(str, each["loc"][1:])): each["msg"] for each in refused.value.errors()}


def test_the_catalogue_is_the_library_s() -> None:
    assert catalogue() == CATALOGUE, "stale: python -m worker.muka.methods > app/domain/methods.json"


def test_every_method_can_be_asked_for_and_all_but_the_ensemble_train_a_student() -> None:
    assert set(SPECS) == set(METHODS)
    trained = {name for name in SPECS if recipe({"name": name}).method.trains_student}
    assert trained == {name for name, method in METHODS.items() if method.trains_student}
    assert set(SPECS) - trained == {"ensemble"}


@pytest.mark.parametrize("name", SPECS)
def test_a_name_alone_gets_the_defaults_of_that_method(name: str) -> None:
    stored = recipe({"name": name}).model_dump(mode="json")["method"]
    assert stored == get_method(name).settings()
    assert recipe(stored).model_dump(mode="json")["method"] == stored


def test_no_method_is_the_library_s_default() -> None:
    bare = Recipe.model_validate({"teachers": ["acme/a", "acme/b"], "corpus": "cor-1"})
    assert bare.method == recipe({}).method
    assert bare.method.model_dump() == get_method().settings()


@pytest.mark.parametrize("name", SPECS)
def test_api_and_library_allow_the_same_values(name: str) -> None:
    for setting, schema in CATALOGUE[name]["parameters"].items():
        beyond = {
            "string": ["", "other"],
            "boolean": [],
            "integer": [schema.get("minimum", 0) - 1, schema.get("maximum", 0) + 1],
            "number": [schema.get("minimum", 0) - 1, schema.get("maximum", 0) + 1, float("nan")],
        }[schema["type"]]
        edges = [schema[edge] for edge in ("minimum", "maximum") if edge in schema] + schema.get("enum", [])
        for value in edges:
            assert getattr(recipe({"name": name, setting: value}).method, setting) == value
            get_method(name, **{setting: value})
        for value in beyond:
            assert setting in faults({"name": name, setting: value})
            with pytest.raises(ValueError, match=f"{setting} is"):
                get_method(name, **{setting: value})


def test_an_unknown_name_is_told_those_that_are_known() -> None:
    for name in ("nonsense", 3, None, ["muka"], "\ud800"):
        assert faults({"name": name}) == {
            "name": "there is no such method; write one of cfl, consensus, dfa, ensemble, muka, uhc, "
            "vanilla_kd"
        }


def test_a_setting_of_another_method_is_refused_with_every_other_fault() -> None:
    assert faults({"name": "uhc", "mc_samples": 4, "colour": "red", "teacher_temperature": 0}) == {
        "mc_samples": "uhc does not take this setting (it belongs to ensemble, muka); it takes "
        "teacher_temperature",
        "colour": "uhc does not take this setting (no method does); it takes teacher_temperature",
        "teacher_temperature": "Input should be greater than or equal to 0.000001",
    }


@pytest.mark.parametrize("method", ["muka", None, [], 3])
def test_what_is_no_object_is_refused(method: Any) -> None:
    with pytest.raises(ValidationError):
        recipe(method)


def test_its_json_schema_has_one_branch_a_method() -> None:
    schema = Recipe.model_json_schema()
    branches = [branch["$ref"].rsplit("/", 1)[1] for branch in schema["properties"]["method"]["oneOf"]]
    assert branches == [
        f"{name}Spec" for name in ("Cfl", "Consensus", "Dfa", "Ensemble", "Muka", "Uhc", "VanillaKd")
    ]
    default, muka, uhc = (schema["$defs"][f"{name}Spec"] for name in ("Consensus", "Muka", "Uhc"))
    assert muka["properties"]["mc_samples"]["maximum"] == 256
    assert "required" not in default
    assert muka["required"] == uhc["required"] == ["name"]
    assert "1904.06062" in uhc["description"]
