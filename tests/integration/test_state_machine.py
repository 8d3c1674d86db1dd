"""The real engine held to a model of it: random actions, clock jumps, two actors at once, on both databases.

Every step may come from an attempt that lost its job long ago. After every step the rows must show what the
model shows, and must keep the promises of the engine by themselves; at the end every job must come to an end.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise, permutations, product
from typing import Any

import pytest
import redis
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, func, select

from app.domain.errors import ConflictError, NotFoundError
from app.domain.identifiers import student_of
from app.domain.status import ALLOWED_TRANSITIONS, TERMINAL, Status
from app.persistence import amalgamations, checkpoints
from app.persistence.tables import Amalgamation, Event, Student
from app.persistence.time import now
from app.services import jobs as job_service
from app.services.backend import Backend
from app.services.caretaker import dispatch, reap
from app.services.resuming import resume
from app.storage import StoreError
from app.task_queue import QUEUE
from tests import job_model as model
from tests.job_model import LEASE_SECONDS, Action, Answer, Do
from tests.jobs import OWNER, add_corpus, add_job, events_of
from worker import outcome, publishing
from worker.lease import (
    Lease,
    LeaseLostError,
    StopReason,
    claim,
    record_loss,
    record_loss_of,
)

JOBS = 2
WORKERS = ("w0", "w1")
STUDENT_ROW: dict[str, Any] = {
    "storage_prefix": "students/none",
    "size_bytes": 0,
    "files": [],
    "digest": "0" * 64,
    "architecture": "BertForSequenceClassification",
    "labels": ["a"],
    "parameters": 1,
}

# Drawn from the same ranges in every state, so that a race which went otherwise changes no later draw.
SLOT = st.integers(0, JOBS - 1)
NUMBER = st.tuples(st.integers(0, 2), st.integers(0, 59)).map(lambda pair: pair[0] + 3 * pair[1])
ACTOR = st.tuples(NUMBER, st.sampled_from((0, 0, 0, 1, 2)), st.sampled_from(WORKERS))


class Actors:
    """The model's actions, carried out by the functions that API, caretaker and workers use."""

    def __init__(self, backend: Backend, job_ids: list[str]) -> None:
        self._backend = backend
        self._database = backend.database
        self._job_ids = job_ids
        self._deeds: dict[Do, Callable[[str, Action], Answer]] = {
            Do.CLAIM: lambda job_id, act: claim(
                self._database, job_id, worker=act.worker, lease_seconds=LEASE_SECONDS
            ),
            Do.BEAT: self._holding(lambda lease: lease.write(lambda session: lease._set(session, {}))),
            Do.TELL: self._holding(lambda lease: lease.tell("stage", "training", stage="training")),
            Do.SAVE: self._holding(self._save),
            Do.PUBLISH: self._holding(self._publish),
            Do.FAIL: self._holding(lambda lease: outcome.failed(lease, StoreError("the disk is full"))),
            Do.STOP_CANCELLED: self._holding(self._stopping(StopReason.CANCELLED)),
            Do.STOP_TIMEOUT: self._holding(self._stopping(StopReason.TIMEOUT)),
            Do.GIVE_BACK: self._holding(self._stopping(StopReason.WARM_STOP)),
            Do.LOSE: lambda job_id, act: record_loss(
                self._database, job_id, act.attempt, "it died", max_attempts=model.MAX_ATTEMPTS
            ),
            Do.LOSE_BY_NAME: lambda job_id, act: record_loss_of(
                self._database, job_id, worker=act.worker, max_attempts=model.MAX_ATTEMPTS
            ),
            Do.END_LEASES: lambda _, act: self._end_leases(act.worker),
            Do.CANCEL: lambda job_id, _: job_service.cancel(backend, OWNER, job_id).row.status,
            Do.CANCEL_KEEPING: lambda job_id, _: (
                job_service.cancel(backend, OWNER, job_id, keep_best=True).row.status
            ),
            Do.RESUME: lambda job_id, _: self._resume(job_id),
            Do.DELETE: lambda job_id, _: job_service.delete(backend, OWNER, job_id),
            Do.REAP: lambda *_: (reap(backend), None)[1],
            Do.DISPATCH: lambda *_: (dispatch(backend), None)[1],
        }

    def perform(self, action: Action) -> Answer:
        """The action, for real; answers as the model does."""
        try:
            return self._deeds[action.do](self._job_ids[action.job], action)
        except LeaseLostError:
            return model.LOST
        except NotFoundError:
            return "missing"
        except ConflictError:
            return "refused"

    def _holding(self, deed: Callable[[Lease], object]) -> Callable[[str, Action], Answer]:
        def perform(job_id: str, action: Action) -> Answer:
            deed(
                Lease(
                    self._database,
                    job_id,
                    action.attempt,
                    lease_seconds=LEASE_SECONDS,
                    heartbeat_seconds=LEASE_SECONDS / 2,
                )
            )
            return None

        return perform

    def _save(self, lease: Lease) -> None:
        place = {"step": lease.attempt, "total_steps": 99, "epoch": 0.1, "loss": 1.0}
        row = STUDENT_ROW | place | {"attempt": lease.attempt}
        lease.tell("checkpoint", "saved", also=lambda session: checkpoints.add(session, lease.job_id, row))

    def _publish(self, lease: Lease) -> None:
        row = STUDENT_ROW | {"storage_prefix": f"students/attempt-{lease.attempt}"}
        student_id = student_of(lease.job_id)
        lease.write(lambda session: publishing._insert(session, lease, student_id, row, {"report": {}}))

    def _stopping(self, reason: StopReason) -> Callable[[Lease], None]:
        def stop(lease: Lease) -> None:
            lease.stop(reason)
            outcome.stopped(lease)

        return stop

    def _resume(self, job_id: str) -> str:
        """Until its message is sent, too: the thread that sends does one thing after the other."""
        status = resume(self._backend, OWNER, job_id).row.status
        self._backend.sender._thread.submit(int).result()
        return status

    def _end_leases(self, worker: str) -> None:
        with self._database.write() as session:
            amalgamations.end_leases_of(session, worker)


