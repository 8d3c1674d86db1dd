"""The errors of the client.

MukaClientError
├── ApiError                      the service answered with a problem (RFC 9457)
│   ├── UnauthorizedError         401, 403
│   ├── NotFoundError             404
│   ├── ConflictError             409
│   ├── GoneError                 410
│   ├── TooLargeError             413
│   ├── InvalidRequestError       400, 415, 422
│   ├── RateLimitedError          429
│   └── ServiceError              5xx
├── ConnectionFailedError         nothing answered, or the connection broke
├── UnexpectedAnswerError         something answered, but not muka
├── InputError                    a file, folder or argument that cannot be sent
├── WaitTimeoutError              the job goes on, but the caller's patience has ended
├── JobFailedError                the job has ended without a student
├── JobCancelledError             the job was cancelled
└── DownloadError
    ├── ChecksumError             what arrived is not what the manifest promised
    └── UnsafePathError           the manifest names a path outside of the folder
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class MukaClientError(Exception):
    """Base of all errors of the client. The message says what to do next."""


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(extra="allow", frozen=True)

    pointer: str = ""
    """JSON pointer to the field (`/teachers/1`), or the place in an uploaded file."""
    code: str = ""
    detail: str = ""


class Problem(BaseModel):
    """The body of an `application/problem+json` answer."""

    model_config = ConfigDict(extra="allow", frozen=True)

    status: int
    title: str = ""
    detail: str = ""
    code: str = ""
    request_id: str | None = None
    errors: Sequence[Fault] = ()

    @classmethod
    def read(cls, status: int, body: Any) -> "Problem":
        """The problem in a decoded body; a bare one when the body is something else (a proxy's page)."""
        fields = dict(body) if isinstance(body, Mapping) else {}
        try:
            return cls.model_validate(fields | {"status": status})
        except ValidationError:
            return cls(status=status)


class ApiError(MukaClientError):
    """The service refused the request; `problem` is its answer, and every fault is in the message."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.detail = problem.detail or problem.title or _phrase(problem.status)
        self.errors = tuple(problem.errors)
        self.request_id = problem.request_id
        lines = [self.detail, *(f"  {fault.pointer}: {fault.detail}" for fault in self.errors)]
        super().__init__("\n".join(lines))


class UnauthorizedError(ApiError):
    """No API key, or one that the service does not know."""


class NotFoundError(ApiError):
    """No such object."""


class ConflictError(ApiError):
    """The object's state does not allow this."""


class GoneError(ApiError):
    """The object has expired."""


class TooLargeError(ApiError):
    """More than a limit of the service, which the message states."""


class InvalidRequestError(ApiError):
    """The request breaks the contract; `errors` has every fault."""


class RateLimitedError(ApiError):
    """Too many requests, also after waiting as the service asked."""


class ServiceError(ApiError):
    """The service, or something that it stands on, does not work."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: TooLargeError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


def api_error(problem: Problem) -> ApiError:
    """The error of the tree for this problem."""
    return _BY_STATUS.get(problem.status, ServiceError if problem.status >= 500 else ApiError)(problem)


def _phrase(status: int) -> str:
    try:
        return f"the service answered {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"the service answered {status}"


class ConnectionFailedError(MukaClientError):
    """Nothing answered, or the connection broke more often than the client retries."""


class UnexpectedAnswerError(MukaClientError):
    """Something answered that does not speak muka's contract."""


class InputError(MukaClientError, ValueError):
    """A file, folder or argument that cannot be sent."""


class WaitTimeoutError(MukaClientError, TimeoutError):
    """The job had not ended in the time that the caller gave; it goes on."""


class JobFailedError(MukaClientError):
    """The job has ended without a student."""

    def __init__(self, job_id: str, code: str, message: str, hint: str | None, *, retryable: bool) -> None:
        self.job_id = job_id
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable
        """True when the same request may work later, or on another worker."""
        super().__init__(f"{job_id} failed ({code}): {message}" + (f"\n  {hint}" if hint else ""))


class JobCancelledError(MukaClientError):
    """The job was cancelled. It has a student only if that was asked for: `cancel(keep_best=True)`."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"{job_id} was cancelled; resume it (`muka resume {job_id}`, `job.resume()`) and it goes on"
        )


class DownloadError(MukaClientError):
    """A student's files could not be had whole."""


class ChecksumError(DownloadError):
    """What arrived is not what the manifest promised, twice."""


class UnsafePathError(DownloadError):
    """The manifest names a path outside of the folder: nothing is written there."""
