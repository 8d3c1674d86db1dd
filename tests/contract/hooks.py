"""What schemathesis loads into its own process: values that exist, and the codes of problems as a check.

Most generated references lead nowhere, so most of them are replaced by names of what the installation has;
which ones is decided by the value itself, so that the same case is the same request again.
"""

import json
import os
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.core.failures import Failure

from tests.unit.app.ingestion.archives import model_files, tar

STOCK: dict[str, Any] = json.loads(os.environ["MUKA_CONTRACT_STOCK"])
KEPT: dict[str, list[str]] = STOCK["kept"]
EXPENDABLE: dict[str, list[str]] = STOCK["expendable"]
NEAR: str = STOCK["near"]
PROBLEM = "application/problem+json"
LINES = "application/jsonl"


def _number(value: Any) -> int:
    return crc32(repr(value).encode("utf-8", "surrogatepass"))


def _mostly(values: list[str], value: str, number: int) -> str:
    """One of these, and of five times once the generated value itself."""
    return value if number % 5 == 0 else values[number // 5 % len(values)]


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    stock = EXPENDABLE if context.operation.method.upper() == "DELETE" else KEPT
    if not path_parameters:
        return path_parameters
    trained = {"job_id": KEPT["trained_job_id"]} if "checkpoint" in path_parameters else {}
    return {
        name: _mostly((stock | trained)[name], value, _number(path_parameters)) if name in stock else value
        for name, value in path_parameters.items()
    }


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Nobody waits for long, and most uploads are of a format that there is."""
    if not isinstance(query, dict):
        return query
    if isinstance(wait := query.get("wait"), int | float) and 1 < wait <= 60:
        return query | {"wait": wait % 1}
    stated = query.get("format", "txt")
    if _operation(context) == "create_corpus" and _is_name(stated, at_most=200):
        return query | {"format": _mostly(["txt", "jsonl", "csv"], stated, _number(query))}
    return query


@schemathesis.hook
def map_headers(context: Any, headers: Any) -> Any:
    """Every other range that is asked for is one, of a file that is not empty."""
    if isinstance(headers, dict) and "Range" in headers and (number := _number(headers["Range"])) % 2:
        return headers | {"Range": f"bytes={number % 100}-" if number % 3 else f"bytes=-{number % 100 + 1}"}
    return headers


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A part of a JSON file is of that media type, and schemathesis would read it as JSON."""
    if str((case.path_parameters or {}).get("path")).endswith(".json") and case.headers is not None:
        case.headers.pop("Range", None)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    operation, number = _operation(context), _number(body)
    if operation in ("create_amalgamation", "plan_amalgamation") and isinstance(body, dict):
        return body if number % 5 == 0 else _recipe(body, number)
    if operation == "create_webhook" and isinstance(body, dict) and _leads_somewhere(body.get("url")):
        return body | {"url": NEAR}
    if operation == "create_model" and isinstance(body, bytes) and number % 5:
        return tar(model_files(tokenizer_json=json.dumps({"number": number}).encode()))
    return body


def _operation(context: Any) -> str:
    return str(context.operation.definition.raw.get("operationId"))


def _recipe(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The same with names that exist and a training that ends within seconds; what is invalid stays so."""
    made = dict(body)
    known = [*KEPT["model_id"], *KEPT["student_id"], "acme/intents"]
    turned = known[number % len(known) :] + known[: number % len(known)]
    if isinstance(teachers := body.get("teachers"), list):
        made["teachers"] = [
            _renamed(each, "model", name) for each, name in zip(teachers, turned, strict=False)
        ] + teachers[len(turned) :]
    if "corpus" in body:
        made["corpus"] = _renamed(body["corpus"], "", KEPT["corpus_id"][0])
    for part, field, name in (
        ("evaluation", "corpus", KEPT["corpus_id"][0]),
        ("student", "init_from", "teachers/0"),
    ):
        if isinstance(body.get(part), dict):
            made[part] = _renamed(body[part], field, name)
    training = body.get("training")
    if isinstance(training, dict) and type(epochs := training.get("epochs")) is int and 0 < epochs <= 1000:
        made["training"] = training | {"epochs": epochs % 3 + 1}
    return made


def _renamed(thing: Any, field: str, name: str) -> Any:
    """The name itself, or the object with the name in its field, where a valid name stands."""
    if _is_name(thing):
        return name
    return thing | {field: name} if isinstance(thing, dict) and _is_name(thing.get(field)) else thing


def _is_name(value: Any, at_most: int = 300) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= at_most


def _leads_somewhere(url: Any) -> bool:
    """Or could: half of the valid ones are made to lead to where nobody listens."""
    try:
        is_valid = isinstance(url, str) and 0 < len(url) <= 2000
        return is_valid and (_number(url) % 2 == 0 or bool(urlsplit(url.strip()).hostname))
    except ValueError:
        return False


class UndeclaredProblem(Failure):
    """A problem whose code the document does not show for that status of that route."""


@schemathesis.check
def declared_problem_code(ctx: Any, response: Any, case: Any) -> None:
    if not response.content or not response.headers.get("content-type", [""])[0].startswith(PROBLEM):
        return
    declared = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    shown = declared.get("content", {}).get(PROBLEM, {}).get("examples", {})
    code = response.json()["code"]
    if shown and code not in shown:
        raise UndeclaredProblem(
            operation=case.operation.label,
            title="Undeclared problem code",
            message=f"{response.status_code} `{code}`; declared are {', '.join(shown)}",
        )


class BrokenLine(Failure):
    """A line of JSON Lines that is not as the document says."""


@schemathesis.check
def every_line_conforms(ctx: Any, response: Any, case: Any) -> None:
    if response.headers.get("content-type", [""])[0] != LINES:
        return
    content = case.operation.definition.raw["responses"][str(response.status_code)]["content"]
    validator = Draft202012Validator(content[LINES]["schema"])
    for line in response.content.splitlines():
        for error in validator.iter_errors(json.loads(line)):
            raise BrokenLine(operation=case.operation.label, title="Broken line", message=error.message)
