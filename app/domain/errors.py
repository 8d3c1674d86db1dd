"""The errors that a user can meet.

MukaError
├── InvalidRequestError      422  the body or a parameter breaks the contract
│   ├── InvalidCorpusError   422  the uploaded texts cannot be read
│   └── InvalidModelError    422  the uploaded archive is no usable classifier
├── UnauthorizedError        401
├── ForbiddenError           403  the key's scopes do not cover it
├── NotFoundError            404
├── TooSlowError             408  the body came to a standstill
├── ConflictError            409
│   └── RequestInFlightError 409  another one under the same key has no answer yet
├── GoneError                410  it has expired
├── PayloadTooLargeError     413
├── UnsupportedFormatError   415
├── RangeNotSatisfiableError 416
├── TooManyRequestsError     429  a limit that time lifts
├── HubUnavailableError      502
├── NotReadyError            503
├── PredictionsBusyError     503  more wait than may wait
├── PredictionFailedError    503  the student could not be asked
└── PredictionTimeoutError   504  nobody has answered in time

Every message says what is wrong and what to do next, and never holds a server path or a secret.
`app.api.error_handlers` renders them as RFC 9457 problems; nothing else in muka knows HTTP statuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer to the field (`/teachers/1`), or `line 17, column 3` of an uploaded file."""
    code: str
    detail: str


class MukaError(Exception):
    """Base of all errors that are part of the API."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, faults: Sequence[Fault] = (), code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        self.problem_code = code or type(self).code
        """The problem's `code`: the class's own, or a more exact one."""


class InvalidRequestError(MukaError):
    """The request breaks the contract; `faults` has every breach."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"


class InvalidCorpusError(InvalidRequestError):
    """The uploaded texts cannot be read; nothing was stored."""

    code = "corpus_invalid"
    title = "Invalid corpus"


class InvalidModelError(InvalidRequestError):
    """The uploaded archive is no usable classifier; nothing was stored."""

    code = "model_invalid"
    title = "Invalid model"


class UnauthorizedError(MukaError):
    """No API key, or one that is not known."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"


class ForbiddenError(MukaError):
    """The key is valid, but not for this."""

    status = 403
    code = "insufficient_scope"
    title = "Forbidden"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"this key has not the scope `{scope}`: use another key, or ask who runs the service for one "
            f"(`muka keys create --scope {scope}`)"
        )
        self.scope = scope


class HostNotAllowedError(MukaError):
    """No key is asked for, so only this machine is let in, under a name of its own."""

    status = 403
    code = "host_not_allowed"
    title = "Forbidden"

    def __init__(self, header: str, name: str) -> None:
        super().__init__(
            "this service asks for no key, so it is there for this machine alone (localhost, 127.0.0.1, "
            f"[::1]); the header `{header}` names {name[:100]!r}: make a key (`muka keys create`) and send "
            "it, or list the name in MUKA_ALLOWED_HOSTS"
        )


class NotFoundError(MukaError):
    """No such object, or one that belongs to another owner."""

    status = 404
    code = "not_found"
    title = "Not found"


class TooSlowError(MukaError):
    """An upload stood still, or came too slowly; nothing was stored, send it again."""

    status = 408
    code = "upload_too_slow"
    title = "Request timeout"


class ConflictError(MukaError):
    """The object's state does not allow this."""

    status = 409
    code = "conflict"
    title = "Conflict"


class RequestInFlightError(ConflictError):
    """An earlier request under this Idempotency-Key has no answer yet; ask again after `Retry-After`."""

    code = "request_in_flight"
    title = "Request in flight"


class GoneError(MukaError):
    """The object has expired, and is about to be removed."""

    status = 410
    code = "expired"
    title = "Gone"


class PayloadTooLargeError(MukaError):
    """More bytes or texts than the limit, which the message states."""

    status = 413
    code = "payload_too_large"
    title = "Payload too large"


class UnsupportedFormatError(MukaError):
    """A file of a kind that muka does not read."""

    status = 415
    code = "unsupported_format"
    title = "Unsupported format"


class RangeNotSatisfiableError(MukaError):
    """A `Range` outside of the file."""

    status = 416
    code = "range_not_satisfiable"
    title = "Range not satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the file has {size_bytes} bytes; ask for a range within them")
        self.size_bytes = size_bytes


class TooManyRequestsError(MukaError):
    """A limit that time lifts; the message states it, and `Retry-After` when to try again."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"


class HubUnavailableError(MukaError):
    """The Hugging Face Hub does not answer; the request may work later."""

    status = 502
    code = "hub_unavailable"
    title = "Hub unavailable"


class NotReadyError(MukaError):
    """A part that muka stands on (database, broker, store) does not answer."""

    status = 503
    code = "not_ready"
    title = "Not ready"


class PredictionsBusyError(MukaError):
    """More prediction requests wait than may wait; `Retry-After` says when to try again."""

    status = 503
    code = "predictions_busy"
    title = "Predictions busy"


class PredictionFailedError(MukaError):
    """A prediction worker could not ask the student; its log has the details."""

    status = 503
    code = "prediction_failed"
    title = "Prediction failed"


class PredictionTimeoutError(MukaError):
    """No prediction worker has answered in time, and none will: the request is withdrawn."""

    status = 504
    code = "prediction_timeout"
    title = "Prediction timeout"
