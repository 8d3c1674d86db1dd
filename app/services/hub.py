"""Models on the Hugging Face Hub, as facts: resolved to a commit, never loaded.

`huggingface_hub` reads HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE itself, and is imported at the
first model of the Hub: an API that sees none stays small. Offline, the local cache stands for the Hub.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import HubUnavailableError, InvalidModelError

TIMEOUT_SECONDS = 10.0
"""For each of the two requests per model: connecting, and every pause in the answer."""
MAX_CONFIG_BYTES = 4 << 20

_REFERENCE = re.compile(
    r"(?P<repo>[\w.-]{1,96}(?:/[\w.-]{1,96})?)(?:@(?P<revision>[\w./-]{1,200}))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTENT = (".safetensors", ".json", ".txt", ".model")
"""Files at the top of a repository that make the model what it is: weights, configuration, tokenizer."""


@dataclass(frozen=True)
class HubModel:
    """One commit of one repository."""

    repo_id: str
    commit: str
    files: Mapping[str, str]
    """Path to content: sha256 of large files, the git object id of small ones."""
    config: Mapping[str, Any]
    parameters: int | None = None
    """As the Hub has counted them in the safetensors files."""

    @property
    def digest(self) -> str:
        """Names the content that matters: equal for copies of a model under other names."""
        kept = sorted((p, oid) for p, oid in self.files.items() if "/" not in p and p.endswith(_CONTENT))
        return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def fetch(reference: str) -> HubModel:
    """Look a model up: `org/name` or `org/name@revision`.

    Raises:
        InvalidModelError: there is none, it is private or gated, or it has no readable config.json.
        HubUnavailableError: the Hub does not answer in time, or not sensibly.
    """
    repo_id, revision = _parse(reference)
    from huggingface_hub import constants  # noqa: PLC0415  (see the top)

    return _from_cache(repo_id, revision) if constants.HF_HUB_OFFLINE else _from_hub(repo_id, revision)


def _parse(reference: str) -> tuple[str, str | None]:
    match = _REFERENCE.fullmatch(reference)
    if match is None or ".." in reference:
        raise _no_name(reference)
    return match["repo"], match["revision"]


def _no_name(reference: str) -> InvalidModelError:
    return InvalidModelError(
        f"{reference[:100]!r} is no name of a model: give `org/name` or `org/name@revision` of the Hub, the "
        "id of an uploaded model (`mdl-…`) or of a student (`stu-…`)",
        code="reference_invalid",
    )


def _from_hub(repo_id: str, revision: str | None) -> HubModel:
    from huggingface_hub import HfApi  # noqa: PLC0415

    with _hub_errors(repo_id, revision):
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise HubUnavailableError(f"the Hub names no commit for {repo_id}; try again later")
        files = {
            s.rfilename: (s.lfs.sha256 if s.lfs else s.blob_id) or f"{repo_id}@{commit}"
            for s in info.siblings or ()
        }
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
        is_there = sizes.get("config.json", MAX_CONFIG_BYTES + 1) <= MAX_CONFIG_BYTES
        content = _read_config(repo_id, commit) if is_there else None
    parameters = info.safetensors.total if info.safetensors else None
    return HubModel(repo_id, commit, files, _parse_config(repo_id, content), parameters)


def _read_config(repo_id: str, commit: str) -> bytes:
    from huggingface_hub import get_session, hf_hub_url  # noqa: PLC0415
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        build_hf_headers,
        hf_raise_for_status,
    )

    url = hf_hub_url(repo_id, "config.json", revision=commit)
    response = get_session().get(
        url, headers=build_hf_headers(), timeout=TIMEOUT_SECONDS, follow_redirects=True
    )
    hf_raise_for_status(response)
    return response.content


def _from_cache(repo_id: str, revision: str | None) -> HubModel:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise InvalidModelError(
            f"{_named(repo_id, revision)} is not in the local cache, and muka is offline (HF_HUB_OFFLINE): "
            "fetch it with `hf download` while online, or go online",
            code="teacher_not_found",
        ) from error
    paths = [path for path in folder.iterdir() if path.is_file()]
    # The cache names a file's blob by its ETag: sha256 of large files, the git object id of small ones.
    files = {path.name: path.resolve().name if path.is_symlink() else folder.name for path in paths}
    config = folder / "config.json"
    content = config.read_bytes() if config.is_file() else None
    return HubModel(repo_id, folder.name, files, _parse_config(repo_id, content))


def _parse_config(repo_id: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        detail = f"{repo_id} has no config.json (of at most 4 MB), so it is no transformers model"
        raise InvalidModelError(detail, code="teacher_not_classifier")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        detail = f"config.json of {repo_id} cannot be read: it is not a JSON object"
        raise InvalidModelError(detail, code="teacher_not_classifier")
    return config


def _named(repo_id: str, revision: str | None) -> str:
    return repo_id if revision is None else f"{repo_id}@{revision}"


@contextmanager
def _hub_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into our errors, whichever HTTP library it is built on."""
    from huggingface_hub import errors  # noqa: PLC0415

    any_http_error = (base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    no_answer: tuple[type[Exception], ...] = (OSError, ValueError, *any_http_error)
    name = _named(repo_id, revision)
    try:
        yield
    except errors.HFValidationError as error:
        raise _no_name(name) from error
    except errors.GatedRepoError as error:
        raise InvalidModelError(
            f"{name} is gated: accept its conditions on the Hub with the account of muka's HF_TOKEN, then "
            "send the request again",
            code="teacher_gated",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _not_there(name) from error
    except no_answer as error:
        raise HubUnavailableError(
            f"the Hub did not answer about {name}; try again later, or upload the model with POST /models"
        ) from error


def _not_there(name: str) -> InvalidModelError:
    return InvalidModelError(
        f"the Hub has no {name}, or it is private: check the spelling of name and revision, or give muka a "
        "HF_TOKEN that may read it",
        code="teacher_not_found",
    )
