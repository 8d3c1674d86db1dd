"""The student's folder, or the table of a job without one, and the one transaction that makes it visible."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.domain.identifiers import student_of
from app.domain.status import Status
from app.persistence import amalgamations, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Student
from app.storage import ArtifactStore
from worker.lease import Lease, LeaseLostError
from worker.muka import Student as TrainedStudent
from worker.muka import write_model_card
from worker.plots import FOLDER as PICTURES
from worker.text_table import TEXT_TABLE

MANIFEST = "MANIFEST.json"
_STORY = ("README.md", "muka.json", TEXT_TABLE, MANIFEST, f"{PICTURES}/")
"""Files that tell how the student was made, with times; they do not change what it answers."""


def write_folder(
    folder: Path, student: TrainedStudent, *, card: Mapping[str, Any], story: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Weights, tokenizer, README.md, muka.json and MANIFEST.json; answers the manifest of the folder."""
    student.save(folder)
    return describe(folder, card=card, story=story)


def describe(
    folder: Path, *, card: Mapping[str, Any], story: Mapping[str, Any], hidden: Collection[str] = ()
) -> list[dict[str, Any]]:
    """README.md, muka.json and MANIFEST.json of a model; the hidden files are not in the manifest."""
    write_model_card(folder, card)
    (folder / "muka.json").write_text(_json(story), encoding="utf-8")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in hidden)
    files = [_entry(folder, path) for path in paths]
    (folder / MANIFEST).write_text(_json({"files": files}), encoding="utf-8")
    return [*files, _entry(folder, folder / MANIFEST)]


def content_digest(files: list[dict[str, Any]]) -> str:
    """sha256 over names and digests of the files that a loader reads: equal students have equal digests."""
    told = [(entry["path"], entry["sha256"]) for entry in files if not entry["path"].startswith(_STORY)]
    return hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()


def publish(
    database: Database,
    store: ArtifactStore,
    lease: Lease,
    *,
    folder: Path,
    files: list[dict[str, Any]],
    student: TrainedStudent,
    **columns: Any,
) -> None:
    """Move the folder in, then insert the student and end the job in one transaction.

    A cancel that arrives meanwhile meets either a job that still runs, or one that has succeeded.

    Raises:
        LeaseLostError: Another attempt has the job; nothing was published, and the files are removed.
    """
    student_id = student_of(lease.job_id)
    prefix = f"students/{student_id}/attempt-{lease.attempt}"
    store.put_folder(prefix, folder)
    row = columns_of(prefix, files, student)
    with _removed_if_lost(store, prefix, lambda: _is_published(database, student_id, prefix)):
        lease.write(lambda session: _insert(session, lease, student_id, row, columns))


def publish_table(
    database: Database, store: ArtifactStore, lease: Lease, *, table: Path, **columns: Any
) -> None:
    """Move the table of texts in, then name it and end the job in one transaction: it makes no student.

    Raises:
        LeaseLostError: Another attempt has the job; nothing was published, and the file is removed.
    """
    key = f"jobs/{lease.job_id}/attempt-{lease.attempt}/{TEXT_TABLE}"
    store.put_file(key, table)
    message = "what the teachers say together is published"
    with _removed_if_lost(store, key, lambda: _is_named(database, lease.job_id, key)):
        lease.write(
            lambda session: lease.change(session, Status.SUCCEEDED, message, text_table=key, **columns)
        )


@contextlib.contextmanager
def _removed_if_lost(store: ArtifactStore, key: str, is_published: Callable[[], bool]) -> Iterator[None]:
    try:
        yield
    except LeaseLostError:
        # The commit may have arrived although its answer did not: then the second try found the job ended.
        if not is_published():
            store.delete(key)
            raise


def columns_of(prefix: str, files: list[dict[str, Any]], student: TrainedStudent) -> dict[str, Any]:
    """What the rows of a student and of a checkpoint tell of the folder behind the prefix."""
    return {
        "storage_prefix": prefix,
        "size_bytes": sum(entry["size_bytes"] for entry in files),
        "files": files,
        "digest": content_digest(files),
        "architecture": type(student.model).__name__,
        "labels": list(student.labels),
        "parameters": sum(parameter.numel() for parameter in student.model.parameters()),
    }


def _is_published(database: Database, student_id: str, prefix: str) -> bool:
    with database.read() as session:
        student = owned.find(session, Student, student_id, owner=None)
    return student is not None and student.storage_prefix == prefix


def _is_named(database: Database, job_id: str, key: str) -> bool:
    with database.read() as session:
        job = amalgamations.find(session, job_id)
    return job is not None and job.text_table == key


def _insert(
    session: Session, lease: Lease, student_id: str, row: dict[str, Any], columns: dict[str, Any]
) -> Amalgamation | None:
    job = lease.change(
        session, Status.SUCCEEDED, "the student is published", student_id=student_id, **columns
    )
    if job is not None:
        session.add(Student(id=student_id, owner=job.owner, amalgamation_id=job.id, name=job.name, **row))
    return job


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = path.relative_to(folder).as_posix()
    return {"path": name, "sha256": digest, "size_bytes": path.stat().st_size}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
