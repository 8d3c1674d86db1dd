"""Use case: ask a student about texts, while the caller waits."""

from collections.abc import Iterator, Sequence

from anyio import to_thread

from app.domain.errors import Fault, InvalidRequestError
from app.domain.prediction import Question
from app.ingestion.rows import normalise
from app.prediction_queue import PredictionQueue
from app.services import students
from app.services.backend import Backend


class Predictions:
    """The way to the prediction workers, made once a process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        settings = backend.settings
        self._queue = PredictionQueue(
            settings.broker_url,
            max_waiting=settings.max_waiting_predictions,
            timeout_seconds=settings.prediction_timeout_seconds,
        )

    async def ask(self, owner: str, student_id: str, texts: Sequence[str], top_k: int | None) -> bytes:
        """What the student says of each text, as JSON.

        Raises:
            NotFoundError: there is no such student.
            InvalidRequestError: a text is empty, too long or no text.
            PredictionsBusyError, PredictionTimeoutError, PredictionFailedError, NotReadyError: no answer.
        """
        student = await to_thread.run_sync(students.get, self._backend, owner, student_id)
        if faults := list(_faults(texts, self._backend.settings.max_text_chars)):
            raise InvalidRequestError(
                "there are texts that cannot be classified; see `errors`", faults=faults
            )
        question = Question(
            student_id=student.id,
            digest=student.digest,
            storage_prefix=student.storage_prefix,
            size_bytes=student.size_bytes,
            texts=list(texts),
            top_k=top_k,
        )
        return await self._queue.ask(question.model_dump_json().encode())

    async def close(self) -> None:
        """Return the connections."""
        await self._queue.close()


def _faults(texts: Sequence[str], max_chars: int) -> Iterator[Fault]:
    """What a corpus would drop or refuse is refused here, for every text has its answer."""
    for index, text in enumerate(texts):
        fault = _fault(text, max_chars)
        if fault is not None:
            yield Fault(f"/texts/{index}", *fault)


def _fault(text: str, max_chars: int) -> tuple[str, str] | None:
    """Code and detail."""
    if not normalise(text):
        return "empty_text", "the text is empty; leave it out"
    if len(text) > max_chars:
        return "text_too_long", f"the text has {len(text)} characters; the limit is {max_chars}"
    if "\0" in text:
        return "not_text", "the text has a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "not_utf8", "half of a surrogate pair is no character"
    return None
