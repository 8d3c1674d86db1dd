"""How long a prediction takes (`make bench-predictions`): cold and warm, alone and with others.

A student of MiniLM's size (22 million parameters, 45 classes; its head is as drawn, for only time counts)
on an embedded service, asked about the demo's inbox over HTTP by a client that keeps its connection.
Beside it the same texts in this process, without any service: the rest is what the way there and back costs.
Writes benchmarks/out/predictions.json.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from app.client import MukaClient
from app.domain.identifiers import Prefix, new_id
from app.persistence.database import Database
from app.persistence.tables import Student as StudentRow
from app.settings import Settings
from app.storage import open_store
from demo.embedded_service import EmbeddedService, embedded_service
from demo.encoder import minilm
from demo.support_inbox import messages
from worker.muka import Student, create_student

OUT = Path(__file__).with_name("out")
CLASSES = [f"intent_{number}" for number in range(45)]
ROUNDS = {1: 300, 32: 60, 256: 10}
"""How often so many texts are asked."""
CLIENTS = 8


def main() -> None:
    """Run it, show it, write it down."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    student = create_student(minilm(), CLASSES, seed=1)
    with tempfile.TemporaryDirectory() as folder, embedded_service(Path(folder)) as service:
        student_id = _publish(student, Path(folder))
        measured = _measure(service, student_id, student)
    OUT.mkdir(exist_ok=True)
    OUT.joinpath("predictions.json").write_text(json.dumps(measured, indent=1))
    _show(measured)


def _measure(service: EmbeddedService, student_id: str, student: Student) -> dict[str, Any]:
    inbox = [message.text for message in messages("corpus")]
    with MukaClient(service.url, retries=0) as client:

        def ask(texts: Sequence[str]) -> None:
            client.students.predict(student_id, texts)

        cold = _seconds(lambda: ask(inbox[:1]))
        served = {size: _times(ask, inbox, size) for size in ROUNDS}
        with ThreadPoolExecutor(CLIENTS) as clients:
            texts = [[text] for text in inbox[: ROUNDS[1]]]
            together = len(texts) / _seconds(lambda: list(clients.map(ask, texts)))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    alone = {size: _times(student.predict, inbox, size) for size in ROUNDS}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "cold_start_seconds": cold,
        "requests_per_second_of_8_clients": together,
        "service_milliseconds": served,
        "in_process_milliseconds": alone,
    }


def _times(ask: Callable[[Sequence[str]], object], inbox: Sequence[str], size: int) -> dict[str, float]:
    """Milliseconds of a call with so many texts; the first two are not counted."""
    endless = cycle(inbox)
    each = [_seconds(lambda: ask(list(islice(endless, size)))) for _ in range(ROUNDS[size] + 2)][2:]
    return {f"p{share}": 1000 * float(np.percentile(each, share)) for share in (50, 99)}


def _seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def _publish(student: Student, folder: Path) -> str:
    """As the end of a job does, into the service's own database and store."""
    student_id = new_id(Prefix.STUDENT)
    prefix = f"students/{student_id}/attempt-1"
    with _opened(folder / "data") as (settings, database):
        store = open_store(settings.resolved_store_dir())
        with store.staging() as staged:
            student.save(staged / "student")
            size = sum(path.stat().st_size for path in (staged / "student").iterdir())
            store.put_folder(prefix, staged / "student")
        row = StudentRow(
            id=student_id,
            owner="default",
            amalgamation_id=student_id.replace(Prefix.STUDENT, Prefix.AMALGAMATION),
            storage_prefix=prefix,
            size_bytes=size,
            files=[],
            digest="0" * 64,
            architecture=type(student.model).__name__,
            labels=CLASSES,
            parameters=student.model.num_parameters(),
        )
        with database.write() as session:
            session.add(row)
    return student_id


@contextmanager
def _opened(data_dir: Path) -> Iterator[tuple[Settings, Database]]:
    settings = Settings(data_dir=data_dir)
    database = Database(settings.resolved_database_url())
    yield settings, database
    database.close()


def _show(measured: dict[str, Any]) -> None:
    table = Table(
        "texts", "service p50", "service p99", "in process p50", title="Milliseconds a request, warm"
    )
    for size, served in measured["service_milliseconds"].items():
        alone = measured["in_process_milliseconds"][size]
        table.add_row(str(size), f"{served['p50']:.1f}", f"{served['p99']:.1f}", f"{alone['p50']:.1f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"Cold start, the worker's process included: {measured['cold_start_seconds']:.1f} s")
    rate = measured["requests_per_second_of_8_clients"]
    console.print(f"{CLIENTS} clients, one text a request: {rate:.0f} requests/s")
    console.print(f"{measured['cores']} cores, load average {measured['load_average']:.1f}")


if __name__ == "__main__":
    main()
