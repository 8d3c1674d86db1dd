"""How the student is made: one schema a method, built from the library's own catalogue.

`methods.json` is written by `python -m worker.muka.methods`, and a test compares the two; so the API knows
every method without loading torch.
"""

import json
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic import create_model as create_pydantic_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.domain.part import FiniteFloat, Part

CATALOGUE: Mapping[str, Any] = json.loads(Path(__file__).with_name("methods.json").read_text("utf-8"))
DEFAULT = "consensus"
"""The library's."""

_UNSAMPLED_SCORES = {"energy"}
"""As the library has them: they look at no dropout pass."""
_TYPES: Mapping[str, Any] = {"boolean": bool, "integer": int, "number": FiniteFloat}
_LIMITS = {"minimum": "ge", "maximum": "le"}


class MethodSpec(Part):
    """A method with its settings."""

    name: str

    @property
    def trains_student(self) -> bool:
        """False where what the teachers say together is the answer, and all that the job makes."""
        return bool(CATALOGUE[self.name]["trains_student"])

    @property
    def is_sampled(self) -> bool:
        """Whether the method has settings of Monte-Carlo dropout, and they count."""
        return hasattr(self, "mc_samples") and getattr(self, "score", None) not in _UNSAMPLED_SCORES

    @property
    def passes(self) -> int:
        """Dropout passes of a text through each teacher, at most."""
        return int(getattr(self, "mc_samples", 0)) if self.is_sampled else 0


def _spec(name: str, entry: Mapping[str, Any]) -> type[MethodSpec]:
    fields: dict[str, Any] = {key: _field(schema) for key, schema in entry["parameters"].items()}
    fields["name"] = (Literal[name], name) if name == DEFAULT else (Literal[name], ...)
    title = "".join(word.capitalize() for word in name.split("_"))
    doc = f"{entry['summary']}\n\nSource: {entry['source']}"
    return create_pydantic_model(f"{title}Spec", __base__=MethodSpec, __doc__=doc, **fields)


def _field(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    kind = Literal[tuple(schema["enum"])] if "enum" in schema else _TYPES[schema["type"]]
    limits = {ours: schema[theirs] for theirs, ours in _LIMITS.items() if theirs in schema}
    return kind, Field(schema["default"], description=schema["description"], **limits)


SPECS: Mapping[str, type[MethodSpec]] = {name: _spec(name, entry) for name, entry in CATALOGUE.items()}


def _name_of(method: Any) -> str:
    name = method.get("name", DEFAULT) if isinstance(method, dict) else getattr(method, "name", DEFAULT)
    return f"<{name}>"


def _told_clearly(method: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Say what would help where the name is unknown, or a setting belongs to another method."""
    if not isinstance(method, dict):
        return validate(method)
    name = method.get("name", DEFAULT)
    if not isinstance(name, str) or name not in SPECS:
        known = f"there is no such method; write one of {', '.join(SPECS)}"
        raise _refusal([_fault("name", "method_unknown", known)])
    taken = SPECS[name].model_fields
    foreign = [key for key in method if key not in taken]
    faults = [_fault(str(key), "setting_unknown", _known_settings(name, key)) for key in foreign]
    try:
        made = validate({key: value for key, value in method.items() if key in taken})
    except ValidationError as error:
        raise _refusal([*faults, *map(_again, error.errors(include_url=False))]) from error
    if faults:
        raise _refusal(faults)
    return made


def _known_settings(name: str, key: Any) -> str:
    others = [other for other, spec in SPECS.items() if key in spec.model_fields]
    whose = f"it belongs to {', '.join(others)}" if others else "no method does"
    own = [setting for setting in SPECS[name].model_fields if setting != "name"]
    return f"{name} does not take this setting ({whose}); it takes {', '.join(own)}"


def _fault(key: str, code: str, message: str) -> InitErrorDetails:
    return {
        "type": PydanticCustomError(code, "{message}", {"message": message}),
        "loc": (key,),
        "input": None,
    }


def _again(error: Any) -> InitErrorDetails:
    """What pydantic found within the method, without the name of the union's branch."""
    where = error["loc"][1:] if str(error["loc"][0]).startswith("<") else error["loc"]
    return {"type": error["type"], "loc": where, "input": error["input"], "ctx": error.get("ctx", {})}


def _refusal(faults: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("method", faults)


if TYPE_CHECKING:
    AnyMethod = MethodSpec
else:
    AnyMethod = Annotated[
        reduce(or_, (Annotated[spec, Tag(f"<{name}>")] for name, spec in SPECS.items())),
        Discriminator(_name_of),
        WrapValidator(_told_clearly),
    ]
"""Any method; `{}` is the default one with its default settings."""
