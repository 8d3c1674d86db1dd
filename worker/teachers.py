"""References to models -> local folders -> loaded, frozen teachers."""

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from app.domain.recipe import ResolvedStudent, ResolvedTeacher
from app.storage import ArtifactStore

if TYPE_CHECKING:
    import torch

    from worker.muka import Teacher
    from worker.muka.recipe import Precision

WANTED = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
]
"""Weights as safetensors, configuration, tokenizer: nothing that could run."""
_NOT_BELOW = ["*/*"]


class ModelGoneError(Exception):
    """The model is not where it was when the job was created."""


class ModelGatedError(Exception):
    """The Hub refuses the model to this token."""


def folder_of(model: ResolvedTeacher | ResolvedStudent, store: ArtifactStore) -> Path:
    """The model's files as a local folder: out of the store, or of the Hub's cache at the exact commit.

    Raises:
        ModelGoneError: It is not there (any more), or the Hub cannot be reached.
        ModelGatedError: The token may not read it.
    """
    if model.storage_prefix is not None:
        try:
            return store.local_path(model.storage_prefix)
        except FileNotFoundError as error:
            raise ModelGoneError(f"{_name(model)}: its files are not in the store any more") from error
    if model.repo_id is None:
        raise ModelGoneError(f"{_name(model)}: neither a repository nor a place in the store is known")
    return _download(model.repo_id, model.commit)


def _download(repo_id: str, commit: str | None) -> Path:
    try:
        return Path(
            snapshot_download(repo_id, revision=commit, allow_patterns=WANTED, ignore_patterns=_NOT_BELOW)
        )
    except GatedRepoError as error:
        raise ModelGatedError(f"{repo_id}: the Hub gives it only to accounts that asked for it") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise ModelGoneError(f"{repo_id}@{commit}: {_why(error)}") from error
    except (HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the Hub's
        raise ModelGoneError(f"{repo_id}@{commit}: the Hub does not answer") from error


def _why(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return "it is not in the local cache, and the Hub cannot be reached or is switched off"
    return "the Hub does not know it (any more), or the token may not see it"


def load_teacher(
    teacher: ResolvedTeacher, folder: Path, *, device: "torch.device", precision: "Precision"
) -> "Teacher":
    """Load with the labels that were resolved when the job was created."""
    from worker.muka import Teacher  # noqa: PLC0415  (torch comes with it)

    return Teacher.load(
        folder,
        name=teacher.reference,
        labels=teacher.labels,
        device=device,
        precision=precision,
        digest=teacher.digest,
    )


def _name(model: ResolvedTeacher | ResolvedStudent) -> str:
    return model.reference if isinstance(model, ResolvedTeacher) else "the student's start"
