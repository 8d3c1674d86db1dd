"""Whether time a text and memory stay the same, however many texts there are: real jobs, tiny models.

`make bench-scale`, or for a single size `make bench-scale ARGS='--texts 1000000'`. Two teachers with four
labels each and a student, all with two narrow layers: what grows with the corpus is the same for large ones,
while the models' own memory does not depend on the corpus. Sizes take turns, each run in a process of its
own, and the median counts. Batches have 128 texts: with models as narrow as these, writing down the metrics
of a step would otherwise take as long as the step. Anonymous memory is what a process holds; the rest of the
resident set is files that the kernel keeps in memory as long as nobody needs the place.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from app.persistence import migrate
from app.persistence.database import Database
from app.settings import Settings
from app.storage import open_store
from tests.jobs import add_corpus, add_job, add_teacher
from tests.tiny_models import TEXTS, make_teacher

OUT = Path(__file__).with_name("out")
ROOT = Path(__file__).parents[1]
SIZES = (3_000, 10_000, 30_000, 100_000)
WARM_UP = 300
WANTED = 0.10
MIB = 1 << 20


def texts(n: int) -> list[str]:
    """As many different texts of 5 to 25 tokens."""
    return [f"{TEXTS[i % 12]} {TEXTS[i // 12 % 12]} {i}"[: 20 + i % 80] + f" {i}" for i in range(n)]


def measure(
    *sizes: int,
    method: dict[str, Any],
    batch_size: int,
    labels: int = 4,
    width: int = 32,
    precision: str = "float32",
) -> list[dict[str, Any]]:
    """A job over each size of corpus, after a small one, in a process of their own on one core.

    Args:
        sizes: numbers of texts.
        method: of the recipe.
        batch_size: of the training.
        labels: of each teacher.
        width: of the models.
        precision: of their numbers.
    """
    training = {"epochs": 1, "precision": precision, "batch_size": batch_size}
    settings = {"method": method, "training": training}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = _jobs(folder, (WARM_UP, *sizes), labels, width, settings)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "benchmarks._scale_run", str(folder), *jobs]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return [
        {"texts": n, "seconds_per_1000": found["of_texts"] / n * 1000} | found
        for n, found in zip(sizes, json.loads(done.stdout), strict=True)
    ]


def _jobs(folder: Path, sizes: Sequence[int], labels: int, width: int, settings: dict[str, Any]) -> list[str]:
    service = Settings(data_dir=folder)
    migrate.upgrade(service.resolved_database_url())
    database, store = Database(service.resolved_database_url()), open_store(service.resolved_store_dir())
    teachers = []
    for i in range(2):
        names = [f"label {i}.{number}" for number in range(labels)]
        model = make_teacher(folder / f"teacher-{i}", names, seed=i, width=width)
        teachers.append(add_teacher(store, model, names))
    jobs = []
    for n in sizes:
        corpus_id = add_corpus(database, store, texts(n))
        jobs.append(add_job(database, teachers=teachers, corpus_id=corpus_id, **settings))
    database.close()
    return jobs


def _rounds(sizes: Sequence[int], repeats: int, **settings: Any) -> Iterator[dict[str, Any]]:
    for _ in range(repeats):
        for n in sizes:
            (found,) = measure(n, **settings)
            print(_line(found), flush=True)
            yield found


def _line(found: dict[str, Any]) -> str:
    held, rss = found["peak_anonymous_bytes"] / MIB, found["peak_rss_bytes"] / MIB
    return (
        f"{found['texts']:>9,} texts  {found['seconds_per_1000']:.3f} s per 1,000"
        f"  {held:,.0f} MiB held  {rss:,.0f} MiB resident"
    )


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians by size, and how far the sizes lie apart."""
    sizes = sorted({each["texts"] for each in found})

    def medians(field: str) -> dict[str, float]:
        return {str(n): median(each[field] for each in found if each["texts"] == n) for n in sizes}

    times = medians("seconds_per_1000")
    return {
        "seconds_per_1000": times,
        "flatness": max(times.values()) / min(times.values()) - 1,
        "peak_rss_bytes": medians("peak_rss_bytes"),
        "peak_anonymous_bytes": medians("peak_anonymous_bytes"),
        "runs": list(found),
    }


def main() -> None:
    """Run it, print lines, write benchmarks/out/scale.json; 1 when time a text is not flat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, nargs="*", default=SIZES, help="sizes of the corpus")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mc-samples", type=int, default=1)
    parser.add_argument("--method", default="muka", help="one without dropout passes ignores --mc-samples")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=32, help="of the models; MiniLM is 384 wide")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    method = {"name": arguments.method}
    if arguments.method == "muka":
        method["mc_samples"] = arguments.mc_samples
    settings = {
        "method": method,
        "batch_size": arguments.batch_size,
        "width": arguments.width,
        "precision": arguments.precision,
    }
    repeats = arguments.repeats if len(arguments.texts) > 1 else 1
    told = summary(list(_rounds(arguments.texts, repeats, **settings))) | {"settings": settings}
    name = "scale" if len(arguments.texts) > 1 else f"scale-{arguments.texts[0]}"
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"time a text: the slowest size takes {told['flatness']:.1%} more than the fastest")
    sys.exit(told["flatness"] > WANTED)


if __name__ == "__main__":
    main()
