"""The failure of a job, as the API shows it."""

from typing import Any

from app.domain.status import RETRYABLE, FailureCode

WORKER_LOST_HINT = (
    "Look for the end of the worker in its log: a machine that ran out of memory kills it without a word. "
    "A lower max_length, fewer layers or a bigger machine may help."
)


def failure(
    code: FailureCode, message: str, *, stage: str | None, hint: str, retryable: bool | None = None
) -> dict[str, Any]:
    """The value of the column `failure`.

    Args:
        code: One of a closed list.
        message: What went wrong, in one sentence, without server paths.
        stage: In which stage; None before the first.
        hint: What to do next, in one sentence.
        retryable: None: as the code says.
    """
    return {
        "code": str(code),
        "message": message,
        "stage": stage,
        "retryable": code in RETRYABLE if retryable is None else retryable,
        "hint": hint,
    }
