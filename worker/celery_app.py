"""Celery's configuration. The database carries correctness; a message only says *look at job X*."""

import mmap
import os
import signal
from types import FrameType
from typing import Any

from billiard import active_children
from billiard.exceptions import WorkerLostError
from celery import Celery, signals

from app.persistence import shards
from app.persistence.database import Database
from app.processes import die_with_parent
from app.settings import get_settings
from app.task_queue import QUEUE
from worker.alive import Alive
from worker.lease import record_loss_of
from worker.presence import Presence


def configuration() -> dict[str, Any]:
    """Read when the worker starts, not when this module is imported."""
    return {
        "broker_url": get_settings().broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_default_queue": QUEUE,
        # The claim makes a job safe; what Celery could keep would only be in its way.
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": True,
        "worker_log_format": "%(asctime)s worker %(levelname)s %(message)s",
        "worker_task_log_format": "%(asctime)s worker %(levelname)s %(message)s",
    }


celery = Celery("muka", include=["worker.tasks"], set_as_current=False)
celery.add_defaults(configuration)
celery.steps["consumer"].add(Alive)


class _Main:
    """The worker's main process, known to the pool processes that it forks."""

    pid: int | None = None
    presence: Presence | None = None
    stopping = mmap.mmap(-1, 1)
    """Shared with the pool processes: not zero when a warm stop has begun."""


def worker_name() -> str:
    """Under which this worker holds its leases: the same in its main and in its pool process."""
    return get_settings().worker_name or f"{os.uname().nodename}:{_Main.pid or os.getpid()}"


def is_stopping() -> bool:
    """True from the moment on in which this worker was told to stop; also in its pool process."""
    return _Main.stopping[0] != 0


def _main_starts(**_: Any) -> None:
    _Main.pid = os.getpid()
    parent = get_settings().die_with_parent
    if parent is not None:
        die_with_parent(parent)
    _Main.presence = Presence(get_settings(), worker_name())
    _Main.presence.start()


def _main_ends(**_: Any) -> None:
    if _Main.presence is not None:
        _Main.presence.stop()


def _pool_process_starts(**_: Any) -> None:
    if _Main.pid is not None:
        die_with_parent(_Main.pid)
    signal.signal(signal.SIGTERM, _end_unless_stopping)


def _end_unless_stopping(number: int, _frame: FrameType | None) -> None:
    """Of a pool process between two tasks: in a warm stop Celery ends it when what was received is done."""
    if not is_stopping():
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _stop_warmly(**_: Any) -> None:
    """Celery would wait for the job's end, which may be tomorrow.

    The note first: a pool process that does not see it yet has begun, and heeds the signal. Which of them has
    cannot be asked of Celery, to which they tell it some time later.
    """
    _Main.stopping[0] = 1
    for process in active_children():
        os.kill(process.pid, signal.SIGTERM)


def _pool_process_died(exception: BaseException, args: tuple[str, ...], **_: Any) -> None:
    """In the main process: the pool process, and the attempt or the helper with it, was killed."""
    if not isinstance(exception, WorkerLostError):
        return
    settings = get_settings()
    database = Database(settings.resolved_database_url())
    try:
        record_loss_of(database, args[0], worker=worker_name(), max_attempts=settings.max_attempts)
        with database.write() as session:
            shards.lose(session, worker_name())
    finally:
        database.close()


signals.worker_init.connect(_main_starts)
signals.worker_process_init.connect(_pool_process_starts)
signals.worker_shutdown.connect(_main_ends)
signals.worker_shutting_down.connect(_stop_warmly)
signals.task_failure.connect(_pool_process_died)
