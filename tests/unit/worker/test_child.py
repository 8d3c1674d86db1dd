"""The thin task's view on the process that runs an attempt."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from tests.servers import wait_until
from worker.child import StopSwitch, _environment, _how, thread_count


def _sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


class TestStopSwitch:
    def test_it_tells_the_child_that_runs(self) -> None:
        with StopSwitch(30) as stop, _sleeper() as child:
            stop.guard(child)
            os.kill(os.getpid(), signal.SIGTERM)
            assert child.wait(10) == -signal.SIGTERM
            assert stop.requested

    def test_it_tells_a_child_that_starts_later(self) -> None:
        with StopSwitch(30) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: stop.requested, "the signal arrives")
            with _sleeper() as child:
                stop.guard(child)
                assert child.wait(10) == -signal.SIGTERM

    def test_a_child_that_does_not_listen_is_killed_when_its_time_is_over(self) -> None:
        deaf = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('deaf', flush=True); time.sleep(60)"
        )
        with (
            StopSwitch(0.2) as stop,
            subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as child,
        ):
            assert child.stdout is not None
            child.stdout.readline()
            stop.guard(child)
            os.kill(os.getpid(), signal.SIGTERM)
            assert child.wait(10) == -signal.SIGKILL

    def test_it_puts_the_former_handler_back(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with StopSwitch(30):
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before


class TestThreads:
    def test_the_setting_wins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert _environment(Settings(data_dir=tmp_path, threads=3))["OMP_NUM_THREADS"] == "3"

    def test_then_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert _environment(Settings(data_dir=tmp_path))["OMP_NUM_THREADS"] == "7"

    def test_then_all_cores_that_it_may_use(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.delenv("GOMP_SPINCOUNT")
        settings = Settings(data_dir=tmp_path)
        environment = _environment(settings)
        assert int(environment["OMP_NUM_THREADS"]) == thread_count(settings) >= 1
        assert environment["GOMP_SPINCOUNT"] == "0"
        assert environment["MUKA_DIE_WITH_PARENT"] == str(os.getpid())


def test_how_a_process_was_lost_is_told_in_words() -> None:
    assert "SIGKILL" in _how(-signal.SIGKILL)
    assert "memory" in _how(-signal.SIGKILL)
    assert "SIGSEGV" in _how(-signal.SIGSEGV)
    assert "status 1" in _how(1)
