"""The way from the API to the workers: task names and `enqueue`. Only an id crosses; no worker import."""

from celery import Celery
from kombu.exceptions import OperationalError

RUN_AMALGAMATION = "muka.run_amalgamation"
"""The task's name; `worker.tasks` gives it a body."""
HELP_SCORING = "muka.help_scoring"
"""Another one: *who is idle may help with job X*."""

QUEUE = "amalgamations"

_FAIL_FAST = {
    "socket_connect_timeout": 2,
    "socket_timeout": 2,
    # Ask once: the job's row is the outbox, and the caretaker sends again what could not be sent.
    "max_retries": 0,
    "interval_start": 0,
}


class TaskQueue:
    """Sends messages that say *look at job X*. Losing one delays a job, it never loses one.

    Safe to share between threads: each send takes a producer from a pool. `redis+socket:///path` (the
    embedded broker's) is a URL like any other.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._has_broker = broker_url is not None
        self._celery = Celery("muka", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_connection_retry=False,
            broker_transport_options=_FAIL_FAST,
        )

    def enqueue(self, job_id: str) -> None:
        """Send. Raises `kombu.exceptions.OperationalError` when the broker does not answer within 2 s."""
        self._send(RUN_AMALGAMATION, job_id)

    def call_for_help(self, job_id: str, helpers: int) -> None:
        """Send so many workers to help with the job, unless as many messages wait already.

        Whoever was called is idle until it has started: who called it again and again would fill the queue.
        Raises as `enqueue` does; losing a call costs time only.
        """
        for _ in range(helpers - self._waiting()):
            self._send(HELP_SCORING, job_id)

    def check(self) -> None:
        """Raises `kombu.exceptions.OperationalError` when the broker does not answer within 2 s."""
        self._require_broker()
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=0, interval_start=0)

    def close(self) -> None:
        """Return the connections."""
        self._celery.close()

    def _waiting(self) -> int:
        """Messages that no worker has received."""
        self._require_broker()
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=0, interval_start=0)
            try:
                return int(connection.default_channel.queue_declare(queue=QUEUE).message_count)
            except connection.connection_errors as error:
                raise OperationalError(str(error)) from error

    def _send(self, task: str, job_id: str) -> None:
        self._require_broker()
        self._celery.send_task(task, args=(job_id,), queue=QUEUE, retry=False)

    def _require_broker(self) -> None:
        """Celery would look for a RabbitMQ on this machine instead."""
        if not self._has_broker:
            raise OperationalError("no broker: set MUKA_BROKER_URL, or start the service with `muka serve`")
