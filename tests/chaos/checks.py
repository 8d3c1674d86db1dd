"""What must be true of an installation after anything that may happen to it."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import psycopg
import redis
from sqlalchemy import select

from app.domain.status import ALLOWED_TRANSITIONS, TERMINAL, Stage, Status
from app.persistence.tables import Amalgamation, Corpus, Event, Model, StoredOutput, Student
from app.services.backend import Backend
from app.services.leftovers import find_all
from app.services.sweeper import sweep
from app.settings import Settings
from app.task_queue import QUEUE, TaskQueue
from tests.chaos.installation import LEASE_SECONDS, Installation
from tests.jobs import events_of
from tests.servers import wait_until

_STAGES = list(Stage)


def check_world(world: Installation, expected: Mapping[str, Status], *, resumed: Sequence[str] = ()) -> None:
    """Every job ended once, as expected; logs are whole; the sweeper leaves no orphan; students are right.

    Args:
        world: in which nothing runs any more, but for what is about to end.
        expected: how each job has ended.
        resumed: jobs that their owner took up again, as often as they stand here: they end once more each.
    """
    with world.database.read() as session:
        jobs = {job.id: job for job in session.scalars(select(Amalgamation))}
        students = {student.amalgamation_id: student for student in session.scalars(select(Student))}
    for job_id, status in expected.items():
        check_story(jobs[job_id], events_of(world.database, job_id), ends=1 + resumed.count(job_id))
        assert jobs[job_id].status == status, jobs[job_id].failure
        assert (job_id in students) == (status == Status.SUCCEEDED)
        if status == Status.SUCCEEDED:
            assert jobs[job_id].student_id == students[job_id].id
            assert world.weights(job_id) == world.undisturbed
    assert {job.id for job in jobs.values() if job.status not in TERMINAL} == set()
    _check_idle(world)
    _sweep(world)
    _check_files(world)


def check_story(job: Amalgamation, log: Sequence[Event], *, ends: int = 1) -> None:
    """The event log has no gap, tells the transitions of the row, and stages in their order per attempt."""
    assert [event.sequence for event in log] == list(range(1, job.events + 1))
    statuses = [Status(event.data["status"]) for event in log if event.type == "status"]
    assert statuses == [transition["status"] for transition in job.transitions]
    assert statuses[0] == Status.QUEUED
    for before, after in pairwise(statuses):
        assert after in ALLOWED_TRANSITIONS[before], statuses
    assert sum(status in TERMINAL for status in statuses) == ends, statuses
    assert (log[-1].type, log[-1].data["status"]) == ("status", job.status)
    attempts = [event.data["attempt"] for event in log if event.data.get("status") == Status.RUNNING]
    assert attempts == list(range(1, job.attempt + 1))
    for _, events in _attempts(log):
        _check_attempt(events)


def _attempts(log: Sequence[Event]) -> list[tuple[int, list[Event]]]:
    """Number and events of each attempt; what is told of a queued or an ended job is of none."""
    found: list[tuple[int, list[Event]]] = []
    is_running = False
    for event in log:
        if event.type == "status" and event.data["status"] != Status.CANCELLING:
            is_running = event.data["status"] == Status.RUNNING
            if is_running:
                found.append((event.data["attempt"], []))
            continue
        if event.type == "status":
            continue
        assert is_running, f"{event.message!r} is told while no attempt has the job"
        found[-1][1].append(event)
    return found


def _check_attempt(events: Sequence[Event]) -> None:
    stages = [_STAGES.index(event.data["stage"]) for event in events if event.type == "stage"]
    assert stages == list(range(len(stages))), stages
    steps = [event.data["step"] for event in events if event.type == "metric"]
    assert steps == sorted(set(steps))


def _check_idle(world: Installation) -> None:
    """No attempt runs, no message waits, and nobody holds a transaction open."""
    patience = 2 * LEASE_SECONDS
    wait_until(lambda: not any(each.attempt for each in world.workers), "all attempts end", seconds=patience)
    with redis.Redis.from_url(world.redis.url) as broker:
        waiting = (QUEUE, "unacked", "unacked_index")
        wait_until(lambda: not broker.exists(*waiting), "every message is taken", seconds=patience)
    query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    with psycopg.connect(world.database.url, autocommit=True) as connection:

        def nobody() -> bool:
            row = connection.execute(query).fetchone()
            return row == (0,)

        wait_until(nobody, "no transaction is left open", seconds=patience)


def _sweep(world: Installation) -> None:
    """Of everything: nothing is too young for it, for there is nobody at work."""
    settings = Settings(sweep_age_seconds=0, checkpoint_retention_days=0)
    queue = TaskQueue(world.redis.url)
    backend = Backend(settings=settings, database=world.database, store=world.store, queue=queue)
    list(sweep(backend))
    assert list(find_all(backend)) == []
    queue.close()


def _check_files(world: Installation) -> None:
    """The store has what rows name and nothing else, and that is whole."""
    store = world.store
    with world.database.read() as session:
        students = session.scalars(select(Student)).all()
        corpora = set(session.scalars(select(Corpus.storage_key)))
        models = set(session.scalars(select(Model.storage_prefix)))
        outputs = set(session.scalars(select(StoredOutput.key)))
    attempts = {attempt for folder in store.children("students") for attempt in store.children(folder)}
    assert attempts == {student.storage_prefix for student in students}
    for student in students:
        named = {f"{student.storage_prefix}/{entry['path']}": entry["sha256"] for entry in student.files}
        assert set(store.list(student.storage_prefix)) == set(named)
        for key, digest in named.items():
            with store.open(key) as file:
                assert hashlib.sha256(file.read()).hexdigest() == digest, key
    assert list(store.list("jobs")) == []
    assert list(store.unfinished()) == []
    assert set(store.children("corpora")) == corpora
    assert set(store.children("models")) == models
    assert set(store.children("scores")) <= outputs
    scratch = Path(world.environment["MUKA_SCRATCH_DIR"])
    assert not scratch.exists() or list(scratch.iterdir()) == []
