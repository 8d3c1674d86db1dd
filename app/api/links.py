"""Links of the OpenAPI document: where an answer leads, for tools that walk from operation to operation."""

from typing import Any

_ID = "$response.body#/id"
_FIRST = "$response.body#/data/0"
_JOB = {"job_id": "$request.path.job_id"}
_STUDENT = {"student_id": "$request.path.student_id"}
_SOURCES: dict[tuple[str, str], dict[str, str]] = {
    ("create_corpus", "200"): {"corpus_id": _ID},
    ("create_corpus", "201"): {"corpus_id": _ID},
    ("create_model", "200"): {"model_id": _ID},
    ("create_model", "201"): {"model_id": _ID},
    ("create_amalgamation", "202"): {"job_id": _ID},
    ("resume_amalgamation", "202"): {"job_id": _ID},
    ("cancel_amalgamation", "200"): {"job_id": _ID},
    ("get_amalgamation", "200"): {"student_id": "$response.body#/student_id"},
    ("list_amalgamation_checkpoints", "200"): _JOB | {"checkpoint": f"{_FIRST}/revision"},
    ("list_checkpoint_files", "200"): _JOB
    | {"checkpoint": "$request.path.checkpoint", "path": f"{_FIRST}/path"},
    ("list_students", "200"): {"student_id": f"{_FIRST}/id"},
    ("list_student_files", "200"): _STUDENT | {"path": f"{_FIRST}/path"},
    ("create_webhook", "201"): {"webhook_id": _ID},
}
"""By operation and status: what the answer tells of the parameters of other operations."""


def add_links(paths: dict[str, dict[str, Any]]) -> None:
    """Lead from each answer to every operation whose path takes exactly what the answer tells."""
    operations = [operation for methods in paths.values() for operation in methods.values()]
    targets = {operation["operationId"]: _taken(operation) for operation in operations}
    for operation in operations:
        for status, response in operation["responses"].items():
            told = _SOURCES.get((operation["operationId"], status), {})
            found = [target for target, taken in targets.items() if taken and taken == told.keys()]
            if found:
                response["links"] = {each: {"operationId": each, "parameters": told} for each in found}


def _taken(operation: dict[str, Any]) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
