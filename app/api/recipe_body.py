"""The body of `POST /amalgamations`: a recipe, or as much of one as can be checked further."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from app.api.pointers import faults_of
from app.domain.errors import Fault
from app.domain.recipe import Recipe
from app.services.submission_checks import UNREADABLE


@dataclass(frozen=True)
class RecipeBody:
    """What the schema says of a body; the use case adds what the database and the Hub say.

    A body with a fault in one place is still checked in all others, so that the caller sees every fault at
    once; therefore a faulty recipe raises nothing here. In OpenAPI this is a `Recipe`.
    """

    recipe: Recipe | None
    """Faulty parts are left out, or stand as `UNREADABLE`; None when nothing useful is left."""
    faults: tuple[Fault, ...]

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(cls._read, handler(Recipe))

    @classmethod
    def _read(cls, body: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> "RecipeBody":
        try:
            return cls(validate(body), ())
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
        faults = tuple(faults_of({**each, "loc": ("body", *each["loc"])} for each in errors))
        try:
            return cls(validate(_readable(body, errors)), faults)
        except ValidationError:
            return cls(None, faults)


def _readable(body: Any, errors: Sequence[ErrorDetails]) -> Any:
    if not isinstance(body, dict):
        return body
    faulty = {each["loc"][0] for each in errors if each["loc"]}
    readable = {key: value for key, value in body.items() if key not in faulty}
    if "teachers" in faulty:
        given = body.get("teachers")
        bad = {each["loc"][1] for each in errors if each["loc"][0] == "teachers" and len(each["loc"]) > 1}
        teachers = [
            UNREADABLE if i in bad else t for i, t in enumerate(given if isinstance(given, list) else [])
        ]
        readable["teachers"] = teachers + [UNREADABLE] * (2 - len(teachers))
    if "corpus" in faulty:
        readable["corpus"] = UNREADABLE
    return readable
