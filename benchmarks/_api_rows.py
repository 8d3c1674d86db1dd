"""What lies in the database of `make bench-api`: keys, teachers, a corpus, and as many jobs as it takes."""

import hashlib
import json
import os
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import delete, select, text

from app.api.examples import AMALGAMATION, REPORT
from app.domain.access import Scope
from app.domain.identifiers import Prefix
from app.domain.recipe import Recipe, Resolved, ResolvedStudent, ResolvedTeacher
from app.persistence import amalgamations, migrate
from app.persistence.tables import Amalgamation, IdempotencyKey, Student
from app.services import keys
from app.services.backend import Backend
from app.settings import Settings
from app.task_queue import QUEUE
from tests.api_objects import add_corpus, add_model, add_student

OWNER = "acme"
"""Whose jobs are there from the beginning."""
SUBMITTER = "submitter-"
"""So the owners of all others are called."""
LIVE = 40
"""The newest jobs, of which every fourth runs and the others wait; all older ones have ended."""
TEAMS = 10
"""Each has so great a share of the jobs: `metadata[team]=team-3`."""
FIRST_MILLISECOND = 1_700_000_000_000
"""Of the ids; one job a millisecond."""

_FILL = """
INSERT INTO amalgamations ({columns})
SELECT 'amg-' || lpad(to_hex(:first + n), 12, '0') || '7' || substr(md5(n::text), 1, 3)
           || '8' || substr(md5(n::text), 4, 15) AS id,
    CASE WHEN n > :jobs - :live THEN (ARRAY['running', 'queued', 'queued', 'queued'])[n % 4 + 1]
         ELSE (ARRAY['failed', 'cancelled', 'succeeded', 'succeeded', 'succeeded'])[n % 5 + 1] END AS status,
    jsonb_build_object('team', 'team-' || n % :teams, 'ticket', n::text) AS metadata,
    CASE WHEN n % 5 > 1 AND n <= :jobs - :live AND (n > :jobs - 1000 OR abs(n - :jobs / 2) < 1000)
         THEN report END AS report,
    CASE WHEN n > :jobs - :live AND n % 4 = 0 THEN clock_timestamp() + interval '1 day' END AS lease_until,
    clock_timestamp() AS dispatched_at,
    {copied}
FROM amalgamations, generate_series(1, :jobs) AS n WHERE id = :model
"""
_MADE = ("id", "status", "metadata", "report", "lease_until", "dispatched_at")


@dataclass(frozen=True)
class Service:
    """A database and store that are ready to be served."""

    backend: Backend
    key: str
    """Of the owner of the jobs."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the API is told."""
        settings = self.backend.settings
        return {
            "MUKA_DATA_DIR": str(settings.data_dir),
            "MUKA_DATABASE_URL": str(settings.database_url),
            "MUKA_BROKER_URL": str(settings.broker_url),
            "MUKA_HOST": "0.0.0.0",  # nobody comes in without a key
            "HF_HUB_OFFLINE": "1",
        }


@contextmanager
def filled(folder: Path, database_url: str, broker_url: str, jobs: int) -> Iterator[Service]:
    """An own store, and a migrated database with so many jobs of one owner."""
    settings = Settings(data_dir=folder, database_url=database_url, broker_url=broker_url)
    migrate.upgrade(database_url)
    backend = Backend.from_settings(settings)
    try:
        _, key = keys.create(backend.database, OWNER, list(Scope))
        _fill(backend, jobs)
        yield Service(backend, key)
    finally:
        backend.close()


def _fill(backend: Backend, jobs: int) -> None:
    """Copies of one job, made by the database itself: 20,000 and more a second.

    Only the jobs that are asked for have reports, which would take most of the time and the disk.
    """
    columns = [column.name for column in Amalgamation.__table__.columns]
    copied = [name for name in columns if name not in _MADE]
    query = _FILL.format(columns=", ".join([*_MADE, *copied]), copied=", ".join(copied))
    numbers = {"first": FIRST_MILLISECOND, "jobs": jobs, "live": LIVE, "teams": TEAMS}
    with backend.database.write() as session:
        model = _model_job()
        amalgamations.add_all(session, [model])
        model.progress = AMALGAMATION["progress"]
        model.report = REPORT
        model.transitions = AMALGAMATION["transitions"]
        model.attempt = 1
        session.flush()
        session.execute(text(query), {**numbers, "model": model.id})
        session.delete(model)
    with backend.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE amalgamations"))


