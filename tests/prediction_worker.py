"""Students that can be asked, and prediction workers to ask them, for tests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from app.prediction_queue import WAITING
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_student
from tests.e2e.service import Muka, muka
from tests.servers import wait_until
from tests.tiny_models import make_teacher

LABELS = ("refund", "invoice", "late", "lost", "crash", "password", "other")


def publish(backend: Backend, folder: Path, labels: Sequence[str] = LABELS, *, seed: int = 0) -> str:
    """A real student, made in `folder` and published; answers its id."""
    make_teacher(folder, labels, seed=seed)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return add_student(backend, files, labels=labels)


@contextmanager
def prediction_worker(settings: Settings, folder: Path) -> Iterator[Muka]:
    """`muka worker --queue predictions`, once it listens; it must stop warmly, its sign of life with it."""
    alive = folder / "alive"
    environment = {
        "MUKA_BROKER_URL": str(settings.broker_url),
        "MUKA_STORE_DIR": str(settings.store_dir),
        "MUKA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",  # it must not need one
        "MUKA_DATA_DIR": str(folder / "unused"),
        "MUKA_WORKER_ALIVE_FILE": str(alive),
    }
    alive.unlink(missing_ok=True)
    with muka(["worker", "--queue", "predictions"], folder, environment) as worker:
        wait_until(lambda: alive.exists() or worker.process.poll() is not None, "the worker listens")
        yield worker
    assert (worker.process.returncode, alive.exists()) == (0, False), worker.output()


def keys_left(broker_url: str) -> list[bytes]:
    """What predictions have in Redis just now."""
    with redis.Redis.from_url(broker_url.replace("redis+socket", "unix")) as client:
        return sorted(client.scan_iter(f"{WAITING}*"))
