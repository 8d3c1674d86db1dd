"""Students as repositories of a Hugging Face Hub: `students/<stu-id>`, read-only, one commit each."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.domain.errors import NotFoundError
from app.persistence.tables import Student
from app.services import students
from app.services.backend import Backend
from app.services.downloads import Download

NAMESPACE = "students"
MAIN = "main"


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a commit."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Repository:
    """A student at its only commit: what is published never changes."""

    student: Student

    @property
    def name(self) -> str:
        """As clients write it."""
        return f"{NAMESPACE}/{self.student.id}"

    @property
    def files(self) -> list[RepositoryFile]:
        """In the order of their paths."""
        files = (RepositoryFile(f["path"], f["size_bytes"], f["sha256"]) for f in self.student.files)
        return sorted(files, key=lambda file: file.path)

    @property
    def commit(self) -> str:
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


def find(backend: Backend, owner: str, namespace: str, name: str, revision: str = MAIN) -> Repository:
    """The repository, if the revision is one of its own.

    Raises:
        NotFoundError: `repo_not_found` or `revision_not_found`.
    """
    if namespace != NAMESPACE:
        raise no_repository(f"{namespace}/{name}")
    try:
        repository = Repository(students.get(backend, owner, name))
    except NotFoundError as error:
        raise no_repository(f"{namespace}/{name}") from error
    if revision not in (MAIN, repository.commit):
        detail = f"{repository.name} has no revision {revision[:100]!r}; it has `main`"
        raise NotFoundError(detail, code="revision_not_found")
    return repository


def no_repository(name: str) -> NotFoundError:
    """For names that stand for nothing here."""
    return NotFoundError(
        f"there is no model {name[:200]!r}; this hub has students, as `{NAMESPACE}/stu-…`",
        code="repo_not_found",
    )


def file(backend: Backend, owner: str, repository: Repository, path: str) -> Download:
    """One file.

    Raises:
        NotFoundError: `entry_not_found`.
        StoreError: the file is not there.
    """
    try:
        return students.file(backend, owner, repository.student.id, path)
    except NotFoundError as error:
        detail = f"{repository.name} has no file {path[:200]!r}"
        raise NotFoundError(detail, code="entry_not_found") from error


def facts(repository: Repository, *, with_sizes: bool) -> dict[str, Any]:
    """What the Hub tells of a model."""
    row, files = repository.student, repository.files
    at = f"{row.created_at:%Y-%m-%dT%H:%M:%S}.000Z"
    return {
        "_id": row.digest[:24],
        "id": repository.name,
        "modelId": repository.name,
        "author": NAMESPACE,
        "sha": repository.commit,
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


def contents(file: RepositoryFile, oid: str) -> dict[str, Any]:
    """Size and digest. Told as of a large file, for those are named by their sha256, which we have.

    `oid`: what this answer calls the id of the (pointer's) blob.
    """
    blob = hashlib.sha1(file.sha256.encode(), usedforsecurity=False).hexdigest()
    large = {"sha256": file.sha256, "oid": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return {oid: blob, "size": file.size_bytes, "lfs": large}
