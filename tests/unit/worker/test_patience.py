"""What is the store's fault and passes is asked again; everything else is told at once."""

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from app.storage import StoreError, open_store
from worker.lease import LeaseLostError
from worker.muka.errors import StoppedError, TeacherNotFoundError
from worker.patience import Patience
from worker.teachers import HubSilentError


class FakeLease:
    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[str] = []
        self._stop_after = stop_after

    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.told) >= self._stop_after

    def tell(self, kind: str, message: str) -> None:
        assert kind == "warning"
        self.told.append(message)


class Flaky:
    """Raises so often, then answers."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.asked = error, times, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def _raised_from(number: int, error: Exception) -> Exception:
    error.__cause__ = OSError(number, "why")
    return error


def _patience(folder: Path, lease: FakeLease, seconds: float = 60) -> Patience:
    return Patience(open_store(folder / "store"), lease, seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        StoreError("the artifact store cannot be written: Read-only file system"),
        OSError(errno.EIO, "Input/output error", "/secret/path"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.ETIMEDOUT, "Connection timed out"),
        SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)"),
        Exception("Stale file handle (os error 116)"),  # of tokenizers
        _raised_from(errno.ENOTCONN, TeacherNotFoundError("the weights cannot be read")),
    ],
)
def test_what_passes_is_asked_again_with_a_warning(tmp_path: Path, error: Exception) -> None:
    lease, ask = FakeLease(), Flaky(error, 1)
    assert _patience(tmp_path, lease).insist(ask) == "answer"
    assert ask.asked == 2
    (told,) = lease.told
    assert told.startswith("the artifact store ")
    assert told.endswith("; tried again in 0.5 s")
    assert "/secret" not in told


@pytest.mark.parametrize(
    "error",
    [
        _raised_from(
            errno.ENOSPC, StoreError("the artifact store cannot be written: No space left on device")
        ),
        _raised_from(errno.EDQUOT, StoreError("the artifact store cannot be written: Disk quota exceeded")),
        OSError(errno.EFBIG, "File too large"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        TeacherNotFoundError("there is no config.json"),
        ValueError("a bug"),
        HubSilentError("the Hub does not answer"),
        LeaseLostError("not mine any more"),
        StoppedError(),
    ],
)
def test_everything_else_is_told_at_once(tmp_path: Path, error: Exception) -> None:
    lease, ask = FakeLease(), Flaky(error, 1)
    with pytest.raises(type(error)) as told:
        _patience(tmp_path, lease).insist(ask)
    assert told.value is error
    assert (ask.asked, lease.told) == (1, [])


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), TeacherNotFoundError("there is no config.json")]
)
def test_what_is_missing_while_the_whole_store_is_away_is_asked_for_again(
    tmp_path: Path, error: Exception
) -> None:
    lease, ask = FakeLease(), Flaky(error, 1)
    store = open_store(tmp_path / "store", lambda: False)
    assert Patience(store, lease, 60).insist(ask) == "answer"  # type: ignore[arg-type]
    assert lease.told[0].startswith("the artifact store is away")


@pytest.mark.parametrize("seconds", [0, 0.7])
def test_it_ends_in_time_with_the_store_s_error(tmp_path: Path, seconds: float) -> None:
    lease, started = FakeLease(), time.monotonic()
    with pytest.raises(StoreError, match="the artifact store does not work: Input/output error"):
        _patience(tmp_path, lease, seconds).insist(Flaky(OSError(errno.EIO, "why"), 99))
    assert seconds <= time.monotonic() - started < seconds + 5
    assert len(lease.told) == (2 if seconds else 0)


def test_pauses_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("worker.patience.wait", lambda _lease, seconds, _why: waited.append(seconds))
    ask = Flaky(StoreError("away"), 9)
    assert _patience(tmp_path, FakeLease(), 3600).insist(ask) == "answer"
    assert waited == [0.5, 1, 2, 4, 8, 15, 15, 15, 15]


def test_who_is_to_stop_does_not_wait(tmp_path: Path) -> None:
    always: Callable[[], str] = Flaky(StoreError("away"), 99)
    for told in (0, 1):
        lease, started = FakeLease(stop_after=told), time.monotonic()
        with pytest.raises(StoppedError):
            _patience(tmp_path, lease).insist(always)
        assert len(lease.told) == told
        assert time.monotonic() - started < 5
