"""The states of a job, the only ways between them, and how a job can fail."""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    """Waiting for a worker; also between two attempts."""
    RUNNING = "running"
    """A worker holds the lease."""
    CANCELLING = "cancelling"
    """Cancelled by the user while a worker holds the lease; the worker ends it."""
    SUCCEEDED = "succeeded"
    """The student is published."""
    FAILED = "failed"
    """Ended with a failure that names its code and what to do next."""
    CANCELLED = "cancelled"
    """Ended at the user's wish."""


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
"""Ended. Only a resume by its owner leaves `FAILED` and `CANCELLED`; nothing leaves `SUCCEEDED`."""

ALLOWED_TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.FAILED}),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.CANCELLING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}
    ),
    # A student that was published just before the cancel arrived is kept.
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.FAILED, Status.SUCCEEDED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}
"""`RUNNING -> QUEUED`: its worker stopped warmly, or died and the job has attempts left. From an end back to
`QUEUED`: its owner resumed it, and nobody else can."""


class Stage(StrEnum):
    """What a running job does. Clients must accept stages that they do not know."""

    PREPARING = "preparing"
    SCORING = "scoring"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PUBLISHING = "publishing"


class FailureCode(StrEnum):
    """Why a job failed: a closed list."""

    TEACHER_NOT_FOUND = "teacher_not_found"
    TEACHER_GATED = "teacher_gated"
    TEACHER_NOT_CLASSIFIER = "teacher_not_classifier"
    TEACHER_UNSAFE_FORMAT = "teacher_unsafe_format"
    LABEL_CONFLICT = "label_conflict"
    CORPUS_EMPTY = "corpus_empty"
    CORPUS_INVALID = "corpus_invalid"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"
    DIVERGED = "diverged"
    STORAGE_ERROR = "storage_error"
    INTERNAL = "internal"


RETRYABLE = frozenset(
    {FailureCode.OUT_OF_MEMORY, FailureCode.WORKER_LOST, FailureCode.TIMEOUT, FailureCode.STORAGE_ERROR}
)
"""Failures that the same request may not meet again, on another worker or later."""
