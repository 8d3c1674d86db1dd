"""Codes of problems that are more exact than their error's own, for `responses=` of the routes.

A test compares them with the codes that are raised, so that none is left out.
"""

from dataclasses import dataclass

from app.domain.errors import (
    ConflictError,
    InvalidModelError,
    InvalidRequestError,
    MukaError,
    NotFoundError,
    NotReadyError,
    TooManyRequestsError,
)


@dataclass(frozen=True)
class ProblemCode:
    """An error under a code of its own."""

    error: type[MukaError]
    code: str
    meaning: str


IN_USE = ProblemCode(ConflictError, "in_use", "A job that has not ended needs it; wait for it, or cancel it.")
JOB_ENDED = ProblemCode(ConflictError, "job_ended", "The job has ended, and in a way that leaves no choice.")
JOB_LIVE = ProblemCode(ConflictError, "job_live", "The job has not ended; wait for it, or cancel it.")
STUDENT_KEPT = ProblemCode(
    ConflictError, "student_kept", "The cancelled job kept its student, which never changes; delete it first."
)
INPUTS_MISSING = ProblemCode(
    ConflictError, "inputs_missing", "What the job needs was deleted or has expired; create the job anew."
)
TOO_MANY_WEBHOOKS = ProblemCode(
    ConflictError, "too_many_webhooks", "As many as one owner may have; delete one that you do not need."
)

REPORT_NOT_AVAILABLE = ProblemCode(
    NotFoundError, "report_not_available", "The job has no report; it is there when the job has succeeded."
)
TEXTS_NOT_AVAILABLE = ProblemCode(
    NotFoundError, "texts_not_available", "The job has no table of texts; it comes when the job succeeds."
)

IDEMPOTENCY_KEY_REUSED = ProblemCode(
    InvalidRequestError, "idempotency_key_reused", "The key was used with another body; send a fresh one."
)
EMPTY_BODY = ProblemCode(InvalidRequestError, "empty_body", "The body is empty; send the file as the body.")
UPLOAD_INCOMPLETE = ProblemCode(InvalidRequestError, "upload_incomplete", "The upload was broken off.")
MULTIPART_INVALID = ProblemCode(
    InvalidRequestError, "multipart_invalid", "The form cannot be read; send it again."
)
COMPRESSION_INVALID = ProblemCode(
    InvalidRequestError, "compression_invalid", "The file cannot be decompressed; compress it again."
)
ARCHIVE_INVALID = ProblemCode(InvalidModelError, "archive_invalid", "The archive cannot be read.")
ARCHIVE_UNSAFE = ProblemCode(
    InvalidModelError, "archive_unsafe", "A name in the archive leads out of its folder, or to no plain file."
)
WEIGHTS_INVALID = ProblemCode(InvalidModelError, "weights_invalid", "The weights are no whole safetensors.")
TEACHER_UNSAFE_FORMAT = ProblemCode(
    InvalidModelError, "teacher_unsafe_format", "The weights are pickled; save them as safetensors."
)
TEACHER_NOT_CLASSIFIER = ProblemCode(
    InvalidModelError, "teacher_not_classifier", "The model is no sequence classifier with two labels."
)

TOO_MANY_QUEUED_JOBS = ProblemCode(
    TooManyRequestsError, "too_many_queued_jobs", "As many of your jobs are queued as one may have."
)
TOO_MANY_UPLOADS = ProblemCode(
    TooManyRequestsError, "too_many_uploads", "As many uploads are being read as this process takes at once."
)

STORAGE_ERROR = ProblemCode(
    NotReadyError, "storage_error", "The artifact store cannot be read or written; try again later."
)
DATABASE_UNAVAILABLE = ProblemCode(
    NotReadyError, "database_unavailable", "The database does not answer; try again later."
)
