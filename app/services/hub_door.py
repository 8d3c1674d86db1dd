"""Students as repositories of a Hugging Face Hub: `students/<stu-id>`, read-only.

The branch `main` is the student; each checkpoint of its training is a tag, `step-200`. What they name never
changes, but checkpoints expire. While a job trains, its repository has tags only.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.domain.errors import NotFoundError
from app.domain.identifiers import Prefix, has_prefix
from app.domain.revisions import HUB_NAMESPACE, MAIN, amalgamation_of, revision_of
from app.persistence.tables import Checkpoint, Student
from app.services import checkpoints, published, students
from app.services.backend import Backend
from app.services.downloads import Download


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a commit."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """A student, or a checkpoint of its training, as a commit of a repository."""

    name: str
    """Of the repository, as clients write it."""
    row: Student | Checkpoint

    @property
    def files(self) -> list[RepositoryFile]:
        """In the order of their paths."""
        files = (RepositoryFile(f["path"], f["size_bytes"], f["sha256"]) for f in self.row.files)
        return sorted(files, key=lambda file: file.path)

    @property
    def sha(self) -> str:
        """40 hex digits, which follow from the content alone: the same on every server."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha1(lines.encode(), usedforsecurity=False).hexdigest()

    def below(self, folder: str, *, recursive: bool) -> Iterator[RepositoryFile | str]:
        """Files below a folder (empty: the whole), and the folders, as their paths, that hold others.

        Raises:
            NotFoundError: there is nothing at that path.
        """
        prefix = f"{folder}/" if folder else ""
        inside = [file for file in self.files if file.path.startswith(prefix)]
        if not inside:
            raise NotFoundError(f"{self.name} has nothing at {folder[:200]!r}", code="entry_not_found")
        seen: set[str] = set()
        for file in inside:
            parts = file.path.removeprefix(prefix).split("/")
            depth = len(parts) if recursive else 2
            for parent in (prefix + "/".join(parts[:end]) for end in range(1, min(depth, len(parts)))):
                if parent not in seen:
                    seen.add(parent)
                    yield parent
            if recursive or len(parts) == 1:
                yield file


def revisions(backend: Backend, owner: str, namespace: str, name: str) -> dict[str, Commit]:
    """What a repository has, by name: `main` first, then checkpoints from the newest.

    Raises:
        NotFoundError: `repo_not_found`.
    """
    full_name = f"{namespace}/{name}"
    found: dict[str, Commit] = {}
    if f"{namespace}/" == HUB_NAMESPACE and has_prefix(name, Prefix.STUDENT):
        with suppress(NotFoundError):
            found[MAIN] = Commit(full_name, students.get(backend, owner, name))
        with suppress(NotFoundError):  # a student outlives its job
            for each in checkpoints.of_job(backend, owner, amalgamation_of(name)):
                found[revision_of(each.row.step)] = Commit(full_name, each.row)
    if not found:
        raise no_repository(full_name)
    return found


def find(backend: Backend, owner: str, namespace: str, name: str, revision: str = MAIN) -> Commit:
    """The commit that a revision names: `main`, `step-200`, or its sha.

    Raises:
        NotFoundError: `repo_not_found` or `revision_not_found`.
    """
    there = revisions(backend, owner, namespace, name)
    if revision in there:
        return there[revision]
    for commit in there.values():
        if commit.sha == revision:
            return commit
    raise NotFoundError(
        f"{namespace}/{name} has no revision {revision[:100]!r}; it has {', '.join(there)}",
        code="revision_not_found",
    )


def no_repository(name: str) -> NotFoundError:
    """For names that stand for nothing here."""
    return NotFoundError(
        f"there is no model {name[:200]!r}; this hub has students, as `{HUB_NAMESPACE}stu-…`",
        code="repo_not_found",
    )


def file(backend: Backend, commit: Commit, path: str) -> Download:
    """One file.

    Raises:
        NotFoundError: `entry_not_found`.
        StoreError: the file is not there.
    """
    download = published.file(backend.store, commit.row, path)
    if download is None:
        raise NotFoundError(f"{commit.name} has no file {path[:200]!r}", code="entry_not_found")
    return download


def facts(commit: Commit, *, with_sizes: bool) -> dict[str, Any]:
    """What the Hub tells of a model."""
    row, files = commit.row, commit.files
    at = f"{row.created_at:%Y-%m-%dT%H:%M:%S}.000Z"
    return {
        "_id": row.digest[:24],
        "id": commit.name,
        "modelId": commit.name,
        "author": HUB_NAMESPACE.rstrip("/"),
        "sha": commit.sha,
        "createdAt": at,
        "lastModified": at,
        "private": True,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["transformers", "safetensors", "text-classification"],
        "siblings": [
            {"rfilename": file.path, **(contents(file, "blobId") if with_sizes else {})} for file in files
        ],
        "usedStorage": row.size_bytes,
    }


def refs(there: Mapping[str, Commit]) -> dict[str, Any]:
    """The branch `main`, if there is a student, and a tag a checkpoint."""
    named = [(name, commit.sha) for name, commit in there.items()]
    return {
        "branches": [_ref("heads", name, sha) for name, sha in named if name == MAIN],
        "tags": [_ref("tags", name, sha) for name, sha in named if name != MAIN],
        "converts": [],
    }


def _ref(kind: str, name: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}


def contents(file: RepositoryFile, oid: str) -> dict[str, Any]:
    """Size and digest. Told as of a large file, for those are named by their sha256, which we have.

    `oid`: what this answer calls the id of the (pointer's) blob.
    """
    blob = hashlib.sha1(file.sha256.encode(), usedforsecurity=False).hexdigest()
    large = {"sha256": file.sha256, "oid": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return {oid: blob, "size": file.size_bytes, "lfs": large}