class Engine(RuleBasedStateMachine):
    """A few jobs, and everybody who may lay hands on them."""

    def __init__(self, backend: Backend, broker: redis.Redis) -> None:
        super().__init__()
        self.backend = backend
        self.broker = broker
        broker.delete(QUEUE)
        with backend.database.write() as session:
            session.execute(delete(Amalgamation))
            session.execute(delete(Student))
        self.corpus_id = add_corpus(backend.database, backend.store, ["a text"])
        self.job_ids = [add_job(backend.database, corpus_id=self.corpus_id) for _ in range(JOBS)]
        self.jobs: model.Jobs = tuple(model.Job() for _ in range(JOBS))
        self.actors = Actors(backend, self.job_ids)
        self.ended: dict[tuple[str, int], dict[str, Any]] = {}
        """Every end of every job; a job that is resumed may have several."""

    # --- What happens ---

    @rule(slot=SLOT, actor=ACTOR)
    def one_acts(self, slot: int, actor: tuple[int, int, str]) -> None:
        self.perform(self._action(slot, *actor))

    @rule(slot=SLOT, first=ACTOR, second=ACTOR)
    def two_act_at_once(self, slot: int, first: tuple[int, int, str], second: tuple[int, int, str]) -> None:
        """Whatever comes of it, it must be as if one had come after the other."""
        actions = self._action(slot, *first), self._action(slot, *second)
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(self.actors.perform, actions))
        found = [self._row(number) for number in range(JOBS)]
        for order in permutations((0, 1)):
            jobs, expected = self.jobs, dict[int, Answer]()
            for number in order:
                jobs, expected[number] = model.perform(jobs, actions[number])
            if [job.seen() for job in jobs] == found and [expected[0], expected[1]] == answers:
                self.jobs = jobs
                return
        pytest.fail(f"{actions} answered {answers} and left {found}, from {self.jobs}")

    @rule(seconds=st.sampled_from(model.JUMPS))
    def time_passes(self, seconds: int) -> None:
        self.jobs = tuple(job.later(seconds) for job in self.jobs)
        past = timedelta(seconds=seconds)
        with self.backend.database.write() as session:
            live = select(Amalgamation).where(Amalgamation.status.not_in(TERMINAL))
            for row in session.scalars(live.with_for_update()):
                row.lease_until = row.lease_until and row.lease_until - past
                row.dispatched_at = row.dispatched_at and row.dispatched_at - past

    def perform(self, action: Action) -> None:
        """In the model and for real: both must answer the same."""
        self.jobs, expected = model.perform(self.jobs, action)
        assert self.actors.perform(action) == expected, action

    def submit(self, slot: int) -> None:
        """In the place of a job that has ended, which is still looked at."""
        self.job_ids[slot] = add_job(self.backend.database, corpus_id=self.corpus_id)
        self.jobs = (*self.jobs[:slot], model.Job(), *self.jobs[slot + 1 :])

    def _action(self, slot: int, number: int, attempts_ago: int, worker: str) -> Action:
        if not self.jobs[slot].is_live and number % 4:
            self.submit(slot)
        job = self.jobs[slot]
        return Action(model.choose(job, number), slot, max(0, job.attempt - attempts_ago), worker)

    # --- What must hold ---

    @invariant()
    def the_rows_show_what_the_model_shows(self) -> None:
        for number, job in enumerate(self.jobs):
            assert self._row(number) == job.seen()

    @invariant()
    def only_the_newest_attempt_of_a_held_job_can_write(self) -> None:
        with self.backend.database.write() as session:
            for job_id, job in zip(self.job_ids, self.jobs, strict=True):
                values = {"heartbeat_at": now()}
                attempts = range(job.attempt + 2)
                able = [n for n in attempts if amalgamations.write_fenced(session, job_id, n, values)]
                assert able == ([job.attempt] if job.status in model.LEASED else [])
            session.rollback()

    @invariant()
    def an_end_is_complete_and_for_good_unless_it_is_resumed(self) -> None:
        for row in self._rows():
            assert (row.status in TERMINAL) == (row.finished_at is not None)
            assert (row.status == Status.FAILED) == (row.failure is not None)
            assert row.student_id is not None or row.status != Status.SUCCEEDED
            assert row.student_id is None or row.status == Status.SUCCEEDED or row.keep_best
            assert (row.status in model.LEASED) == (row.lease_until is not None)
            assert row.losses <= min(row.attempt, model.MAX_ATTEMPTS)
            if row.status in TERMINAL:
                now_seen = {column.key: getattr(row, column.key) for column in Amalgamation.__table__.columns}
                now_seen.pop("metadata", None)
                assert self.ended.setdefault((row.id, len(row.transitions)), now_seen) == now_seen

    @invariant()
    def the_event_log_is_gapless_and_tells_only_allowed_transitions(self) -> None:
        for row in self._rows():
            events = events_of(self.backend.database, row.id)
            assert [event.sequence for event in events] == list(range(1, row.events + 1))
            told = [
                (event.data["status"], event.data["attempt"]) for event in events if event.type == "status"
            ]
            assert told == [(step["status"], step["attempt"]) for step in row.transitions]
            assert told[0][0] == Status.QUEUED
            assert told[-1][0] == row.status
            for (before, _), (after, _) in pairwise(told):
                assert Status(after) in ALLOWED_TRANSITIONS[Status(before)]

    def teardown(self) -> None:
        """Whatever happened, and if every worker dies from now on: each job is sent, claimed and ended."""
        for _ in range(model.MAX_ATTEMPTS + 1):
            self.time_passes(970)
            reap(self.backend)
            dispatch(self.backend)
            sent = [str(message) for message in self.broker.lrange(QUEUE, 0, -1)]  # type: ignore[union-attr]
            for row in [row for row in self._rows() if row.status == Status.QUEUED]:
                assert any(row.id in message for message in sent)
                assert claim(self.backend.database, row.id, worker="w", lease_seconds=LEASE_SECONDS)
        assert {row.status for row in self._rows()} <= TERMINAL
        with self.backend.database.read() as session:
            made = {seen["student_id"] for seen in self.ended.values()} - {None}
            named = {row.student_id for row in self._rows()} - {None}
            there = set(session.scalars(select(Student.id)))
            assert made <= there
            # One made and its job deleted in the same instant was seen by nobody.
            assert there & {student_of(row.id) for row in self._rows()} == named
            orphans = select(func.count()).where(Event.amalgamation_id.not_in(select(Amalgamation.id)))
            assert session.scalar(orphans) == 0

    # --- Looking ---

    def _rows(self) -> list[Amalgamation]:
        with self.backend.database.read() as session:
            return list(session.scalars(select(Amalgamation).order_by(Amalgamation.id)))

    def _row(self, number: int) -> tuple[object, ...]:
        """As the model sees it, by the database's clock."""
        again = self.backend.settings.dispatch_again_seconds
        with self.backend.database.read() as session:
            row = amalgamations.find(session, self.job_ids[number])
            if row is None:
                return (None,)
            over = any(row.id == silent[0] for silent in amalgamations.expired_leases(session))
            waits = row.id in amalgamations.undispatched(session, again)
        held = row.lease_owner, over, waits
        return row.status, row.attempt, row.losses, *held, row.events, row.student_id is not None


