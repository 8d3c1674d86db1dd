"""`python -m worker ID ATTEMPT`: one attempt in a process of its own.

The thin task starts it. It ends with 0 when the row says how the attempt ended; with `LOST` when another
attempt has the job; any other end (a signal, a crash) is for the parent to tell.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.exc import InterfaceError, OperationalError

from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.processes import die_with_parent
from app.settings import Settings, get_settings
from app.storage import ArtifactStore, configured_store
from worker import outcome
from worker.assignment import Assignment
from worker.child import LOST
from worker.lease import Lease, LeaseLostError, StopReason
from worker.loading import without_collector
from worker.muka.errors import StoppedError, is_panic
from worker.stall import FROZEN_GRACE_SECONDS, watched

log = logging.getLogger("worker")


def main(arguments: Sequence[str]) -> int:
    """Run one attempt; answers the exit status."""
    job_id, attempt = arguments[0], int(arguments[1])
    settings = get_settings()
    if settings.die_with_parent is not None:
        die_with_parent(settings.die_with_parent)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {job_id} %(levelname)s %(message)s")
    database = Database(settings.resolved_database_url())
    lease = Lease(
        database,
        job_id,
        attempt,
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    signal.signal(signal.SIGTERM, lambda *_: lease.stop(StopReason.WARM_STOP))
    store = configured_store(settings, partial(names_no_file, database))
    watch = watched(
        lease,
        lambda: outcome.stalled(lease, settings.stall_seconds),
        stall_seconds=settings.stall_seconds,
        frozen_seconds=settings.lease_seconds + FROZEN_GRACE_SECONDS,
    )
    try:
        with lease.kept(), watch:
            return carry_out(settings, database, store, lease)
    finally:
        database.close()


def carry_out(settings: Settings, database: Database, store: ArtifactStore, lease: Lease) -> int:
    """Run the attempt that the lease is for, and write down how it ended; answers the exit status."""
    # Here and not above: torch takes seconds to import, and the lease must be renewed meanwhile.
    try:
        with without_collector():
            from worker.run_amalgamation import run  # noqa: PLC0415

        run(lease.patiently(partial(Assignment.read, settings, database, store, lease)))
    except LeaseLostError as error:
        log.warning("%s", error)
        return LOST
    except StoppedError:
        return _end(lambda: outcome.stopped(lease))
    except (OperationalError, InterfaceError):
        raise  # the database is gone, not the job's fault: the parent tells, or the lease runs out
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        log.exception("the attempt failed")
        failed = error
        return _end(lambda: outcome.failed(lease, failed))
    return 0


def _end(write: Callable[[], None]) -> int:
    """Write the end down; somebody else may have done so in the meantime."""
    try:
        write()
    except LeaseLostError as error:
        log.warning("%s", error)
        return LOST
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    # Taking torch's modules apart takes a second, and nothing is left to be tidied.
    os._exit(status)
