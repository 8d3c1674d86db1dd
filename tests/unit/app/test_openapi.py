"""The contract as a document: whole, valid, with examples that hold."""

import ast
import re
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
OPERATIONS = """
    create_corpus list_corpora get_corpus preview_corpus delete_corpus
    create_model list_models get_model delete_model
    plan_amalgamation create_amalgamation list_amalgamations get_amalgamation cancel_amalgamation
    resume_amalgamation delete_amalgamation list_amalgamation_events get_amalgamation_report
    get_amalgamation_metrics get_amalgamation_texts
    list_amalgamation_checkpoints get_amalgamation_checkpoint list_checkpoint_files head_checkpoint_files
    download_checkpoint_file head_checkpoint_file download_checkpoint head_checkpoint_download
    list_students get_student delete_student list_student_files head_student_files download_student_file
    head_student_file download_student head_student_download predict
    create_webhook list_webhooks get_webhook delete_webhook rotate_webhook test_webhook
    list_webhook_deliveries get_metrics get_health get_readiness
"""
OF_FAULTS = {"teacher_not_found", "teacher_gated", "reference_invalid", "custom_code"}
"""Raised while a teacher is looked up, and told as a fault of the recipe."""
OF_THE_HUB_DOOR = {"repo_not_found", "revision_not_found", "entry_not_found"}
"""Told in the Hub's own form."""
NEVER_REFUSED = {"If-None-Match", "If-Range", "Range"}
"""Passed over where they say nothing sensible."""


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
    assert len(set(ids)) == len(ids)
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert len(operation["tags"]) == 1, name


def test_operation_ids_are_names_for_generated_clients_and_stay_as_they_are(document: Json) -> None:
    """Functions of generated clients are called so: a changed one breaks their users."""
    ids = {operation["operationId"] for _, operation in _operations(document)}
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", identifier) for identifier in ids)
    assert ids == set(OPERATIONS.split())


def test_every_operation_declares_its_problems(document: Json) -> None:
    for name, operation in _operations(document):
        responses = operation["responses"]
        problems = {status for status, answer in responses.items() if PROBLEM in answer.get("content", {})}
        assert problems == {status for status in responses if status >= "400"}, name
        expected = {"500"}
        if operation.get("security"):
            expected |= {"401", "403", "503"}
        refusable = [each for each in operation.get("parameters", ()) if each["name"] not in NEVER_REFUSED]
        if any(each["in"] != "path" for each in refusable):
            expected.add("422")
        if "requestBody" in operation:
            expected |= {"400", "413", "422"}
        if "_id}" in name:
            expected.add("404")
        assert expected <= problems, name


def test_no_problem_is_declared_that_cannot_be(document: Json) -> None:
    paths = document["paths"]
    assert paths["/healthz"]["get"]["responses"].keys() == {"200", "500"}
    ready = paths["/readyz"]["get"]["responses"]["503"]["content"][PROBLEM]["examples"]
    assert ready.keys() == {"not_ready"}
    for name, operation in _operations(document):
        if operation.get("parameters") and all(each["in"] == "path" for each in operation["parameters"]):
            invalid = operation["responses"].get("422")
            assert ("requestBody" in operation) == (invalid is not None), name


def test_what_may_not_be_modified_shows_its_validator(document: Json) -> None:
    for name, operation in _operations(document):
        if "304" in operation["responses"]:
            for status in ("200", "304"):
                assert "ETag" in operation["responses"][status]["headers"], name


def test_what_may_be_asked_for_in_part_says_how(document: Json) -> None:
    for name, operation in _operations(document):
        asked = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}
        if "206" in operation["responses"]:
            assert asked >= {"Range", "If-Range"}, name
            assert "416" in operation["responses"], name
        else:
            assert not asked & {"Range", "If-Range"}, name


def test_a_request_in_flight_says_when_to_ask_again(document: Json) -> None:
    for name, operation in _operations(document):
        if "Idempotency-Key" in {each["name"] for each in operation.get("parameters", ())}:
            conflict = operation["responses"]["409"]
            assert "request_in_flight" in conflict["content"][PROBLEM]["examples"], name
            assert "Retry-After" in conflict["headers"], name


def test_every_code_that_is_raised_is_declared_somewhere(document: Json) -> None:
    declared = {
        code
        for _, operation in _operations(document)
        for answer in operation["responses"].values()
        for code in answer.get("content", {}).get(PROBLEM, {}).get("examples", {})
    }
    raised = {code for file in Path("app").rglob("*.py") for code in _raised_codes(file)}
    assert len(raised) > 20
    assert raised - declared == OF_FAULTS | OF_THE_HUB_DOOR


def _raised_codes(file: Path) -> Iterator[str]:
    """`SomeError(…, code="…")`, and what fills it in under another name."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and (name.endswith("Error") or name == "_refusal"):
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    yield str(keyword.value.value)


def test_a_parameter_is_never_null(document: Json) -> None:
    """`?after=null` is the text "null"."""
    for name, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            assert "null" not in str(parameter["schema"]), (name, parameter)


def test_an_idempotency_key_that_is_refused_is_invalid_by_the_document_too(document: Json) -> None:
    taking = [each for _, operation in _operations(document) for each in operation.get("parameters", ())]
    schemas = [each["schema"] for each in taking if each["name"] == "Idempotency-Key"]
    assert len(schemas) >= 4
    for schema in schemas:
        validator = _validator(document, schema)
        assert validator.is_valid("order-1")
        assert not [bad for bad in ("", "x" * 256, "\u00e4", "a\x7f") if validator.is_valid(bad)]


def test_a_json_file_is_no_string(document: Json) -> None:
    answer = document["paths"]["/students/{student_id}/files/{path}"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"] == {}


def test_no_default_is_an_object(document: Json) -> None:
    """Generators of clients leave out every operation that has to do with one."""
    for name, schema in document["components"]["schemas"].items():
        for field, member in schema.get("properties", {}).items():
            assert not isinstance(member.get("default"), dict), (name, field)


def test_answers_that_create_lead_to_what_was_created(document: Json) -> None:
    parameters = {
        operation["operationId"]: {each["name"] for each in operation.get("parameters", ())}
        for _, operation in _operations(document)
    }
    links = {
        operation["operationId"]: answer["links"]
        for _, operation in _operations(document)
        for answer in operation["responses"].values()
        if "links" in answer
    }
    for each in links.values():
        for link in each.values():
            assert link["parameters"].keys() <= parameters[link["operationId"]]
    assert "get_corpus" in links["create_corpus"]
    assert {"get_amalgamation", "resume_amalgamation"} <= links["create_amalgamation"].keys()
    assert "download_checkpoint_file" in links["list_checkpoint_files"]


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


def test_the_header_that_asks_for_news_only_is_declared_where_there_may_be_none(document: Json) -> None:
    for name, operation in _operations(document):
        asked = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}
        assert ("304" in operation["responses"]) == ("If-None-Match" in asked), name


def test_the_filter_by_metadata_is_declared(document: Json) -> None:
    parameters = document["paths"]["/amalgamations"]["get"]["parameters"]
    assert sorted(each["name"] for each in parameters) == ["after", "limit", "metadata", "order", "status"]
    assert [each["style"] for each in parameters if each["name"] == "metadata"] == ["deepObject"]
