"""The store's disk is full, and answers errors for half a minute."""

import time
from collections.abc import Iterator

import pytest

from app.domain.status import FailureCode, Stage, Status
from app.persistence.tables import Amalgamation
from tests.chaos.checks import check_world
from tests.chaos.disk import Disk, small_disk
from tests.chaos.gate import build_gates, held_in
from tests.chaos.installation import Installation, installation
from tests.jobs import events_of

ERRORS_SECONDS = 30


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with small_disk(tmp_path_factory.mktemp("disk") / "mounted") as mounted:
        yield mounted


@pytest.fixture(scope="module")
def on_disk(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation of its own, whose store is on the disk."""
    folder = tmp_path_factory.mktemp("on-disk")
    store, seen = disk.path / "store", disk.seen / "store"
    with installation(folder, workers=1, store=store, within=disk.enter, seen=seen) as made:
        build_gates(made.database.url)
        assert made.undisturbed
        yield made


@pytest.mark.parametrize("stage", [Stage.SCORING, Stage.TRAINING, Stage.PUBLISHING])
def test_a_full_disk_fails_the_job_and_no_other(on_disk: Installation, disk: Disk, stage: Stage) -> None:
    job_id = on_disk.submit()
    with held_in(on_disk.database, job_id, stage):
        disk.fill()
    try:
        _has_failed_for_storage(on_disk.ended(job_id))
        assert _warnings(on_disk, job_id) == []  # nobody waited
    finally:
        disk.empty()
    next_one = on_disk.submit()
    assert on_disk.ended(next_one).status == Status.SUCCEEDED
    on_disk.client.amalgamations.resume(job_id)
    assert on_disk.ended(job_id).status == Status.SUCCEEDED
    check_world(on_disk, dict.fromkeys([job_id, next_one], Status.SUCCEEDED), resumed=[job_id])


def test_errors_for_half_a_minute(on_disk: Installation, disk: Disk) -> None:
    running, queued = on_disk.submit(), on_disk.submit()
    with held_in(on_disk.database, running, Stage.TRAINING):
        disk.remount("ro")
    time.sleep(ERRORS_SECONDS)
    assert _warnings(on_disk, running)
    disk.remount("rw")
    for job_id in (running, queued):
        job = on_disk.ended(job_id)
        assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 1, 0), job.failure
    assert all("Read-only file system; tried again in" in each for each in _warnings(on_disk, running))
    check_world(on_disk, dict.fromkeys((running, queued), Status.SUCCEEDED))


def _has_failed_for_storage(job: Amalgamation) -> None:
    assert job.failure is not None
    assert (job.failure["code"], job.failure["retryable"]) == (FailureCode.STORAGE_ERROR, True)


def _warnings(world: Installation, job_id: str) -> list[str]:
    return [event.message for event in events_of(world.database, job_id) if event.type == "warning"]
