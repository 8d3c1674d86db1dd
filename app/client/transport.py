"""HTTP as the client needs it: retries that are safe, problems as errors, answers as objects."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from app.client.errors import (
    ApiError,
    ConnectionFailedError,
    InputError,
    Problem,
    UnexpectedAnswerError,
    api_error,
)

RETRIED_STATUSES = frozenset({429, 502, 503})
"""Answers after which the same request may work; 502 only for requests that may be sent twice."""

LONGEST_RETRY_AFTER = 60.0
"""Seconds; a service that asks for more gets an error instead of a silent caller."""

IN_FLIGHT_SECONDS = 75.0
"""How long an earlier try may be in flight: one that has died gives its key back within a minute."""

FIRST_DELAY = 0.25
"""Seconds before the first retry; doubled for each further one, with jitter."""

_MOST_REDIRECTS = 5

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Answer = TypeVar("Answer", bound=BaseModel)
Arguments = Callable[[], Mapping[str, Any]]
"""Makes httpx's arguments for one try: a body that is read from a file must be opened anew each time."""


class Transport:
    """One connection pool to one service."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, retries: int) -> None:
        url = _checked(base_url)
        self.base_url = str(url).rstrip("/")
        self.timeout = timeout
        self._retries = retries
        headers = {"Accept": "application/json", "User-Agent": "muka-client"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        # A proxy named by the environment is of no use for a service on this machine.
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10)),
            trust_env=url.host not in _LOOPBACK,
        )

    def close(self) -> None:
        """Return the connections."""
        self._http.close()

    def send(
        self, method: str, path: str, *, repeatable: bool = True, arguments: Arguments = dict, **fixed: Any
    ) -> httpx.Response:
        """Send a request, again where that is safe, and return its answer whole.

        Args:
            method: of HTTP.
            path: below the service's URL.
            repeatable: whether sending it twice does no harm; if not, only 429 and 503 are retried.
            arguments: called for each try.
            fixed: arguments that are the same for each try.

        Raises:
            ApiError: the service refused.
            ConnectionFailedError: nothing answered.
        """
        for delay in self._delays():
            try:
                answer = self._answer(method, path, arguments, fixed)
            except httpx.TransportError as error:
                if delay is None or not repeatable:
                    raise self.connection_failed(error) from error
                time.sleep(delay)
                continue
            if delay is None or not _may_retry(answer, repeatable=repeatable):
                return _accepted(answer)
            time.sleep(seconds_to_wait(answer) or delay)
        raise AssertionError("the last delay is None")  # pragma: no cover

    def _answer(
        self, method: str, path: str, arguments: Arguments, fixed: Mapping[str, Any]
    ) -> httpx.Response:
        """Of one try; when an earlier one of the same request is still being carried out, that one's."""
        deadline = time.monotonic() + IN_FLIGHT_SECONDS
        while True:
            answer = self._http.request(method, path, **fixed, **arguments())
            if not _is_in_flight(answer) or time.monotonic() > deadline:
                return answer
            time.sleep(min(seconds_to_wait(answer) or FIRST_DELAY, LONGEST_RETRY_AFTER))

    def fetch(self, kind: type[Answer], method: str, path: str, **options: Any) -> Answer:
        """`send`, and read the answer as an object."""
        return self.read(kind, self.send(method, path, **options))

    def read(self, kind: type[Answer], answer: httpx.Response) -> Answer:
        """The answer as an object, or an error that says who is to blame."""
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise UnexpectedAnswerError(
                f"{answer.request.url} answered something that is no {kind.__name__.lower()} of muka: "
                f"is the URL that of a muka service, and is this client as new as the service?"
            ) from error

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], *, timeout: float | None = None
    ) -> Iterator[httpx.Response]:
        """One GET whose body is read bit by bit; redirects to a bucket are followed, without the key.

        `timeout`: seconds until a silent connection counts as broken, if not the client's own.
        """
        patience = httpx.Timeout(timeout or self.timeout, connect=min(self.timeout, 10))
        request = self._http.build_request("GET", path, headers=dict(headers), timeout=patience)
        try:
            answer = self._http.send(request, stream=True)
            for _ in range(_MOST_REDIRECTS):
                if answer.next_request is None:
                    break
                answer.close()
                request = _redirected(answer, answer.next_request)
                answer = self._http.send(request, stream=True)
            with closing(answer):
                self._refuse_error(answer)
                yield answer
        except httpx.TransportError as error:
            raise self._broken(error, request.url) from error

    def _refuse_error(self, answer: httpx.Response) -> None:
        if answer.next_request is not None:
            raise UnexpectedAnswerError(
                f"{answer.url} redirects without end: is this the URL of a muka service?"
            )
        if answer.is_error and self._is_own(answer.url):
            answer.read()
            raise _error_of(answer)
        if answer.is_error:
            raise ConnectionFailedError(
                f"{answer.url.host}, where the service keeps its files, answered {answer.status_code}: try "
                "again later, or see the service's log"
            )

    def _is_own(self, url: httpx.URL) -> bool:
        own = self._http.base_url
        return (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)

    def _broken(self, error: httpx.TransportError, url: httpx.URL) -> ConnectionFailedError:
        if self._is_own(url):
            return self.connection_failed(error)
        return ConnectionFailedError(
            f"the connection to {url.host}, where the service keeps its files, failed ({error}): try "
            "again, or have the service's MUKA_STORE_PUBLIC_URL name an address that is reached from here"
        )

    def connection_failed(self, error: httpx.TransportError) -> ConnectionFailedError:
        """The error with a way out."""
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ConnectionFailedError(
                f"nothing answers at {self.base_url} ({reason}): is `muka serve` running there? "
                "Another address is given with --url or MUKA_URL, in Python with MukaClient(base_url=…)"
            )
        return ConnectionFailedError(
            f"the connection to {self.base_url} broke ({reason}): see the service's log, then try again"
        )

    def _delays(self) -> Iterator[float | None]:
        """Seconds to wait after each try that fails; None: it was the last."""
        for retry in range(self._retries):
            yield FIRST_DELAY * 2**retry * random.uniform(0.75, 1.25)
        yield None


def _redirected(answer: httpx.Response, to: httpx.Request) -> httpx.Request:
    """What httpx has made of the request, without the key; `If-Range` is heeded here, where it is understood.

    The bucket's server has validators of its own.
    """
    known = answer.headers.get("ETag")
    if known is not None and to.headers.pop("If-Range", known) != known:
        to.headers.pop("Range", None)
    return to


def seconds_to_wait(answer: httpx.Response) -> float | None:
    """What `Retry-After` asks for, in seconds or as a date; None when it is missing or unreadable."""
    value = answer.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _may_retry(answer: httpx.Response, *, repeatable: bool) -> bool:
    if answer.status_code not in RETRIED_STATUSES or (answer.status_code == 502 and not repeatable):
        return False
    return (seconds_to_wait(answer) or 0) <= LONGEST_RETRY_AFTER


def _is_in_flight(answer: httpx.Response) -> bool:
    return answer.status_code == 409 and _problem_of(answer).code == "request_in_flight"


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise _error_of(answer)
    return answer


def _error_of(answer: httpx.Response) -> ApiError:
    return api_error(_problem_of(answer))


def _problem_of(answer: httpx.Response) -> Problem:
    try:
        body = answer.json()
    except ValueError:
        body = None
    return Problem.read(answer.status_code, body)


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InputError(f"{base_url!r} is no URL: write it as http://127.0.0.1:8000") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise InputError(f"{base_url!r} is no http URL: write it as http://127.0.0.1:8000")
    return url
