"""The API over real HTTP: in a thread of the test's process, or in a process of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.servers import free_port, wait_until


@contextmanager
def live_service(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service that listens until the block ends."""
    with listening(create_app(settings)) as client:
        yield client


@contextmanager
def listening(app: FastAPI) -> Iterator[httpx.Client]:
    """As `live_service`, for tests that look into the application."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the API listens")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def api_process(settings: Settings, port: int | None = None, **environment: str) -> Iterator[tuple[int, int]]:
    """Port and pid of plain uvicorn with the API; it must end within 20 s of SIGTERM."""
    port = port or free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
    own = {
        "MUKA_DATA_DIR": str(settings.data_dir),
        "MUKA_STORE_DIR": str(settings.store_dir),
        "MUKA_DATABASE_URL": str(settings.database_url),
        "MUKA_BROKER_URL": str(settings.broker_url),
    }
    process = subprocess.Popen([*command, "--log-level", "warning"], env={**os.environ, **own, **environment})
    try:
        wait_until(lambda: _answers(port), "the API answers")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False
