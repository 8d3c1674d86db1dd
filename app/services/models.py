"""Use cases over uploaded models: create, look, list, delete."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix, new_id
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.model_files import INDEX
from app.ingestion.model_folder import CheckedModel, check_model_folder
from app.ingestion.names import display_name
from app.ingestion.unpack import Unpacked, UnpackedFile, unpack
from app.persistence import checkpoints, models, owned
from app.persistence.tables import Model
from app.services import content
from app.services.backend import Backend
from app.storage import StoreError


@dataclass(frozen=True)
class CreatedModel:
    """What an upload has become."""

    model: Model
    is_new: bool
    """False: the same content was there already."""
    ignored_files: list[str]
    """Paths in the archive that were not kept."""


@dataclass(frozen=True)
class NewModel:
    """An archive that was received into a staging folder of the store."""

    path: Path
    kind: ArchiveKind
    name: str | None


def create(
    backend: Backend, owner: str, new: NewModel, keep: Callable[[Session, CreatedModel], None]
) -> CreatedModel:
    """Unpack, check and store an archive; `keep` is called in the transaction that stores.

    Raises:
        InvalidModelError: A broken or unsafe archive, or no usable classifier in it.
        PayloadTooLargeError: It unpacks to more than the limit.
    """
    with backend.store.staging() as staging:
        folder = staging / "model"
        folder.mkdir()
        try:
            unpacked = unpack(new.path, new.kind, folder, backend.settings.max_model_bytes)
            names = {path.rpartition("/")[2] for path in unpacked.ignored} | unpacked.files.keys()
            checked = check_model_folder(folder, names)
            _leave_out(folder, unpacked, checked)
        except OSError as error:
            raise StoreError(f"the model cannot be written: {error.strerror}") from error
        model, is_new = _store_once(
            backend,
            owner=owner,
            name=display_name(new.name),
            folder=folder,
            unpacked=unpacked,
            checked=checked,
            keep=lambda session, made: keep(session, CreatedModel(*made, unpacked.ignored)),
        )
    return CreatedModel(model, is_new, unpacked.ignored)


def get(backend: Backend, owner: str, model_id: str) -> Model:
    """One model.

    Raises:
        NotFoundError: There is none, or it is another owner's.
    """
    with backend.database.read() as session:
        return _find(session, owner, model_id)


def page(backend: Backend, owner: str, *, limit: int, after: str | None, descending: bool) -> Sequence[Model]:
    """Up to `limit + 1` models; the one more tells that there is a next page."""
    with backend.database.read() as session:
        return owned.page(session, Model, owner, limit=limit, after=after, descending=descending)


def delete(backend: Backend, owner: str, model_id: str) -> None:
    """Remove a model and its files.

    Raises:
        NotFoundError: There is none.
        ConflictError: A job that has not ended needs it.
    """
    with backend.database.write() as session:
        model = _find(session, owner, model_id, lock=True)
        if checkpoints.uses_model(session, model_id, model.storage_prefix):
            raise ConflictError(
                "a job that has not ended needs this model; wait for the job, or cancel it", code="in_use"
            )
        session.delete(model)
        prefix = model.storage_prefix
    backend.store.delete(prefix)


def _find(session: Session, owner: str, model_id: str, *, lock: bool = False) -> Model:
    model = None
    if has_prefix(model_id, Prefix.MODEL):
        model = owned.find(session, Model, model_id, owner=owner, lock=lock)
    if model is None:
        raise NotFoundError(f"there is no model {model_id[:100]!r}")
    return model


def _leave_out(folder: Path, unpacked: Unpacked, checked: CheckedModel) -> None:
    """Weights of other things (adapters, an index beside whole weights) do not belong to the classifier."""
    for name in list(unpacked.files):
        if (name.endswith(".safetensors") or name == INDEX) and name not in checked.weights:
            (folder / name).unlink()
            del unpacked.files[name]
            unpacked.ignored.append(name)


def _store_once(
    backend: Backend,
    *,
    owner: str,
    name: str | None,
    folder: Path,
    unpacked: Unpacked,
    checked: CheckedModel,
    keep: content.Keep[Model],
) -> tuple[Model, bool]:
    manifest = sorted(unpacked.files.values(), key=lambda file: file.path)
    find = partial(models.find_by_digest, owner=owner, digest=_digest(manifest))
    if found := content.known(backend, find, expiry=None, keep=keep):
        return found, False
    model_id = new_id(Prefix.MODEL)
    model = Model(
        id=model_id,
        owner=owner,
        name=name,
        digest=_digest(manifest),
        storage_prefix=f"models/{model_id}",
        size_bytes=sum(file.size_bytes for file in manifest),
        files=[asdict(file) for file in manifest],
        architecture=checked.config.architecture,
        model_type=checked.config.model_type,
        labels=list(checked.config.labels),
        parameters=checked.parameters,
    )
    backend.store.put_folder(model.storage_prefix, folder)
    return content.insert(backend, model, model.storage_prefix, find, expiry=None, keep=keep)


def _digest(manifest: Sequence[UnpackedFile]) -> str:
    lines = "".join(f"{file.sha256}  {file.path}\n" for file in manifest)
    return hashlib.sha256(lines.encode()).hexdigest()
