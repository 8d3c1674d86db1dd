"""The contract as a document: whole, valid, with examples that hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from app.main import create_app
from app.settings import Settings

Json = dict[str, Any]
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    folder: Path = tmp_path_factory.mktemp("openapi")
    made: Json = create_app(Settings(data_dir=folder)).openapi()
    return made


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _nodes(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(child)


def _validator(document: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator(schema | {"components": document["components"]})


def test_the_document_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPI.model_validate(document)


def test_every_schema_is_a_schema_and_every_reference_leads_somewhere(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        assert schema.get("description") or schema.get("enum"), f"{name} has no description"
    references = {node["$ref"] for node in _nodes(document) if isinstance(node.get("$ref"), str)}
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


def test_every_operation_has_a_unique_id_a_summary_a_tag_and_a_description(document: Json) -> None:
    operations = dict(_operations(document))
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids) >= 20
    assert all(identifier.isidentifier() for identifier in ids)
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name


def test_every_operation_declares_its_problems(document: Json) -> None:
    for name, operation in _operations(document):
        responses = operation["responses"]
        problems = {status for status, answer in responses.items() if PROBLEM in answer.get("content", {})}
        assert problems == {status for status in responses if status >= "400"}, name
        expected = {"500", "503"}
        if operation.get("security"):
            expected.add("401")
        if operation.get("parameters"):
            expected.add("422")
        if "requestBody" in operation:
            expected |= {"400", "413", "422"}
        if "_id}" in name:
            expected.add("404")
        assert expected <= problems, name


def test_every_operation_but_health_needs_the_key(document: Json) -> None:
    open_to_all = {name for name, operation in _operations(document) if not operation.get("security")}
    assert open_to_all == {"GET /healthz", "GET /readyz"}


def test_nothing_of_the_framework_shines_through(document: Json) -> None:
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


def test_every_example_is_valid(document: Json) -> None:
    checked = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            checked += 1
            errors = list(_validator(document, schema).iter_errors(example))
            assert not errors, (name, errors)
    for node in _nodes(document["paths"]):
        for media in node.get("content", {}).values() if isinstance(node.get("content"), dict) else ():
            for example in media.get("examples", {}).values():
                checked += 1
                errors = list(_validator(document, media["schema"]).iter_errors(example["value"]))
                assert not errors, (example, errors)
    assert checked > 100


def test_only_teachers_and_corpus_are_required_of_a_job(document: Json) -> None:
    body = document["paths"]["/amalgamations"]["post"]["requestBody"]
    assert body["required"] is True
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Recipe"}
    assert document["components"]["schemas"]["Recipe"]["required"] == ["teachers", "corpus"]
