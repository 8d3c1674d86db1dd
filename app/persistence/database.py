"""The engine, and the unit of work: a block that commits as one or not at all."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine, ExceptionContext, create_engine, event, make_url, text
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

IDLE_TRANSACTION_SECONDS = 20
"""A transaction in which nothing is asked of Postgres for so long is rolled back."""

_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A Postgres that falls silent without a word (a dropped network, a failover) is given up within half a
minute, and not when the kernel gives up; libpq's names, seconds and milliseconds."""


class Database:
    """SQLite (WAL) or Postgres behind one door; made once a process, closed at its end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._session = sessionmaker(self.engine, expire_on_commit=False)
        # Each statement alone sees what is committed, as within a transaction of Postgres' READ COMMITTED,
        # without the ways there and back of BEGIN and ROLLBACK, and with statements that stay prepared.
        alone = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        self._lone_session = sessionmaker(self.engine.execution_options(**alone), expire_on_commit=False)
        self._closed = False
        event.listen(self.engine, "checkin", self._checked_in)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Nothing is written. One view of everything on SQLite; on Postgres one a statement."""
        with self._lone_session() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite it takes the write lock at once: a transaction that reads first and locks later could
        not wait for another writer, it would have to fail.
        """
        with self._session() as session:
            session.connection(execution_options={"muka_write": True})
            yield session
            session.commit()

    @contextmanager
    def write_alone(self) -> Iterator[Session]:
        """For one statement that writes: a transaction of its own, without the ways of BEGIN and COMMIT."""
        if self.engine.dialect.name == "sqlite":
            with self.write() as session:
                yield session
        else:
            with self._lone_session() as session:
                yield session

    def check(self) -> None:
        """Raises when the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """End every connection: those in use by other threads as soon as they are returned."""
        self._closed = True
        self.engine.dispose()

    def _checked_in(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        if self._closed:
            record.invalidate()


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return _postgres(url)
    name = make_url(url).database
    if name:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an accepted job survives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        is_write = connection.get_execution_options().get("muka_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    return engine


def _postgres(url: str) -> Engine:
    from psycopg.errors import IdleInTransactionSessionTimeout  # noqa: PLC0415  (only where it is used)

    engine = create_engine(
        url,
        pool_size=20,
        max_overflow=10,
        pool_timeout=10,
        connect_args=_PATIENCE,
        hide_parameters=True,  # a failing statement is logged, and may carry a secret
        json_deserializer=from_json,  # a job has eight JSON columns, and the standard library is slower
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # A process that is frozen in the middle of a transaction must not keep its locks from its successor.
        milliseconds = 1000 * IDLE_TRANSACTION_SECONDS
        connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
        connection.commit()

    @event.listens_for(engine, "checkout")
    def _check(connection: Any, _record: Any, _proxy: Any) -> None:
        # A server that ends a connection says so on it: seen without asking, which takes as long as a query.
        # One that fell silent is noticed by the kernel's keep-alives, and seen here as well.
        if connection.closed or _has_something_to_read(connection.fileno()):
            raise DisconnectionError("Postgres has ended this connection")

    @event.listens_for(engine, "handle_error")
    def _translate(context: ExceptionContext) -> OperationalError | None:
        # To whoever was frozen it is what a lost connection is. psycopg calls it an internal error, and that
        # would end the thread that shows a worker, and fail the job of one that was frozen for half a lease.
        original = context.original_exception
        if not isinstance(original, IdleInTransactionSessionTimeout):
            return None
        return OperationalError(
            context.statement, None, original, hide_parameters=True, connection_invalidated=True
        )

    return engine


def _has_something_to_read(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
