"""What crashes leave and what has had its time is removed; what anybody needs stays. On both engines."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.domain.identifiers import Prefix, new_id, student_of
from app.domain.status import Status
from app.persistence import amalgamations, owned
from app.persistence.tables import Amalgamation, Corpus, IdempotencyKey, Student
from app.persistence.time import now
from app.services import corpora, jobs
from app.services.backend import Backend
from app.services.caretaker import Sweeper, caretaking
from app.services.leftovers import KEYS, find_all
from app.services.sweeper import sweep
from app.settings import Settings
from app.storage import ArtifactStore, StoreError
from tests.jobs import OWNER, add_corpus, add_job
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Everything that is left over is old enough."""
    return settings.model_copy(update={"sweep_age_seconds": 0})


def _patient(backend: Backend) -> Backend:
    return replace(backend, settings=backend.settings.model_copy(update={"sweep_age_seconds": 3600}))


def _names(found: Any) -> set[str]:
    return {leftover.name for leftover in found}


def _put(store: ArtifactStore, prefix: str) -> str:
    with store.staging() as staged:
        folder = staged / "folder"
        folder.mkdir()
        (folder / "file").write_bytes(b"12345")
        store.put_folder(prefix, folder)
    return prefix


def _claim(backend: Backend, job_id: str) -> int:
    with backend.database.write() as session:
        job = amalgamations.claim(session, job_id, worker="w", lease_seconds=60)
    assert job is not None
    return job.attempt


def _end(backend: Backend, job_id: str, to: Status, *, days_ago: float = 0) -> None:
    source = (Status.QUEUED, Status.RUNNING)
    with backend.database.write() as session:
        job = amalgamations.change_status(session, job_id, to, "ended by the test", only_from=source)
        assert job is not None
        job.finished_at = (job.finished_at or job.created_at) - timedelta(days=days_ago)


def _publish(backend: Backend, job_id: str, prefix: str) -> None:
    row = {
        "size_bytes": 5,
        "files": [],
        "digest": "0" * 64,
        "architecture": "B",
        "labels": [],
        "parameters": 1,
    }
    with backend.database.write() as session:
        session.add(
            Student(id=student_of(job_id), owner=OWNER, amalgamation_id=job_id, storage_prefix=prefix, **row)
        )


def _expire(backend: Backend, corpus_id: str) -> None:
    with backend.database.write() as session:
        session.execute(update(Corpus).where(Corpus.id == corpus_id).values(expires_at=now(-1)))


def _environment(settings: Settings) -> dict[str, str]:
    own = {
        "MUKA_DATA_DIR": settings.data_dir,
        "MUKA_STORE_DIR": settings.store_dir,
        "MUKA_DATABASE_URL": settings.database_url,
        "MUKA_SWEEP_AGE_SECONDS": settings.sweep_age_seconds,
    }
    return dict(os.environ) | {name: str(value) for name, value in own.items()}


def _dies(backend: Backend, code: str) -> None:
    """A process of the service that is killed where the code says so."""
    prelude = """
import os, signal
from app.services import content, corpora
from app.services.backend import Backend
from app.settings import get_settings
backend = Backend.from_settings(get_settings())
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", prelude + code]
    died = subprocess.run(command, cwd=ROOT, env=_environment(backend.settings), check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL


DIES_IN_AN_UPLOAD = """
with backend.store.staging() as folder:
    (folder / "upload").write_bytes(b"half of it")
    die()
