"""`python -m worker.helper ID ATTEMPT WORKER`: help to score a job, in a process of its own.

The thin task starts it. It ends with 0 when there is no more to help with, whyever; with something else when
it could not help. Then what it had in hand is left to the holder of the job.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.processes import die_with_parent
from app.settings import Settings, get_settings
from app.storage import configured_store
from worker.assignment import Assignment
from worker.lease import LeaseLostError, StopReason
from worker.loading import without_collector
from worker.muka.errors import StoppedError
from worker.shard_lease import ShardLease
from worker.stall import FROZEN_GRACE_SECONDS, watched

log = logging.getLogger("worker")


def main(arguments: Sequence[str]) -> int:
    """Compute shards until none is left; answers the exit status."""
    job_id, attempt, worker = arguments[0], int(arguments[1]), arguments[2]
    settings = get_settings()
    if settings.die_with_parent is not None:
        die_with_parent(settings.die_with_parent)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {job_id} helper %(levelname)s %(message)s")
    database = Database(settings.resolved_database_url())
    lease = ShardLease(
        database,
        job_id,
        attempt,
        worker=worker,
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    signal.signal(signal.SIGTERM, lambda *_: lease.stop(StopReason.WARM_STOP))
    watch = watched(
        lease,
        lambda: None,  # its lease runs out, and the holder of the job takes over
        stall_seconds=settings.stall_seconds,
        frozen_seconds=settings.lease_seconds + FROZEN_GRACE_SECONDS,
    )
    try:
        with lease.kept(), watch:
            return _help(settings, database, lease)
    finally:
        database.close()


def _help(settings: Settings, database: Database, lease: ShardLease) -> int:
    # Here and not above: torch takes seconds to import, and the job may end meanwhile.
    try:
        with without_collector():
            from worker.stages.helping import help_out  # noqa: PLC0415

        store = configured_store(settings, partial(names_no_file, database))
        assignment = lease.patiently(partial(Assignment.read, settings, database, store, lease))
        return 0 if help_out(assignment, lease) else 1
    except LeaseLostError as error:
        log.info("no more to help with: %s", error)
    except StoppedError:
        try:
            lease.let_go()
        except LeaseLostError as error:
            log.info("%s", error)
    except Exception:
        log.exception("cannot help")
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    # Taking torch's modules apart takes a second, and nothing is left to be tidied.
    os._exit(status)