def _model_job() -> Amalgamation:
    teachers = [ResolvedTeacher.model_validate(each) for each in AMALGAMATION["teachers"]]
    resolved = Resolved(
        teachers=teachers,
        student=ResolvedStudent(teacher=0),
        labels=AMALGAMATION["labels"],
        corpus_id=AMALGAMATION["corpus_id"],
    )
    return Amalgamation(
        id=AMALGAMATION["id"],
        owner=OWNER,
        name=AMALGAMATION["name"],
        recipe=Recipe.model_validate(AMALGAMATION["recipe"]).model_dump(mode="json"),
        resolved=resolved.model_dump(mode="json"),
        user_metadata={},
    )


def job_id(number: int) -> str:
    """The id of the `number`-th job, counted from 1, the oldest."""
    digest = hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()
    return f"{Prefix.AMALGAMATION}-{FIRST_MILLISECOND + number:012x}7{digest[:3]}8{digest[3:18]}"


def submitters(backend: Backend, count: int) -> list[dict[str, Any]]:
    """So many owners, each with a key and a body of `POST /amalgamations` that is accepted."""
    made = []
    for number in range(count):
        owner = f"{SUBMITTER}{number}"
        teachers = [
            add_model(backend, labels, weights=f"{owner}{labels}", owner=owner)
            for labels in (("refund", "invoice"), ("late", "lost", "refund"))
        ]
        body = {"teachers": teachers, "corpus": add_corpus(backend, owner=owner), "metadata": {"team": "a"}}
        _, key = keys.create(backend.database, owner, [Scope.READ, Scope.WRITE])
        made.append({"key": key, "body": body})
    return made


def submitted(backend: Backend) -> tuple[set[str], dict[str, str], set[str]]:
    """What there is of the submitters: ids of jobs, the job kept for each idempotency key, and ids sent."""
    with backend.database.read() as session:
        rows = set(session.scalars(select(Amalgamation.id).where(Amalgamation.owner.startswith(SUBMITTER))))
        kept = dict(session.execute(select(IdempotencyKey.key, IdempotencyKey.resource_id)).all())
    with redis.Redis.from_url(str(backend.settings.broker_url)) as broker:
        messages: Any = broker.lrange(QUEUE, 0, -1)
    return rows, kept, {_job_of(message) for message in messages}


def _job_of(message: bytes) -> str:
    """The one argument of the task in a message of Celery."""
    (arguments, *_) = json.loads(b64decode(json.loads(message)["body"]))
    return str(arguments[0])


def forget(backend: Backend) -> None:
    """Remove the submitters' jobs, so that the next round begins as this one did."""
    with backend.database.write() as session:
        session.execute(delete(IdempotencyKey))
        session.execute(delete(Amalgamation).where(Amalgamation.owner.startswith(SUBMITTER)))
    with redis.Redis.from_url(str(backend.settings.broker_url)) as broker:
        broker.delete(QUEUE)


def tell(backend: Backend, jobs: Sequence[str]) -> float:
    """An event named `bench` for each of the jobs; answers when they were committed."""
    with backend.database.write() as session:
        for job in jobs:
            amalgamations.tell(session, job, 1, kind="bench", message="listen")
    return time.time()


def large_student(backend: Backend, size_bytes: int) -> tuple[str, Path, str]:
    """A student with one large file of random bytes: its id, the file, and its sha256."""
    student_id = add_student(backend, {"model.safetensors": b"x"}, owner=OWNER)
    path = backend.store.local_path(f"students/{student_id}/attempt-1/model.safetensors")
    digest, block = hashlib.sha256(), os.urandom(1 << 24)
    with path.open("wb") as file:
        for number in range(size_bytes >> 24):
            part = number.to_bytes(8) + block[8:]
            digest.update(part)
            file.write(part)
    row = {"path": "model.safetensors", "size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    with backend.database.write() as session:
        session.get_one(Student, student_id).files = [row]
    return student_id, path, digest.hexdigest()
