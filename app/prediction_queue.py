"""Questions to the prediction workers and their answers, through the broker's Redis; nothing stays there.

    muka:predictions                list of names that wait, oldest first
    muka:predictions:NAME:question  what is asked
    muka:predictions:NAME:answer    what the worker says, or
    muka:predictions:NAME:failure   why it cannot

Every key lives as long as somebody waits, by Redis' own clock: a question that has timed out is gone, so no
worker computes it, and after a crash of everybody the rest vanishes by itself.

No queue of Celery's: it has no way back without a result backend, and a message cannot be withdrawn.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.domain.errors import (
    NotReadyError,
    PredictionFailedError,
    PredictionsBusyError,
    PredictionTimeoutError,
)

WAITING = "muka:predictions"
_CONNECT_SECONDS = 2
_GRACE_SECONDS = 2
"""Redis ends the wait; when Redis is silent for this much longer, we do. Names go with it."""


class PredictionQueue:
    """The API's end. Of one event loop."""

    def __init__(self, broker_url: str | None, *, max_waiting: int, timeout_seconds: float) -> None:
        self._max_waiting = max_waiting
        self._timeout_seconds = timeout_seconds
        self._redis = None
        if broker_url is not None:
            self._redis = redis.asyncio.Redis.from_url(
                _client_url(broker_url),
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=None,
                max_connections=10_000,  # every question that waits holds one
                retry=Retry(NoBackoff(), 1),  # a connection of the pool may have died unseen
            )

    async def ask(self, question: bytes) -> bytes:
        """The worker's answer.

        Raises:
            PredictionsBusyError: More questions wait than the setting allows.
            PredictionTimeoutError: Nobody has answered in time; nobody will.
            PredictionFailedError: A worker could not.
            NotReadyError: The broker does not answer.
        """
        if self._redis is None:
            raise NotReadyError("there is no broker: set MUKA_BROKER_URL, or use `muka serve`")
        try:
            async with asyncio.timeout(self._timeout_seconds + _GRACE_SECONDS):
                return await self._asked(self._redis, question)
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            raise NotReadyError("the broker does not answer; try again soon") from error

    async def close(self) -> None:
        """Return the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def _asked(self, client: redis.asyncio.Redis, question: bytes) -> bytes:
        name = uuid.uuid4().hex
        lifetime = _milliseconds(self._timeout_seconds)
        async with client.pipeline() as sending:
            sending.set(_key(name, "question"), question, px=lifetime)
            sending.rpush(WAITING, name)
            # What waits then is as old as this question, or older: all of it has timed out.
            sending.pexpire(WAITING, _milliseconds(self._timeout_seconds + _GRACE_SECONDS))
            _, waiting, _ = await sending.execute()
        if waiting > self._max_waiting:
            await self._withdraw(client, name)
            raise PredictionsBusyError(
                f"{self._max_waiting} prediction requests wait already; try again in a few seconds. "
                "If this lasts, start another worker with `muka worker --queue predictions`"
            )
        said = await client.blpop(
            [_key(name, "answer"), _key(name, "failure")], timeout=self._timeout_seconds
        )
        if said is None:
            raise self._too_late(was_taken=not await self._withdraw(client, name))
        key, content = map(_bytes, said)
        if key == _key(name, "failure").encode():
            raise PredictionFailedError(content.decode())
        return content

    async def _withdraw(self, client: redis.asyncio.Redis, name: str) -> bool:
        """True when no worker had taken it."""
        async with client.pipeline() as sending:
            sending.lrem(WAITING, 1, name)
            sending.delete(*(_key(name, part) for part in ("question", "answer", "failure")))
            removed, _ = await sending.execute()
        return bool(removed)

    def _too_late(self, *, was_taken: bool) -> PredictionTimeoutError:
        within = f"within {self._timeout_seconds:g} s"
        if was_taken:
            return PredictionTimeoutError(
                f"a prediction worker took the request and did not answer {within}: it loads the student, "
                "has too much to read, or was lost. Try again, or send fewer texts"
            )
        return PredictionTimeoutError(
            f"no prediction worker took the request {within}: all are busy or starting, or there is none. "
            "Try again; where MUKA_BROKER_URL is set, start one with `muka worker --queue predictions`"
        )


@dataclass(frozen=True)
class Taken:
    """A question that a worker has taken."""

    name: str
    question: bytes
    deadline: float
    """On `time.monotonic()`: nobody waits any longer."""

    @property
    def seconds_left(self) -> float:
        """Negative when nobody waits any more."""
        return self.deadline - time.monotonic()


class PredictionInbox:
    """The workers' end. Every method raises `redis.exceptions.RedisError` when the broker does not answer."""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(
            _client_url(broker_url), socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=10
        )

    def wait(self, seconds: float, lifetime_seconds: float) -> bool:
        """True as soon as a question waits, False after `seconds`; takes none.

        Args:
            seconds: less than 10.
            lifetime_seconds: of a question.
        """
        # Out of the list and back to where it was.
        if self._redis.blmove(WAITING, WAITING, seconds, "LEFT", "LEFT") is None:  # type: ignore[arg-type]
            return False
        self._redis.pexpire(WAITING, _milliseconds(lifetime_seconds + _GRACE_SECONDS))
        return True

    def take(self, seconds: float) -> Taken | None:
        """The oldest question, waited for up to `seconds` (less than 10); None also when it has timed out."""
        said: tuple[bytes, bytes] | None = self._redis.blpop([WAITING], timeout=seconds)  # type: ignore[assignment]
        if said is None:
            return None
        name = said[1].decode()
        with self._redis.pipeline() as sending:
            sending.pttl(_key(name, "question"))
            sending.getdel(_key(name, "question"))
            milliseconds, question = sending.execute()
        if question is None:
            return None
        return Taken(name, question, time.monotonic() + milliseconds / 1000)

    def answer(self, taken: Taken, content: bytes) -> None:
        """Send it, unless nobody waits any more."""
        self._send(taken, "answer", content)

    def fail(self, taken: Taken, reason: str) -> None:
        """Say why there is no answer: a message for the user."""
        self._send(taken, "failure", reason.encode())

    def close(self) -> None:
        """Return the connections."""
        self._redis.close()

    def _send(self, taken: Taken, part: str, content: bytes) -> None:
        lifetime = _milliseconds(taken.seconds_left)
        if lifetime <= 0:
            return
        with self._redis.pipeline() as sending:
            sending.rpush(_key(taken.name, part), content)
            sending.pexpire(_key(taken.name, part), lifetime)
            sending.execute()


def _key(name: str, part: str) -> str:
    return f"{WAITING}:{name}:{part}"


def _milliseconds(seconds: float) -> int:
    return int(1000 * seconds)


def _bytes(value: bytes | str) -> bytes:
    """The client's types leave open what its answers are; ours decode nothing."""
    return value if isinstance(value, bytes) else value.encode()


def _client_url(broker_url: str) -> str:
    """Celery names a unix socket in its own way."""
    return broker_url.replace("redis+socket://", "unix://", 1)
