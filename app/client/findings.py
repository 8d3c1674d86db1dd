"""What a job found out, as the client reads it: figures of every text, and the curve of the training."""

import time
from collections.abc import Iterator

import httpx
from pydantic import ValidationError

from app.client.errors import ConnectionFailedError, ServiceError, UnexpectedAnswerError
from app.client.objects import ApiObject
from app.client.transport import Transport

RETRIES = 5
"""Tries in a row that bring no text, after which it gives up."""
_MEDIA_TYPE = "application/jsonl"


class TextRow(ApiObject):
    """One text of a job's corpus."""

    row: int
    """Place in the corpus, from 0."""
    text: str | None = None
    """None when the corpus was deleted or has expired."""
    chosen_teacher: int = 0
    weights: tuple[float, ...] = ()
    certainty: tuple[float, ...] = ()
    """Of each teacher, in [0, 1]; 1 is certain."""
    entropy: tuple[float, ...] = ()
    """Of each teacher's answer, in nats."""
    margin: float = 0.0
    label: str = ""
    """The student's; of a job without one, that of the teachers together."""
    probability: float = 0.0
    orphan: bool = False
    """No teacher is sure: the text's label may be missing."""


class Metrics(ApiObject):
    """The training as series of equal length: `plot(metrics.steps, metrics.series["loss"])`."""

    steps: list[int]
    series: dict[str, list[float | None]]


def texts_of(transport: Transport, job_id: str, *, orphans: bool, after: int) -> Iterator[TextRow]:
    """The rows behind number `after` as they arrive; a connection that breaks is bridged.

    Raises:
        NotFoundError: there is no such job, or it has no table (any more).
        ConnectionFailedError, ServiceError: the service is away.
    """
    fruitless = 0
    while True:
        try:
            for row in _once(transport, job_id, orphans=orphans, after=after):
                after, fruitless = row.row, 0
                yield row
        except (ConnectionFailedError, ServiceError):
            fruitless += 1
            if fruitless > RETRIES:
                raise
            time.sleep(0.25 * 2**fruitless)
        else:
            return


def _once(transport: Transport, job_id: str, *, orphans: bool, after: int) -> Iterator[TextRow]:
    path = f"/amalgamations/{job_id}/texts?after={after}&orphans={str(orphans).lower()}"
    with transport.stream(path, {"Accept": _MEDIA_TYPE}) as answer:
        for line in _lines(answer):
            try:
                yield TextRow.model_validate_json(line)
            except ValidationError as error:
                raise UnexpectedAnswerError(
                    f"{answer.request.url} answered a line that is no row of muka's table: "
                    "is this client as new as the service?"
                ) from error


def _lines(answer: httpx.Response) -> Iterator[bytes]:
    """Ended by a line feed and by nothing else: a text may hold all the others."""
    rest = b""
    for chunk in answer.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
