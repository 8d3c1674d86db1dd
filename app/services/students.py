"""Use cases over students: look, list, download, delete."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix
from app.persistence import checkpoints, owned
from app.persistence.tables import Student
from app.services import published
from app.services.backend import Backend
from app.services.downloads import Download


def get(backend: Backend, owner: str, student_id: str) -> Student:
    """One student.

    Raises:
        NotFoundError: there is none, or it is another owner's.
    """
    with backend.database.read() as session:
        return _find(session, owner, student_id)


def page(
    backend: Backend, owner: str, *, limit: int, after: str | None, descending: bool
) -> Sequence[Student]:
    """Up to `limit + 1` students; the one more tells that there is a next page."""
    with backend.database.read() as session:
        return owned.page(session, Student, owner, limit=limit, after=after, descending=descending)


def delete(backend: Backend, owner: str, student_id: str) -> None:
    """Remove a student and its files.

    Raises:
        NotFoundError: there is none.
        ConflictError: a job that has not ended needs it.
    """
    with backend.database.write() as session:
        student = _find(session, owner, student_id, lock=True)
        if checkpoints.uses_model(session, student_id, student.storage_prefix):
            raise ConflictError(
                "a job that has not ended needs this student; wait for the job, or cancel it", code="in_use"
            )
        session.delete(student)
    backend.store.delete(f"students/{student_id}")


def file(backend: Backend, owner: str, student_id: str, path: str) -> Download:
    """One file of the manifest; nothing else can be named.

    Raises:
        NotFoundError: there is no such student, or its manifest has no such path.
        StoreError: the file is not there.
    """
    download = published.file(backend.store, get(backend, owner, student_id), path)
    if download is None:
        raise NotFoundError(
            f"the student has no file {path[:200]!r}; GET /students/{student_id}/files lists them"
        )
    return download


def archive(backend: Backend, owner: str, student_id: str) -> Download:
    """All files as one .tar.

    Raises:
        NotFoundError: there is no such student.
        StoreError: a file is not there.
    """
    student = get(backend, owner, student_id)
    return published.archive(backend.store, student, student.id)


def _find(session: Session, owner: str, student_id: str, *, lock: bool = False) -> Student:
    student = None
    if has_prefix(student_id, Prefix.STUDENT):
        student = owned.find(session, Student, student_id, owner=owner, lock=lock)
    if student is None:
        raise NotFoundError(f"there is no student {student_id[:100]!r}")
    return student
