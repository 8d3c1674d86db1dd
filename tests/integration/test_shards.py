"""Shards of a job's scoring change hands by compare-and-set, whoever dies, and however late. Both engines."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, update

from app.domain.recipe import RECIPE_VERSION
from app.domain.shards import TOGETHER, ShardStatus, Unit
from app.domain.status import Status
from app.domain.stored_outputs import Computation
from app.persistence import amalgamations, shards, workers
from app.persistence.database import Database
from app.persistence.shards import Claim
from app.persistence.tables import Shard
from app.persistence.time import now
from app.services.backend import Backend
from app.services.caretaker import forget_shards, reap
from app.settings import Settings
from tests.jobs import add_job, messages_of
from tests.servers import wait_until
from worker.lease import Lease, LeaseLostError, StopReason
from worker.muka.errors import StoppedError
from worker.shard_lease import ShardLease
from worker.sharing import Sharing

HERE = Computation("float32", "cpu, torch 1")
UNITS = [Unit(teacher, shard) for teacher in range(2) for shard in range(3)]


@pytest.fixture
def job_id(database: Database) -> str:
    """Held by the worker `holder`, in its first attempt, with all units open."""
    job_id = add_job(database)
    with database.write() as session:
        assert amalgamations.claim(session, job_id, worker="holder", lease_seconds=60)
        assert shards.open_all(session, job_id, 1, UNITS, HERE)
    return job_id


def take(
    database: Database, job_id: str, worker: str = "helper", *, seconds: float = 60, by: Computation = HERE
) -> Claim | None:
    with database.write() as session:
        return shards.take(session, job_id, 1, by, worker=worker, lease_seconds=seconds)


def take_back(database: Database, job_id: str, attempt: int = 1) -> Claim | None:
    with database.write() as session:
        return shards.take_back(session, job_id, attempt, worker="holder")


def finish(database: Database, claim: Claim | None) -> bool:
    assert claim is not None
    with database.write() as session:
        return shards.finish(session, claim)


class TestTaking:
    def test_helpers_start_at_the_end_and_the_holder_at_the_beginning(
        self, database: Database, job_id: str
    ) -> None:
        order = []
        for _ in range(3):
            for claim in (take_back(database, job_id), take(database, job_id)):
                assert claim is not None
                order.append(claim.unit)
                assert finish(database, claim)
        assert order == [UNITS[0], UNITS[5], UNITS[1], UNITS[4], UNITS[2], UNITS[3]]
        assert take(database, job_id) is take_back(database, job_id) is None
        with database.read() as session:
            assert Counter(shards.done_by(session, job_id, 1).values()) == {"holder": 3, "helper": 3}

    def test_many_at_once_take_each_shard_once(self, database: Database, job_id: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            claims = list(pool.map(lambda n: take(database, job_id, f"helper {n}"), range(16)))
        taken = [claim.unit for claim in claims if claim is not None]
        assert sorted(taken) == UNITS

    def test_who_computes_other_numbers_gets_nothing(self, database: Database, job_id: str) -> None:
        assert take(database, job_id, by=Computation("bfloat16", HERE.software)) is None
        assert take(database, job_id, by=Computation(HERE.precision, "cuda, torch 1")) is None
        assert take(database, job_id) is not None

    def test_a_job_that_waits_goes_before_help(self, database: Database, job_id: str) -> None:
        waiting = add_job(database)
        assert take(database, job_id) is None
        with database.write() as session:
            assert shards.help_wanted(session, job_id) is None
            assert amalgamations.claim(session, waiting, worker="other", lease_seconds=60)
            assert shards.help_wanted(session, job_id) == 1
        assert take(database, job_id) is not None

    def test_a_job_that_only_newer_workers_can_take_keeps_nobody_from_helping(
        self, database: Database, job_id: str
    ) -> None:
        add_job(database, recipe_version=RECIPE_VERSION + 1)
        with database.write() as session:
            assert shards.help_wanted(session, job_id) == 1
        assert take(database, job_id) is not None

    def test_a_worker_with_a_shard_is_busy_with_that_job(self, database: Database, job_id: str) -> None:
        with database.write() as session:
            workers.show(session, "wrk-1", name="helper", host="h", pid=1, version="0.2")
        with database.read() as session:
            assert (workers.is_busy(session, "helper"), workers.count(session, 60)["idle"]) == (False, 1)
        claim = take(database, job_id)
        with database.read() as session:
            assert (workers.is_busy(session, "helper"), workers.count(session, 60)["busy"]) == (True, 1)
            assert workers.every(session)[0].job_id == job_id
        assert finish(database, claim)
        with database.read() as session:
            assert not workers.is_busy(session, "helper")


class TestLoss:
    def test_what_a_helper_lost_is_left_to_the_holder(self, database: Database, job_id: str) -> None:
        lost = take(database, job_id, seconds=-1)
        assert lost is not None
        others = [take(database, job_id) for _ in range(6)]
        assert [claim.unit for claim in others if claim] == UNITS[4::-1]
        mine = take_back(database, job_id)
        assert mine is not None
        assert mine.unit == lost.unit
        assert not finish(database, lost), "it comes too late"
        assert finish(database, mine)

    def test_a_parent_that_sees_its_helper_die_does_not_wait_for_the_lease(
        self, database: Database, job_id: str
    ) -> None:
        lost, other = take(database, job_id, "dead"), take(database, job_id, "alive")
        assert all(finish(database, take_back(database, job_id)) for _ in range(4))
        assert take_back(database, job_id) is None
        with database.write() as session:
            shards.lose(session, "dead")
            shards.lose(session, "holder")
        again = take_back(database, job_id)
        assert lost is not None
        assert again is not None
        assert again.unit == lost.unit
        assert all(finish(database, claim) for claim in (other, again))

    def test_what_the_holder_took_without_hearing_of_it_is_taken_again(
        self, database: Database, job_id: str
    ) -> None:
        """The connection broke when its transaction was to end: it asks once more."""
        unheard, heard = take_back(database, job_id), take_back(database, job_id)
        assert unheard is not None
        assert heard is not None
        assert (heard.unit, heard.claims) == (unheard.unit, 2)
        assert not finish(database, unheard)
        assert finish(database, heard)
        assert finish(database, heard), "likewise"
        with database.read() as session:
            assert shards.statuses(session, job_id, 1)[ShardStatus.DONE] == 1

    def test_who_stops_gives_its_shard_to_the_next(self, database: Database, job_id: str) -> None:
        claim = take(database, job_id)
        assert claim is not None
        with database.write() as session:
            assert shards.let_go(session, claim)
        assert not finish(database, claim)
        again = take(database, job_id, "next")
        assert again is not None
        assert (again.unit, again.claims) == (claim.unit, 2)

    def test_an_attempt_that_has_ended_shares_nothing(self, backend: Backend) -> None:
        database, job_id = backend.database, add_job(backend.database)
        with database.write() as session:
            assert amalgamations.claim(session, job_id, worker="holder", lease_seconds=-1)
            assert shards.open_all(session, job_id, 1, UNITS, HERE)
        claim = take(database, job_id)
        forget_shards(backend)
        assert claim is not None
        assert reap(backend) == 1
        assert take(database, job_id) is None
        with database.write() as session:
            assert amalgamations.claim(session, job_id, worker="new", lease_seconds=60)
            assert not shards.open_all(session, job_id, 1, UNITS, HERE), "of the dead attempt"
            assert shards.open_all(session, job_id, 2, UNITS[:1], HERE)
        assert not finish(database, claim)
        with database.read() as session:
            assert shards.statuses(session, job_id, 1) == dict.fromkeys(ShardStatus, 0)
            assert shards.statuses(session, job_id, 2)[ShardStatus.OPEN] == 1
        with database.write() as session:
            amalgamations.change_status(session, job_id, Status.FAILED, "x", only_from=(Status.RUNNING,))
        forget_shards(backend)
        with database.read() as session:
            assert shards.statuses(session, job_id, 2) == dict.fromkeys(ShardStatus, 0)


@pytest.fixture
def helper(database: Database, job_id: str) -> Iterator[ShardLease]:
    lease = ShardLease(database, job_id, 1, worker="helper", lease_seconds=2, heartbeat_seconds=0.05)
    with lease.kept():
        yield lease


class TestHelpersLease:
    def test_is_renewed_for_as_long_as_it_lives(
        self, helper: ShardLease, database: Database, job_id: str
    ) -> None:
        unit = helper.take(HERE)
        assert unit == UNITS[5]
        with database.write() as session:
            session.execute(update(Shard).where(Shard.shard == 2).values(lease_until=now(0.3)))

        def is_renewed() -> bool:
            with database.read() as session:
                shard = session.get(Shard, (job_id, *UNITS[5]))
                assert shard is not None
                return workers.is_busy(session, "helper") and str(shard.lease_until) > before

        with database.read() as session:
            before = str(session.get_one(Shard, (job_id, *UNITS[5])).lease_until)
        wait_until(is_renewed, "the heartbeat renews it")
        helper.finish()
        assert helper.take(HERE) == UNITS[4]
        assert not helper.should_stop()

    def test_nothing_is_written_for_a_shard_that_another_worker_has(
        self, helper: ShardLease, database: Database, job_id: str
    ) -> None:
        helper.take(HERE)
        with database.write() as session:
            shards.lose(session, "helper")
            taken = shards.take_back(session, job_id, 1, worker="holder")
            while taken is not None and taken.unit != UNITS[5]:
                assert shards.finish(session, taken)
                taken = shards.take_back(session, job_id, 1, worker="holder")
        with pytest.raises(LeaseLostError):
            helper.write(lambda _: True)
        assert helper.should_stop()

    @pytest.mark.parametrize("to", [Status.CANCELLING, Status.FAILED, Status.QUEUED])
    def test_a_job_that_ends_stops_it(
        self, helper: ShardLease, database: Database, job_id: str, to: Status
    ) -> None:
        helper.take(HERE)
        with database.write() as session:
            assert amalgamations.change_status(session, job_id, to, "x", only_from=(Status.RUNNING,))
        wait_until(helper.should_stop, "it sees that")
        reason = StopReason.CANCELLED if to == Status.CANCELLING else StopReason.LOST
        assert helper.stop_reason == reason


class TestSharing:
    """The holder's side; its helpers are threads that take shards and say that they are done."""

    @pytest.fixture
    def holder(self, database: Database) -> Lease:
        job_id = add_job(database)
        with database.write() as session:
            assert amalgamations.claim(session, job_id, worker="holder", lease_seconds=60)
        return Lease(database, job_id, 1, lease_seconds=60, heartbeat_seconds=0.1)

    def _sharing(self, settings: Settings, lease: Lease, least: int | None) -> Sharing:
        own = settings.model_copy(
            update={"share_shards": least, "share_seconds": 0, "lease_seconds": 60, "heartbeat_seconds": 0.1}
        )
        return Sharing(own, lease, HERE, lambda: None)

    def _show(self, database: Database) -> None:
        with database.write() as session:
            workers.show(session, "wrk-1", name="helper", host="h", pid=1, version="0.2")

    @pytest.mark.parametrize("least", [None, 7, 2])
    def test_alone_it_does_everything_in_order_and_writes_nothing(
        self, settings: Settings, database: Database, holder: Lease, least: int | None
    ) -> None:
        """Too little to share, or nobody who is idle."""
        if least != 2:
            self._show(database)
        before = messages_of(database, holder.job_id)
        sharing = self._sharing(settings, holder, least)
        for unit, expected in zip(sharing.share(UNITS, lambda _: None), UNITS, strict=True):
            assert unit == expected
            with database.read() as session:
                assert shards.computation_of(session, holder.job_id, 1) is None
        assert messages_of(database, holder.job_id) == before

    def test_it_is_shared_once_it_shows_that_it_takes_long(
        self, settings: Settings, database: Database, holder: Lease
    ) -> None:
        self._show(database)
        sharing = self._sharing(settings, holder, 2)
        sharing._settings = sharing._settings.model_copy(update={"share_seconds": 0.5})
        shared = []
        for _ in sharing.share(UNITS, lambda _: None):
            with database.read() as session:
                shared.append(shards.computation_of(session, holder.job_id, 1) is not None)
            time.sleep(0.15)  # five more take longer than half a second
        assert shared == [False, *[True] * 5]

    def test_what_a_helper_does_is_told_and_what_it_loses_is_taken_over(
        self, settings: Settings, database: Database, holder: Lease
    ) -> None:
        self._show(database)
        helped: list[Unit] = []
        mine = []
        for number, unit in enumerate(self._sharing(settings, holder, 2).share(UNITS, helped.append)):
            mine.append(unit)
            if number == 0:
                assert finish(database, take(database, holder.job_id))
            if number == 1:
                assert take(database, holder.job_id, seconds=-1) is not None
        assert (sorted(mine), helped) == (UNITS[:5], UNITS[5:])
        assert messages_of(database, holder.job_id)[-1] == "6 shards were computed by helper 1, holder 5"
        with database.read() as session:
            assert shards.computation_of(session, holder.job_id, 1) is None

    def test_a_helper_that_does_everything_is_told_as_well(
        self, settings: Settings, database: Database, holder: Lease, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._show(database)
        helped: list[Unit] = []
        sharing = self._sharing(settings, holder, 2)

        def do_everything(_: object) -> None:
            """When the holder calls, before it takes a shard itself."""
            while claim := take(database, holder.job_id):
                assert finish(database, claim)

        monkeypatch.setattr(sharing, "_call", do_everything)
        assert list(sharing.share(UNITS, helped.append)) == []
        assert helped == UNITS
        assert messages_of(database, holder.job_id)[-1] == "6 shards were computed by helper 6"

    def test_it_waits_for_the_last_helper(
        self, settings: Settings, database: Database, holder: Lease
    ) -> None:
        self._show(database)
        sharing = self._sharing(settings, holder, 2)
        helped: list[Unit] = []
        claims: list[Claim] = []

        def go_on() -> None:
            """Asked while the holder waits."""
            if claims:
                assert finish(database, claims.pop())

        sharing._go_on = go_on
        for _ in sharing.share([Unit(TOGETHER, 0), Unit(TOGETHER, 1)], helped.append):
            claim = take(database, holder.job_id)
            assert claim is not None
            claims.append(claim)
        assert (helped, claims) == ([Unit(TOGETHER, 1)], [])

    def test_what_was_forgotten_with_its_attempt_is_not_taken_for_done(
        self, settings: Settings, database: Database, holder: Lease
    ) -> None:
        self._show(database)
        sharing = self._sharing(settings, holder, 2)

        def settled() -> None:
            """Asked while it waits for what is not to come: its heartbeat has seen it."""
            raise StoppedError

        sharing._go_on = settled
        units = sharing.share(UNITS, lambda _: None)
        assert next(units) == UNITS[0]
        with database.write() as session:
            shards.close(session, holder.job_id, 1)
        with pytest.raises(LeaseLostError):
            next(units)
        waiting = self._sharing(settings, holder, 2)
        waiting._go_on = settled
        others = waiting.share(UNITS[:2], lambda _: None)
        assert next(others) == UNITS[0]
        assert take(database, holder.job_id) is not None
        with database.write() as session:
            session.execute(delete(Shard).where(Shard.status == ShardStatus.TAKEN, Shard.worker == "helper"))
        with pytest.raises(StoppedError):
            next(others)

    def test_a_stale_attempt_shares_nothing(
        self, settings: Settings, database: Database, holder: Lease
    ) -> None:
        self._show(database)
        with database.write() as session:
            amalgamations.change_status(
                session, holder.job_id, Status.QUEUED, "x", only_from=(Status.RUNNING,)
            )
        with pytest.raises(LeaseLostError):
            list(self._sharing(settings, holder, 2).share(UNITS, lambda _: None))