"""
DIES_BEFORE_ITS_COMMIT = """
content.insert = die
corpora.create_from_texts(backend, "default", ["one", "two"])
"""


def _cli(backend: Backend, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "app.cli", "sweep", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=_environment(backend.settings), stdout=subprocess.PIPE, text=True
    )


class TestCrashes:
    def test_an_upload_that_was_cut_off_is_removed_when_it_is_old(self, backend: Backend) -> None:
        _dies(backend, DIES_IN_AN_UPLOAD)
        [name] = backend.store.unfinished()
        assert _names(sweep(_patient(backend))) == set()
        [found] = sweep(backend)
        assert (found.name, found.size_bytes) == (name, len(b"half of it"))
        assert list(backend.store.unfinished()) == []

    def test_a_corpus_stored_but_not_committed_is_removed_when_it_is_old(self, backend: Backend) -> None:
        kept = add_corpus(backend.database, backend.store, ["a"])
        _dies(backend, DIES_BEFORE_ITS_COMMIT)
        assert len(list(backend.store.children("corpora"))) == 2
        assert _names(sweep(_patient(backend))) == set()
        found = _names(sweep(backend))
        assert len(found & {name for name in found if name.startswith("corpora/cor-")}) == 1
        assert list(backend.store.list("corpora")) == [f"corpora/{kept}.parquet"]
        assert list(sweep(backend)) == []

    def test_a_model_without_a_row_is_removed(self, backend: Backend) -> None:
        add_job(backend.database)
        prefix = _put(backend.store, f"models/{new_id(Prefix.MODEL)}")
        assert list(sweep(_patient(backend))) == []
        assert _names(sweep(backend)) == {prefix}
        assert not backend.store.exists(prefix)

    def test_a_dead_attempt_s_student_goes_and_the_published_one_stays(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        published, dead = (
            _put(backend.store, f"students/{student_of(job_id)}/attempt-{number}") for number in (2, 1)
        )
        _publish(backend, job_id, published)
        _end(backend, job_id, Status.CANCELLED)
        assert _names(sweep(backend)) == {dead}
        assert list(backend.store.children(f"students/{student_of(job_id)}")) == [published]

    def test_the_published_student_of_a_deleted_job_stays(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        published = _put(backend.store, f"students/{student_of(job_id)}/attempt-1")
        _publish(backend, job_id, published)
        _end(backend, job_id, Status.CANCELLED)
        jobs.delete(backend, OWNER, job_id)
        assert list(sweep(backend)) == []

    @pytest.mark.parametrize("is_deleted", [False, True])
    def test_a_job_that_made_no_student_leaves_no_folder(self, backend: Backend, is_deleted: bool) -> None:
        job_id, _ = add_job(backend.database), add_job(backend.database)
        _put(backend.store, f"students/{student_of(job_id)}/attempt-1")
        _end(backend, job_id, Status.FAILED if not is_deleted else Status.CANCELLED)
        if is_deleted:
            jobs.delete(backend, OWNER, job_id)
        assert _names(sweep(backend)) == {f"students/{student_of(job_id)}"}
        assert list(backend.store.children("students")) == []

    def test_a_file_that_cannot_be_removed_keeps_no_other(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_job(backend.database)
        bad, good = sorted(_put(backend.store, f"models/{new_id(Prefix.MODEL)}") for _ in range(2))
        delete = backend.store.delete
        monkeypatch.setattr(backend.store, "delete", lambda key: _refuse() if key == bad else delete(key))
        with pytest.raises(StoreError, match="read-only"):
            list(sweep(backend))
        assert [backend.store.exists(key) for key in (bad, good)] == [True, False]

    def test_files_of_a_database_that_knows_nothing_are_left_alone(self, backend: Backend) -> None:
        for prefix in ("models/mdl-1", "students/stu-1/attempt-1", "jobs/amg-1/attempt-1"):
            _put(backend.store, prefix)
        assert list(sweep(backend)) == []


def _refuse() -> None:
    raise StoreError("the artifact store is read-only")


class TestLiveJobs:
    def test_what_a_job_goes_on_from_stays(self, backend: Backend) -> None:
        corpus_id = add_corpus(backend.database, backend.store, ["a"])
        job_id = add_job(backend.database, corpus_id=corpus_id)
        _expire(backend, corpus_id)
        student = student_of(job_id)
        attempts = []
        for _ in range(2):
            attempts.append(_claim(backend, job_id))
            with backend.database.write() as session:
                if len(attempts) == 1:
                    amalgamations.change_status(
                        session, job_id, Status.QUEUED, "lost", only_from=(Status.RUNNING,)
                    )
        checkpoints = [_put(backend.store, f"jobs/{job_id}/attempt-{n}/checkpoints/7") for n in attempts]
        students = [_put(backend.store, f"students/{student}/attempt-{n}") for n in attempts]
        assert _names(sweep(backend)) == {students[0]}, "the first attempt can publish nothing any more"
        assert all(backend.store.exists(key) for key in (*checkpoints, students[1]))
        assert corpora.get(backend, OWNER, corpus_id).id == corpus_id
        _end(backend, job_id, Status.SUCCEEDED)
        assert _names(sweep(backend)) == {corpus_id, f"jobs/{job_id}", f"students/{student}"}

    @pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
    def test_working_files_are_kept_for_a_week_unless_the_job_succeeded(
        self, backend: Backend, status: Status
    ) -> None:
        fresh, old, done = (add_job(backend.database) for _ in range(3))
        for job_id in (fresh, old, done):
            _claim(backend, job_id)
            _put(backend.store, f"jobs/{job_id}/attempt-1/checkpoints/7")
        _end(backend, fresh, status, days_ago=6.9)
        _end(backend, old, status, days_ago=7.1)
        _end(backend, done, Status.SUCCEEDED)
        assert _names(sweep(backend)) == {f"jobs/{old}", f"jobs/{done}"}
        assert backend.store.exists(f"jobs/{fresh}")

    def test_the_table_of_a_job_without_a_student_stays_until_the_job_is_deleted(
        self, backend: Backend
    ) -> None:
        job_id, _ = add_job(backend.database), add_job(backend.database)
        dead, kept = (_put(backend.store, f"jobs/{job_id}/attempt-{n}") for n in (1, 2))
        _claim(backend, job_id)
        with backend.database.write() as session:
            session.get_one(Amalgamation, job_id).text_table = f"{kept}/file"
        assert list(sweep(backend)) == [], "the job has not ended"
        _end(backend, job_id, Status.SUCCEEDED, days_ago=1000)
        assert _names(sweep(backend)) == {dead}
        assert list(backend.store.list(f"jobs/{job_id}")) == [f"{kept}/file"]
        jobs.delete(backend, OWNER, job_id)
        assert not backend.store.exists(f"jobs/{job_id}")
        assert list(sweep(backend)) == []

    def test_a_corpus_that_a_job_takes_at_this_moment_stays(self, backend: Backend) -> None:
        corpus_id = add_corpus(backend.database, backend.store, ["a"])
        _expire(backend, corpus_id)
        with ThreadPoolExecutor(1) as threads:
            with backend.database.write() as session:
                assert owned.hold_all(session, {(OWNER, corpus_id)})
                swept = threads.submit(lambda: list(sweep(backend)))
                time.sleep(0.5)
                assert not swept.done(), "it waits for the submission"
                template = Amalgamation(
                    id=new_id(Prefix.AMALGAMATION), owner=OWNER, recipe={}, user_metadata={},
                    resolved={"corpus_id": corpus_id, "teachers": [], "student": {}},
                )  # fmt: skip
                amalgamations.add_all(session, [template])
            assert swept.result(30) == []
        assert backend.store.exists(f"corpora/{corpus_id}.parquet")


class TestExpiry:
    def test_an_expired_corpus_goes_with_its_file(self, backend: Backend) -> None:
        expired, kept = (add_corpus(backend.database, backend.store, ["a"]) for _ in range(2))
        _expire(backend, expired)
        [found] = sweep(backend)
        assert found.name == expired
        assert found.size_bytes > 0
        assert list(backend.store.list("corpora")) == [f"corpora/{kept}.parquet"]

    def test_answers_to_repeated_posts_are_forgotten_after_a_day(self, backend: Backend) -> None:
        with backend.database.write() as session:
            for key, hours in (("fresh", 23), ("old", 25)):
                row = IdempotencyKey(
                    api_key_id=OWNER, key=key, route="/", fingerprint="0", resource_id="x", response={}
                )
                row.created_at = now(-hours * 3600)  # type: ignore[assignment]
                session.add(row)
        assert _names(sweep(backend)) == {KEYS}
        with backend.database.read() as session:
            assert list(session.scalars(select(IdempotencyKey.key))) == ["fresh"]


class TestManySweepers:
    @pytest.fixture
    def leftovers(self, backend: Backend) -> set[str]:
        """One of each kind, many times."""
        alive = add_job(backend.database)
        _claim(backend, alive)
        _put(backend.store, f"students/{student_of(alive)}/attempt-1")
        expired = [add_corpus(backend.database, backend.store, ["a"]) for _ in range(5)]
        for corpus_id in expired:
            _expire(backend, corpus_id)
        orphans = [_put(backend.store, f"models/{new_id(Prefix.MODEL)}") for _ in range(5)]
        gone = [_put(backend.store, f"jobs/{new_id(Prefix.AMALGAMATION)}") for _ in range(5)]
        _dies(backend, DIES_IN_AN_UPLOAD)
        return {*expired, *orphans, *gone, *backend.store.unfinished()}

    def _check(self, backend: Backend) -> None:
        assert list(find_all(backend)) == []
        assert list(backend.store.list("models")) == list(backend.store.list("corpora")) == []
        assert len(list(backend.store.list("students"))) == 1, "the live attempt's"

    def test_at_once_they_remove_everything_once(self, backend: Backend, leftovers: set[str]) -> None:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: _names(sweep(backend)), range(4)))
        assert set().union(*found) >= leftovers
        self._check(backend)

    def test_several_processes_from_the_command_line(self, backend: Backend, leftovers: set[str]) -> None:
        looked = _cli(backend, "--dry-run").communicate(timeout=60)[0]
        assert all(name in looked for name in leftovers)
        assert f"{len(leftovers)} would be removed" in looked
        assert _names(find_all(backend)) == leftovers
        racers = [_cli(backend) for _ in range(3)]
        said = [racer.communicate(timeout=60)[0] for racer in racers]
        assert [racer.returncode for racer in racers] == [0, 0, 0]
        assert all(any(name in text for text in said) for name in leftovers)
        self._check(backend)


class TestThread:
    def test_the_service_sweeps_on_its_own(self, backend: Backend) -> None:
        add_job(backend.database)
        prefix = _put(backend.store, f"models/{new_id(Prefix.MODEL)}")
        with caretaking(backend):
            wait_until(lambda: not backend.store.exists(prefix), "it is swept")

    def test_it_stops_in_the_middle_when_it_is_told_to(self, backend: Backend) -> None:
        add_job(backend.database)
        for _ in range(3):
            _put(backend.store, f"models/{new_id(Prefix.MODEL)}")
        sweeper = Sweeper(backend)
        sweeper._stop.set()
        sweeper._sweep(backend)
        assert len(list(backend.store.children("models"))) == 2
