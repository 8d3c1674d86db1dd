"""A real API process stays small while large files pass through it."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from app.persistence import migrate
from tests.servers import free_port, wait_until
from tests.unit.app.ingestion.archives import model_files

MB = 1 << 20


class _Service:
    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client) -> None:
        self.process = process
        self.client = client

    def upload(self, route: str, name: str, file: BinaryIO) -> httpx.Response:
        return self.client.post(route, params={"filename": name}, content=file)

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory(self, field: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) << 10


@pytest.fixture
def service(tmp_path: Path) -> Iterator[_Service]:
    migrate.upgrade(f"sqlite:///{tmp_path / 'muka.db'}")
    port = free_port()
    command = [
        "-m",
        "uvicorn",
        "--factory",
        "app.main:create_app",
        "--port",
        str(port),
        "--log-level=warning",
    ]
    environment = os.environ | {"MUKA_DATA_DIR": str(tmp_path)}
    with (
        subprocess.Popen([sys.executable, *command], env=environment) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        try:
            wait_until(lambda: _answers(client), "the API listens")
            yield _Service(process, client)
        finally:
            process.terminate()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_large_uploads_leave_the_memory_flat(service: _Service, tmp_path: Path) -> None:
    texts, model = tmp_path / "texts.txt", tmp_path / "model.tar"
    with texts.open("wb") as file:
        for number in range(150_000):
            file.write(b"%0400d\n" % number)
    _sparse_model(model, 200 * MB)
    small = io.BytesIO(b"a first corpus\nloads pyarrow\n")
    assert service.upload("/corpora", "small.txt", small).status_code == 201
    before = service.memory("VmRSS")
    assert before < 180 * MB
    service.forget_peak()
    for route, path in (("/corpora", texts), ("/models", model)):
        with path.open("rb") as file:
            answer = service.upload(route, path.name, file)
            assert answer.status_code == 201, answer.text
    assert service.memory("VmHWM") - before < 40 * MB


def _sparse_model(target: Path, size: int) -> None:
    folder = target.parent / "model"
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    with (folder / "README.md").open("wb") as readme:
        readme.truncate(size)
    with tarfile.open(target, "w") as archive:
        archive.add(folder, "model")
