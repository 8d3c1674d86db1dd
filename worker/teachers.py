"""References to models -> local folders -> loaded, frozen teachers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from app.domain.recipe import ResolvedStudent, ResolvedTeacher
from app.storage import DISK_ERRORS, ArtifactStore

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
HUB_WAITS_SECONDS: Sequence[float] = (10, 30)
"""Between the times that a silent Hub is asked. `huggingface_hub` itself repeats each request for half a
minute, so that this is two minutes in all."""
_NO_ANSWER: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    OSError,
    *(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"),
)
"""With those of the HTTP library that `huggingface_hub` is built on: timeouts, broken connections."""


class ModelGoneError(Exception):
    """The model is not where it was when the job was created."""


class HubSilentError(ModelGoneError):
    """The Hub does not answer, or not sensibly; later it may."""


class ModelGatedError(Exception):
    """The Hub refuses the model to this token."""


def folder_of(model: ResolvedTeacher | ResolvedStudent, store: ArtifactStore) -> Path:
    """The model's files as a local folder: out of the store, or of the Hub's cache at the exact commit.

    Raises:
        ModelGoneError: It is not there (any more); `HubSilentError`: the Hub does not answer.
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


def patiently(find: Callable[[], Path], wait: Callable[[float, str], None]) -> Path:
    """What `find` answers, asked again, ever more rarely, while the Hub is silent.

    Args:
        find: like `folder_of`.
        wait: given seconds to let pass, and why.

    Raises:
        HubSilentError: It was silent for longer than `HUB_WAITS_SECONDS` together.
    """
    for seconds in HUB_WAITS_SECONDS:
        try:
            return find()
        except HubSilentError as error:
            wait(seconds, str(error))
    return find()


def _download(repo_id: str, commit: str | None) -> Path:
    name = f"{repo_id}@{commit}"
    try:
        return Path(
            snapshot_download(repo_id, revision=commit, allow_patterns=WANTED, ignore_patterns=_NOT_BELOW)
        )
    except GatedRepoError as error:
        raise ModelGatedError(f"{repo_id}: the Hub gives it only to accounts that asked for it") from error
    except LocalEntryNotFoundError as error:
        if is_offline_mode():
            detail = "it is not in the local cache, and the Hub is switched off (HF_HUB_OFFLINE)"
            raise ModelGoneError(f"{name}: {detail}") from error
        raise HubSilentError(f"{name}: the Hub does not answer, and the local cache has it not") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        detail = "the Hub does not know it (any more), or the token may not see it"
        raise ModelGoneError(f"{name}: {detail}") from error
    except _NO_ANSWER as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise  # the disk's, not the Hub's
        raise HubSilentError(f"{name}: the Hub does not answer") from error


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
