"""A Hugging Face `config.json`: is it a classifier of at least two named classes that muka can teach with?

Used for uploaded models and for models on the Hub alike; no transformers, no code that comes with a model.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.domain import labels as label_names
from app.domain.errors import Fault, InvalidModelError
from app.ingestion.model_facts import LAYERS
from app.ingestion.names import is_storable

SUFFIX = "ForSequenceClassification"
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]{1,200}")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9._-]{1,100}")
MAX_LAYERS = 256
"""As the worker's library has it: a model is built layer by layer before its weights are looked at."""
MAX_LABELS = 10_000
MAX_LABEL_CHARS = 256
DEFAULT_LABELS = 2
"""What transformers means by a config without labels: it leaves its own default out when it saves."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What muka needs to know of a classifier before it is loaded."""

    architecture: str
    """Like `BertForSequenceClassification`."""
    model_type: str
    labels: tuple[str, ...]
    """By class index; canonical (NFC, trimmed) and distinct."""

    @property
    def placeholder_labels(self) -> bool:
        """True when some class has no name but `LABEL_i`: the request must map it."""
        return bool(label_names.placeholders(self.labels))


def check_classifier_config(config: Mapping[str, Any]) -> ClassifierConfig:
    """Read a parsed `config.json`.

    Raises:
        InvalidModelError: `teacher_not_classifier`, with a fault for everything that is wrong.
    """
    faults = [*_kind_faults(config), *_head_faults(config)]
    if not faults:
        faults = list(_label_faults(config))
    if faults:
        raise InvalidModelError(
            f"the model is no classifier that can teach: {faults[0].detail}",
            faults=faults,
            code="teacher_not_classifier",
        )
    return ClassifierConfig(
        architecture=config["architectures"][0],
        model_type=config["model_type"],
        labels=tuple(label_names.canonical(name) for name in _labels(config)),
    )


def _fault(field: str, code: str, detail: str) -> Fault:
    return Fault(pointer=f"config.json#/{field}", code=code, detail=detail)


def _kind_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    if not isinstance(first, str) or not first.endswith(SUFFIX) or not _IDENTIFIER.fullmatch(first):
        found = (
            f"the architecture is {first[:200]!r}" if isinstance(first, str) else "no architecture is named"
        )
        yield _fault(
            "architectures",
            "not_sequence_classification",
            f"{found}; a teacher must be a …{SUFFIX} that was fine-tuned to classify texts",
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not _MODEL_TYPE.fullmatch(model_type):
        yield _fault("model_type", "no_model_type", "`model_type` must name the model's family, like `bert`")
    if config.get("auto_map"):
        yield _fault(
            "auto_map",
            "custom_code",
            "the model needs code of its own (`auto_map`), which muka never runs; "
            "use an architecture that is part of the transformers library",
        )
    for name in (name for name in config if name.endswith("_implementation") and "/" in str(config[name])):
        field = repr(name[-100:])[1:-1]  # half of a surrogate pair cannot be sent
        yield _fault(
            field,
            "custom_code",
            f"`{field}` names code of its own ({str(config[name])[:100]!r}), which muka never runs; "
            "leave the field out",
        )
    for field in LAYERS:
        if type(config.get(field)) is int and not 1 <= config[field] <= MAX_LAYERS:
            detail = f"`{field}` must be a number from 1 to {MAX_LAYERS}"
            yield _fault(field, "layers_invalid", detail)


def _head_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        yield _fault(
            "problem_type",
            "wrong_problem_type",
            f"the head is for {str(problem)[:100]!r}; a teacher chooses one class out of several "
            "(`single_label_classification`)",
        )
    num_labels, id2label = config.get("num_labels"), config.get("id2label")
    if num_labels is not None and (type(num_labels) is not int or not 1 <= num_labels <= MAX_LABELS):
        yield _fault("num_labels", "labels_invalid", f"`num_labels` must be a number from 2 to {MAX_LABELS}")
        return
    if id2label is not None and not isinstance(id2label, dict):
        yield _fault("id2label", "labels_invalid", "`id2label` must be an object: class index to name")
        return
    count = len(id2label) if id2label is not None else num_labels or DEFAULT_LABELS
    if count == 1:
        yield _fault(
            "id2label",
            "regression_head",
            "the head has one output, so the model regresses a number; a teacher needs at least two classes",
        )
    elif not 2 <= count <= MAX_LABELS:
        yield _fault("id2label", "labels_invalid", f"{count} labels; a teacher has 2 to {MAX_LABELS}")
    elif num_labels is not None and count != num_labels:
        detail = f"`id2label` names {count} classes, `num_labels` says {num_labels}"
        yield _fault("num_labels", "labels_invalid", detail)


def _label_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    id2label = config.get("id2label")
    if id2label is None:
        return
    missing = [index for index in range(len(id2label)) if str(index) not in id2label]
    if missing:
        yield _fault(
            "id2label",
            "labels_invalid",
            f"the class indices must be 0 to {len(id2label) - 1} without gaps; {missing[0]} is missing",
        )
        return
    first_with: dict[str, int] = {}
    for index in range(len(id2label)):
        yield from _name_faults(index, id2label[str(index)], first_with)


def _name_faults(index: int, name: Any, first_with: dict[str, int]) -> Iterator[Fault]:
    field = f"id2label/{index}"
    if not isinstance(name, str) or not label_names.canonical(name) or not is_storable(name):
        yield _fault(
            field, "labels_invalid", f"the name of class {index} must be valid text that is not empty"
        )
        return
    canonical = label_names.canonical(name)
    if len(canonical) > MAX_LABEL_CHARS:
        detail = f"the name of class {index} has {len(canonical)} characters, more than {MAX_LABEL_CHARS}"
        yield _fault(field, "labels_invalid", detail)
    elif canonical in first_with:
        detail = f"classes {first_with[canonical]} and {index} have the same name, {canonical!r}"
        yield _fault(field, "labels_invalid", detail)
    first_with.setdefault(canonical, index)


def _labels(config: Mapping[str, Any]) -> list[str]:
    id2label = config.get("id2label")
    if id2label is None:
        return [f"LABEL_{index}" for index in range(config.get("num_labels") or DEFAULT_LABELS)]
    return [id2label[str(index)] for index in range(len(id2label))]
