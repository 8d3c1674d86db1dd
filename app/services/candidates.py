"""Models that a request names: on the Hub, uploaded, or students of earlier jobs; as facts, never loaded."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

from app.domain.errors import Fault, GoneError, InvalidModelError, NotFoundError
from app.domain.identifiers import Prefix
from app.domain.revisions import own_id, parse_checkpoint, revision_of
from app.ingestion.classifier_config import check_classifier_config
from app.persistence.tables import Checkpoint, Model, Student
from app.services import checkpoints, hub
from app.services.backend import Backend
from app.services.stored_objects import StoredObjects
from app.storage import ArtifactStore, StoreError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_Row: TypeAlias = Model | Student | Checkpoint
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


@dataclass(frozen=True)
class Candidate:
    """A model that exists, whose weights are safetensors, and which needs no code of its own."""

    reference: str
    source: Literal["hub", "model", "student"]
    digest: str
    """Names the content."""
    weights: frozenset[str]
    """Content of the weight files: equal for copies under other names, also with other label names."""
    read_config: Callable[[], Mapping[str, Any]]
    classifier: tuple[str, tuple[str, ...]] | None = None
    """Architecture and label names, where they were checked when the model came in."""
    repo_id: str | None = None
    commit: str | None = None
    object_id: str | None = None
    """`mdl-…`, `stu-…` or `stu-…@step-200`."""
    storage_prefix: str | None = None
    files: tuple[str, ...] = ()
    """Names of the files in its folder."""
    parameters: int | None = None
    """Where they are known without the weights."""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its `config.json`; of a model of ours read from the store, which may raise `StoreError`."""
        return self.read_config()

    @property
    def layers(self) -> int | None:
        """Encoder layers, when the configuration tells."""
        counts = (self.config.get(key) for key in _LAYERS)
        return next((count for count in counts if isinstance(count, int)), None)


def find(backend: Backend, owner: str, reference: str, stored: StoredObjects) -> Candidate:
    """The model behind a reference: ours, if it is among those that were looked up, or the Hub's.

    `students/stu-…` is a student of this service; of another one, where this service has none.

    Raises:
        InvalidModelError: there is none, or it cannot be used; `problem_code` says why.
        HubUnavailableError: the Hub does not answer.
    """
    object_id = own_id(reference)
    row: _Row | None = stored.models.get((owner, object_id))
    if parsed := parse_checkpoint(object_id):
        row = _checkpoint(backend, owner, *parsed)
    if row is not None:
        return _stored(backend, reference, object_id, row)
    if may_be_on_hub(reference):
        return _on_hub(reference)
    raise InvalidModelError(
        f"there is no model, student or checkpoint {reference!r}", code="teacher_not_found"
    )


def may_be_on_hub(reference: str) -> bool:
    """False for an id of ours, which the database alone knows."""
    return "/" in reference or reference.partition("-")[0] not in tuple(Prefix)


def check_teacher(candidate: Candidate) -> tuple[str, tuple[str, ...]]:
    """Architecture and label names of a model that is to teach.

    Raises:
        InvalidModelError: it is no classifier of at least two classes; `faults` has every reason.
    """
    if candidate.classifier is not None:
        return candidate.classifier
    config = check_classifier_config(candidate.config)
    return config.architecture, config.labels


def faults_of(pointer: str, reference: str, error: InvalidModelError) -> list[Fault]:
    """The error as faults of the request's field."""
    if not error.faults:
        return [Fault(pointer, error.problem_code, error.detail)]
    return [Fault(pointer, fault.code, f"{reference}: {fault.detail}") for fault in error.faults]


def _stored(backend: Backend, reference: str, object_id: str, row: _Row) -> Candidate:
    return Candidate(
        reference=reference,
        source="model" if isinstance(row, Model) else "student",
        digest=row.digest,
        weights=_weights({file["path"]: file["sha256"] for file in row.files}),
        read_config=partial(_read_config, backend.store, object_id, row.storage_prefix),
        classifier=(row.architecture, tuple(row.labels)),
        object_id=object_id,
        storage_prefix=row.storage_prefix,
        files=tuple(file["path"] for file in row.files),
        parameters=row.parameters,
    )


def _read_config(store: ArtifactStore, object_id: str, storage_prefix: str) -> Mapping[str, Any]:
    try:
        with store.open(f"{storage_prefix}/config.json") as file:
            config: Mapping[str, Any] = json.load(file)
    except FileNotFoundError as error:
        raise StoreError(f"the config.json of {object_id} is missing") from error
    return config


def _checkpoint(backend: Backend, owner: str, job_id: str, step: int) -> Checkpoint | None:
    try:
        return checkpoints.get(backend, owner, job_id, revision_of(step)).row
    except (NotFoundError, GoneError):
        return None


def _on_hub(reference: str) -> Candidate:
    found = hub.fetch(reference)
    weights = _weights(found.files)
    if not weights:
        raise _without_weights(found)
    if found.config.get("auto_map"):
        raise InvalidModelError(
            f"{found.repo_id} needs code of its own (`auto_map`), which muka never runs; use an architecture "
            "that is part of the transformers library",
            code="custom_code",
        )
    return Candidate(
        reference=reference,
        source="hub",
        digest=found.digest,
        weights=weights,
        read_config=lambda: found.config,
        repo_id=found.repo_id,
        commit=found.commit,
        files=tuple(found.files),
        parameters=found.parameters,
    )


def _weights(files: Mapping[str, str]) -> frozenset[str]:
    return frozenset(oid for path, oid in files.items() if "/" not in path and path.endswith(".safetensors"))


def _without_weights(found: hub.HubModel) -> InvalidModelError:
    pickles = [path for path in found.files if "/" not in path and path.endswith(_PICKLES)]
    if pickles:
        return InvalidModelError(
            f"{found.repo_id} has its weights only as {', '.join(sorted(pickles)[:3])}, a format that can "
            "run code when it is read: convert them with `model.save_pretrained(folder)`, and upload that",
            code="teacher_unsafe_format",
        )
    return InvalidModelError(f"{found.repo_id} has no weights (*.safetensors)", code="teacher_not_found")
