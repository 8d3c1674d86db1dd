"""The way from the API to the workers: task names and `enqueue`. Only an id crosses; no worker import."""

from celery import Celery

RUN_AMALGAMATION = "muka.run_amalgamation"
"""The task's name; `worker.tasks` gives it a body."""

QUEUE = "amalgamations"


class TaskQueue:
    """Sends messages that say *look at job X*. Losing one delays a job, it never loses one."""

    def __init__(self, broker_url: str | None) -> None:
        self._celery = Celery("muka", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_connection_retry=False,
            broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 5},
        )

    def enqueue(self, job_id: str) -> None:
        """Send. Raises `kombu.exceptions.OperationalError` when the broker does not answer."""
        self._celery.send_task(RUN_AMALGAMATION, args=(job_id,), queue=QUEUE, retry=False)

    def check(self) -> None:
        """Raise when the broker does not answer."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def close(self) -> None:
        """Return the connections."""
        self._celery.close()