HISTORIES = (
    (),
    (Do.CLAIM,),
    (Do.CLAIM, Do.END_LEASES),
    (Do.CLAIM, Do.LOSE, Do.CLAIM, Do.LOSE, Do.CLAIM),
    (Do.CLAIM, Do.CANCEL),
    (Do.CLAIM, Do.CANCEL, Do.END_LEASES),
    (Do.CLAIM, Do.PUBLISH),
    (Do.CLAIM, Do.FAIL),
    (Do.CANCEL,),
    (Do.CANCEL, Do.DELETE),
    (Do.CLAIM, Do.SAVE, Do.CANCEL_KEEPING),
    (Do.CLAIM, Do.SAVE, Do.CANCEL_KEEPING, Do.STOP_CANCELLED),
    (Do.CLAIM, Do.SAVE, Do.GIVE_BACK),
    (Do.CLAIM, Do.FAIL, Do.RESUME),
    (Do.CLAIM, Do.SAVE, Do.CANCEL, Do.STOP_CANCELLED, Do.RESUME, Do.CLAIM),
)
"""One way into each state that an action may meet."""


class TestStateMachine:
    @pytest.fixture
    def settings(self, settings: Any) -> Any:
        slow = {"dispatch_again_seconds": model.SEND_AGAIN_SECONDS, "max_attempts": model.MAX_ATTEMPTS}
        return settings.model_copy(update=slow)

    @pytest.fixture
    def broker(self, redis_url: str) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(redis_url) as client:
            yield client

    def test_every_action_in_every_state_does_what_the_model_does(
        self, backend: Backend, broker: redis.Redis
    ) -> None:
        engine = Engine(backend, broker)
        for history, last in product(HISTORIES, Do):
            engine.submit(0)
            for do in (*history, last):
                engine.perform(Action(do, 0, engine.jobs[0].attempt, "w0"))
            engine.the_rows_show_what_the_model_shows()
            engine.only_the_newest_attempt_of_a_held_job_can_write()
        engine.an_end_is_complete_and_for_good_unless_it_is_resumed()
        engine.the_event_log_is_gapless_and_tells_only_allowed_transitions()

    def test_no_interleaving_breaks_a_promise(self, backend: Backend, broker: redis.Redis) -> None:
        examples = 12 if backend.database.url.startswith("sqlite") else 5
        # A race does not repeat itself, so that shrinking and replaying would mislead, and take minutes.
        once = hypothesis_settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=[Phase.generate],
        )
        run_state_machine_as_test(lambda: Engine(backend, broker), settings=once)
