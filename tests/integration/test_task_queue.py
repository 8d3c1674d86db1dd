"""Sending a job's id to a real broker, and being told at once when there is none."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from app.embedded.server_binary import redis_server_binary
from app.task_queue import QUEUE, TaskQueue
from tests.servers import wait_until


@pytest.fixture
def queue(redis_url: str) -> Iterator[TaskQueue]:
    opened = TaskQueue(redis_url)
    yield opened
    opened.close()


def _messages(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen(QUEUE))  # type: ignore[arg-type]


def test_many_threads_share_one_queue(queue: TaskQueue, redis_url: str) -> None:
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda n: queue.enqueue(f"amg-{n}"), range(200)))
    queue.check()
    assert _messages(redis_url) == 200


def test_helpers_are_not_called_again_while_nobody_has_heard(queue: TaskQueue, redis_url: str) -> None:
    for _ in range(3):
        queue.call_for_help("amg-1", 2)
    assert _messages(redis_url) == 2
    queue.call_for_help("amg-1", 3)
    assert _messages(redis_url) == 3


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+socket:///no/such/socket", None])
def test_a_missing_broker_is_told_at_once(url: str | None) -> None:
    queue = TaskQueue(url)
    before = time.monotonic()
    with pytest.raises(OperationalError):
        queue.enqueue("amg-1")
    with pytest.raises(OperationalError):
        queue.check()
    with pytest.raises(OperationalError):
        queue.call_for_help("amg-1", 1)
    assert time.monotonic() - before < 10
    queue.close()


def _start(socket: Path) -> subprocess.Popen[bytes]:
    command = [redis_server_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", str(socket.parent)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(socket.exists, "the socket is there")
    return server


def test_a_broker_on_a_unix_socket_that_dies_hangs_and_comes_back(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    queue = TaskQueue(f"redis+socket://{socket}")
    server = _start(socket)
    queue.enqueue("amg-1")
    queue.call_for_help("amg-1", 2)
    server.kill()
    server.wait()
    socket.unlink()
    with pytest.raises(OperationalError):
        queue.enqueue("amg-2")
    with pytest.raises(OperationalError):
        queue.call_for_help("amg-1", 2)
    server = _start(socket)
    queue.enqueue("amg-3")
    os.kill(server.pid, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(OperationalError):
        queue.enqueue("amg-4")
    with pytest.raises(OperationalError):
        queue.call_for_help("amg-1", 9)
    assert time.monotonic() - before < 10
    os.kill(server.pid, signal.SIGCONT)
    queue.enqueue("amg-5")
    queue.close()
    server.kill()
    server.wait()
