"""Keeps an attempt in its stage: the database lets it wait with what it has to tell next.

Some stages last milliseconds. A trigger on the event log takes a lock of its own for every event of a job,
shared; who holds it alone lets whoever wants to write such an event wait, within its transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from app.domain.status import Stage, Status
from app.persistence.database import Database
from tests.chaos.installation import PROMISED_SECONDS
from tests.jobs import events_of
from tests.servers import wait_until

_TRIGGER = """
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext(
    NEW.amalgamation_id || ' ' || coalesce(NEW.data->>'stage', NEW.data->>'status', '')));
  RETURN NEW;
END $$;
CREATE TRIGGER gate BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
"""
_NEXT: dict[Stage, Stage | Status] = {
    Stage.PREPARING: Stage.SCORING,
    Stage.SCORING: Stage.TRAINING,
    Stage.TRAINING: Stage.EVALUATING,
    Stage.EVALUATING: Stage.PUBLISHING,
    Stage.PUBLISHING: Status.SUCCEEDED,
}


def build_gates(url: str) -> None:
    """In a migrated database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TRIGGER)


@contextmanager
def held_in(database: Database, job_id: str, stage: Stage) -> Iterator[None]:
    """The block runs when the job is in the stage, which its attempt does not leave before the block ends."""
    name = f"{job_id} {_NEXT[stage]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
        wait_until(
            lambda: any(event.data.get("stage") == stage for event in events_of(database, job_id)),
            f"{job_id} is {stage}",
            seconds=PROMISED_SECONDS,
        )
        yield
