"""Time as the database tells it: always aware UTC, the same on SQLite and Postgres.

Leases are compared in database time only, so that clocks of workers never matter.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, FunctionElement, String, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator, TypeEngine

_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


class UtcDateTime(TypeDecorator[datetime]):
    """`timestamptz` on Postgres; on SQLite text with microseconds, which sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text on SQLite, whose own type would lose the zone."""
        return dialect.type_descriptor(String(26) if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Aware times only: a naive one is a bug of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: give an aware one")
        value = value.astimezone(UTC)
        return value.strftime(_FORMAT) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Always aware UTC."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return datetime.strptime(value, _FORMAT).replace(tzinfo=UTC)
        aware: datetime = value.astimezone(UTC)
        return aware


class now(FunctionElement[datetime]):  # noqa: N801  (reads as the SQL function that it is)
    """The database's clock, `seconds` from now. Wall-clock time, not the transaction's start."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(literal(float(seconds), Float()))


@compiles(now, "postgresql")
def _now_postgres(element: now, compiler: Any, **keywords: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **keywords)}))"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **keywords: Any) -> str:
    seconds = compiler.process(element.clauses, **keywords)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"
