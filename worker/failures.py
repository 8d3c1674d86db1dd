"""One table from what can be raised during a run to the failure that the user reads.

What a run stands on may fail as a whole. Then it waits so long and no longer, and nothing half-written stays:

    memory      half as many texts at once, down to one; then `out_of_memory`. Killed by the kernel: the
                attempt is lost, and after MUKA_MAX_ATTEMPTS `worker_lost`
    disk        full: `storage_error` at once, what is staged is removed; a resume goes on from the last
                checkpoint
    store       in other trouble, or away: asked again for MUKA_STORE_PATIENCE_SECONDS, a `warning` each time;
                then `storage_error`
    database    asked again for MUKA_LEASE_SECONDS; then the attempt stops, and its lease runs out
    broker      nobody waits: a run needs none, queued jobs are sent every MUKA_DISPATCH_AGAIN_SECONDS
    Hub         asked again for about two minutes, a `warning` each time; then `teacher_not_found`, retryable
"""

import os
from dataclasses import dataclass

from app.domain.recipe import RecipeNotKnownError
from app.domain.status import FailureCode
from app.storage import DISK_ERRORS, StoreError
from worker.corpus import CorpusUnreadableError
from worker.muka import errors as library
from worker.system_errors import error_number
from worker.teachers import HubSilentError, ModelGatedError, ModelGoneError


@dataclass(frozen=True)
class Failure:
    """A failure code with what to say."""

    code: FailureCode
    message: str
    hint: str
    retryable: bool | None = None
    """None: as its code says."""


FAILURES: dict[type[Exception], tuple[FailureCode, str]] = {
    library.TeacherNotFoundError: (
        FailureCode.TEACHER_NOT_FOUND,
        "Check that the model is complete: config.json, *.safetensors and the tokenizer's files.",
    ),
    library.TeacherUnsafeFormatError: (
        FailureCode.TEACHER_UNSAFE_FORMAT,
        "Save the model again with safe_serialization=True, which writes model.safetensors.",
    ),
    library.TeacherNotClassifierError: (
        FailureCode.TEACHER_NOT_CLASSIFIER,
        "Use a model that was fine-tuned for single-label text classification.",
    ),
    library.StudentNotUsableError: (
        FailureCode.TEACHER_NOT_CLASSIFIER,
        "Start the student from another model (student.init_from), or keep more layers.",
    ),
    library.LabelConflictError: (
        FailureCode.LABEL_CONFLICT,
        "Give this teacher a mapping of its labels in the request.",
    ),
    library.CorpusEmptyError: (FailureCode.CORPUS_EMPTY, "Upload a corpus with at least one text."),
    library.OutOfMemoryError_: (
        FailureCode.OUT_OF_MEMORY,
        "Lower training.max_length, keep fewer layers, or use a machine with more memory.",
    ),
    MemoryError: (
        FailureCode.OUT_OF_MEMORY,
        "Use a smaller corpus, keep fewer layers, or use a machine with more memory.",
    ),
    library.DivergedError: (
        FailureCode.DIVERGED,
        'Lower training.learning_rate, or set training.precision to "float32".',
    ),
    ModelGoneError: (
        FailureCode.TEACHER_NOT_FOUND,
        "Check that the model exists and that the worker reaches the Hub, then create the job again.",
    ),
    HubSilentError: (
        FailureCode.TEACHER_NOT_FOUND,
        "Resume the job (POST /amalgamations/{id}/resume) when the worker reaches the Hub again, or upload "
        "the model with POST /models and create the job anew.",
    ),
    ModelGatedError: (
        FailureCode.TEACHER_GATED,
        "Ask for access on the model's page, and give the worker a token that has it (HF_TOKEN).",
    ),
    CorpusUnreadableError: (FailureCode.CORPUS_INVALID, "Upload the corpus again, and create the job anew."),
    StoreError: (
        FailureCode.STORAGE_ERROR,
        "Free space or repair the store, then resume the job (POST /amalgamations/{id}/resume): it goes on "
        "from its checkpoint.",
    ),
    RecipeNotKnownError: (
        FailureCode.INTERNAL,
        "Bring API and workers to the same version of muka, then create the job again.",
    ),
}
"""By class; a subclass is what its nearest listed ancestor is."""

_MAX_MESSAGE_CHARS = 1_000


def failure_of(error: BaseException) -> Failure:
    """What the user is told. The message of an unexpected error stays in the worker's log."""
    for kind in type(error).__mro__:
        if kind in FAILURES:
            code, hint = FAILURES[kind]
            own_hint = error.hint if isinstance(error, library.MukaLibraryError) else ""
            told = _storable(str(error)) or "out of memory"
            return Failure(code, told, own_hint or hint, retryable=kind is HubSilentError or None)
    number = error_number(error)
    if number is not None and number in DISK_ERRORS:
        hint = FAILURES[StoreError][1]
        return Failure(FailureCode.STORAGE_ERROR, f"the disk cannot be written: {os.strerror(number)}", hint)
    if _is_out_of_memory(error):
        return Failure(FailureCode.OUT_OF_MEMORY, "the memory is used up", FAILURES[MemoryError][1])
    return Failure(
        FailureCode.INTERNAL,
        f"an unexpected {type(error).__name__}",
        "The worker's log has the details, under the job's id; please report them.",
    )


def _storable(message: str) -> str:
    """It may quote a file of strangers: no database takes NUL, nor half of a surrogate pair."""
    told = message.replace("\0", "�").encode("utf-8", "replace").decode()
    return told if len(told) <= _MAX_MESSAGE_CHARS else f"{told[:_MAX_MESSAGE_CHARS]}…"


def _is_out_of_memory(error: BaseException) -> bool:
    from worker.muka.memory import is_out_of_memory  # noqa: PLC0415  (torch comes with it)

    return is_out_of_memory(error)
