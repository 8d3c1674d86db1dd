"""Children that come back when they die, and go when they are told to; and a folder for one alone."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from app.embedded.broker import embedded_broker
from app.embedded.data_lock import DataFolderInUseError, exclusive
from app.embedded.kept_process import KeptProcess
from app.embedded.server_binary import redis_server_binary
from app.processes import kept
from app.task_queue import TaskQueue
from tests.servers import wait_until

ROOT = Path(__file__).parents[4]


def _writer(note: Path, *, deaf: bool = False) -> list[str]:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else ""
    write = f"open({str(note)!r}, 'a').write(str(os.getpid()) + chr(10))"
    return [sys.executable, "-c", f"import os, signal, time; {ignore} {write}; time.sleep(600)"]


def _pids(note: Path) -> list[int]:
    return [int(line) for line in note.read_text().splitlines()] if note.exists() else []


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestKeptProcess:
    def test_it_comes_back_and_somebody_is_told(self, tmp_path: Path) -> None:
        note, told = tmp_path / "pids", []
        process = KeptProcess(
            "sleeper", _writer(note), stop_seconds=5, before_restart=lambda: told.append(len(_pids(note)))
        )
        process.start()
        wait_until(lambda: len(_pids(note)) == 1, "it runs")
        os.kill(_pids(note)[0], signal.SIGKILL)
        wait_until(lambda: len(_pids(note)) == 2, "it runs again")
        process.stop()
        assert told == [1]
        assert all(map(_gone, _pids(note)))

    def test_it_comes_back_although_telling_fails(self, tmp_path: Path) -> None:
        note = tmp_path / "pids"

        def fail() -> None:
            raise RuntimeError("the database is down")

        process = KeptProcess("sleeper", _writer(note), stop_seconds=5, before_restart=fail)
        process.start()
        wait_until(lambda: len(_pids(note)) == 1, "it runs")
        os.kill(_pids(note)[0], signal.SIGKILL)
        wait_until(lambda: len(_pids(note)) == 2, "it runs again")
        process.stop()

    def test_what_does_not_stop_is_ended(self, tmp_path: Path) -> None:
        note = tmp_path / "pids"
        process = KeptProcess("deaf sleeper", _writer(note, deaf=True), stop_seconds=0.2)
        process.start()
        wait_until(lambda: _pids(note), "it runs")
        process.stop()
        assert _gone(_pids(note)[0])

    def test_one_that_is_started_on_demand_may_end_by_itself(self, tmp_path: Path, caplog: Any) -> None:
        note, needed = tmp_path / "pids", threading.Event()

        def until_needed(stopping: threading.Event) -> None:
            wait_until(lambda: needed.is_set() or stopping.is_set(), "it is needed")
            needed.clear()

        write = f"import os; open({str(note)!r}, 'a').write(str(os.getpid()) + chr(10))"
        process = KeptProcess(
            "short", [sys.executable, "-c", write], stop_seconds=5, until_needed=until_needed
        )
        process.start()
        assert _pids(note) == []
        for lives in (1, 2):
            needed.set()
            wait_until(lambda n=lives: len(_pids(note)) == n, "it runs")
        process.stop()
        assert not process._thread.is_alive()
        assert caplog.records == []

    def test_stopping_between_two_lives_ends_it_for_good(self) -> None:
        process = KeptProcess("short", [sys.executable, "-c", "raise SystemExit(4)"], stop_seconds=5)
        process.start()
        process.stop()
        assert not process._thread.is_alive()


class TestKept:
    def test_a_foreign_program_dies_with_the_process_that_keeps_it(self, tmp_path: Path) -> None:
        note = tmp_path / "pids"
        keeper = (
            "import subprocess, sys, time; from app.processes import kept;"
            f"subprocess.Popen(kept({_writer(note)!r})); time.sleep(600)"
        )
        parent = subprocess.Popen([sys.executable, "-c", keeper], cwd=ROOT)
        wait_until(lambda: _pids(note), "the program runs")
        parent.kill()
        parent.wait()
        wait_until(lambda: _gone(_pids(note)[0]), "the program dies", seconds=30)

    def test_its_end_is_the_program_s(self) -> None:
        command = kept([sys.executable, "-c", "raise SystemExit(7)"])
        assert subprocess.run(command, check=False).returncode == 7


class TestDataLock:
    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        with exclusive(tmp_path / "data"):
            refused = pytest.raises(DataFolderInUseError, match=str(os.getpid()))
            with refused, exclusive(tmp_path / "data"):
                pass
        with exclusive(tmp_path / "data"):
            pass


class TestBroker:
    def test_its_queue_survives_its_end_and_its_socket_does_not(self, tmp_path: Path) -> None:
        folder = tmp_path / "broker"
        with embedded_broker(folder) as url:
            queue = TaskQueue(url)
            queue.enqueue("amg-1")
            queue.close()
            socket = Path(url.removeprefix("redis+socket://"))
            assert socket.parent.stat().st_mode & 0o077 == 0
        assert not socket.parent.exists()
        with embedded_broker(folder) as url:
            import redis  # noqa: PLC0415

            with redis.Redis.from_url(url.replace("redis+socket", "unix")) as client:
                assert client.llen("amalgamations") == 1
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert client.config_get("appendonly") == {"appendonly": "yes"}

    def test_there_is_a_server_binary(self) -> None:
        version = subprocess.check_output([redis_server_binary(), "--version"], text=True)
        assert "v=" in version
