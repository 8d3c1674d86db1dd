"""Jobs for tests of the engine, put into database and store as the API does."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import event

from app.domain.identifiers import Prefix, new_id
from app.domain.recipe import Recipe, Resolved, ResolvedStudent, ResolvedTeacher
from app.ingestion.parquet_writer import GROUP_ROWS
from app.persistence import amalgamations, events
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Corpus, Event, Student
from app.storage import ArtifactStore

OWNER = "default"


@contextmanager
def noted_statements(database: Database) -> Iterator[list[str]]:
    """What the database is asked meanwhile, in order."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def add_corpus(
    database: Database, store: ArtifactStore, texts: Sequence[str], labels: Sequence[str | None] | None = None
) -> str:
    """A normalised corpus; answers its id."""
    corpus_id = new_id(Prefix.CORPUS)
    key = f"corpora/{corpus_id}.parquet"
    columns: dict[str, Any] = {"text": pa.array(texts, pa.string())}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.string())
    with store.staging() as folder:
        path = folder / "corpus.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=GROUP_ROWS)
        size = path.stat().st_size
        store.put_file(key, path)
    corpus = Corpus(
        id=corpus_id,
        owner=OWNER,
        content_sha256=hashlib.sha256(corpus_id.encode()).hexdigest(),
        storage_key=key,
        size_bytes=size,
        texts=len(texts),
        labelled=labels is not None,
        statistics={},
    )
    with database.write() as session:
        session.add(corpus)
    return corpus_id


def add_teacher(
    store: ArtifactStore,
    folder: Path,
    labels: Sequence[str | None],
    architecture: str = "BertForSequenceClassification",
) -> ResolvedTeacher:
    """Copy a model folder into the store as an uploaded model."""
    model_id = new_id(Prefix.MODEL)
    prefix = f"models/{model_id}"
    with store.staging() as staged:
        copy = shutil.copytree(folder, staged / "model")
        store.put_folder(prefix, copy)
    weights = (folder / "model.safetensors").read_bytes()
    return ResolvedTeacher(
        source="model",
        reference=model_id,
        object_id=model_id,
        storage_prefix=prefix,
        digest=hashlib.sha256(weights).hexdigest(),
        architecture=architecture,
        labels=list(labels),
    )


def add_job(database: Database, **wanted: Any) -> str:
    """A queued job, as `new_job` has it; answers its id."""
    job = new_job(**wanted)
    with database.write() as session:
        amalgamations.add_all(session, [job])
    return job.id


def new_job(
    *,
    owner: str = OWNER,
    teachers: Sequence[ResolvedTeacher] = (),
    corpus_id: str = "cor-none",
    evaluation_corpus_id: str | None = None,
    recipe_version: int = 1,
    **recipe: Any,
) -> Amalgamation:
    """A job that is not stored."""
    named = [teacher.reference for teacher in teachers] or ["acme/a", "acme/b"]
    body = Recipe.model_validate({"teachers": named, "corpus": corpus_id, **recipe})
    labels = [label for teacher in teachers for label in teacher.labels if label is not None]
    resolved = Resolved(
        recipe_version=recipe_version,
        teachers=list(teachers),
        student=ResolvedStudent(teacher=0),
        labels=list(dict.fromkeys(labels)),
        corpus_id=corpus_id,
        evaluation_corpus_id=evaluation_corpus_id,
    )
    return Amalgamation(
        id=new_id(Prefix.AMALGAMATION),
        owner=owner,
        recipe=body.model_dump(mode="json"),
        resolved=resolved.model_dump(mode="json"),
        user_metadata={},
    )


def job_of(database: Database, job_id: str) -> Amalgamation:
    """The row as it is now."""
    with database.read() as session:
        found = amalgamations.find(session, job_id)
    assert found is not None
    return found


def events_of(database: Database, job_id: str) -> list[Event]:
    """The whole event log, oldest first."""
    with database.read() as session:
        return list(events.after(session, job_id, 0, limit=100_000))


def messages_of(database: Database, job_id: str) -> list[str]:
    """The event log as a reader sees it."""
    return [event.message for event in events_of(database, job_id)]


def student_of(database: Database, job_id: str) -> Student:
    """What the job made."""
    with database.read() as session:
        found = session.get(Student, job_of(database, job_id).student_id)
    assert found is not None
    return found
