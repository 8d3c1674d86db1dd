"""MUKA on CLINC150: three teachers, 45 intents, one student, through the REST API (`make bench-clinc`).

A run that was stopped goes on: models and results of each seed are kept in `benchmarks/out/clinc/`.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.client import MukaClient
from benchmarks._clinc_data import load
from benchmarks._clinc_seed import SeedRun, Settings
from demo.embedded_service import embedded_service

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
DATA = ROOT.parent / "shared" / "data"


def clinc(
    data: Annotated[Path, typer.Option(help="Folder that holds clinc150/.")] = DATA,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
) -> None:
    """Teachers, their naive combination, the student, and a student on gold labels."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # torch's threads must not spin where the service works
    console, settings = Console(highlight=False), Settings()
    results = [_seed(console, settings, data / "clinc150", seed) for seed in range(1, seeds + 1)]
    summary = {
        part: summarised([result[part] for result in results])
        for part in ("accuracy", "right_teacher", "stage_seconds", "seconds")
    }
    OUT.joinpath("clinc.json").write_text(
        json.dumps(
            {"settings": asdict(settings), "cores": os.cpu_count(), **summary, "seeds": results}, indent=1
        )
    )
    _print(console, summary, len(results))


def _seed(console: Console, settings: Settings, data: Path, seed: int) -> dict[str, Any]:
    """The result of one seed, from an earlier run when there is one with these settings."""
    folder = OUT / "clinc" / f"seed-{seed}"
    kept = folder / "result.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text())
        if result["settings"] == asdict(settings):
            console.print(f"seed {seed}: from {kept.relative_to(ROOT)}")
            return result
    with embedded_service(folder / "service") as service, MukaClient(service.url) as client:
        run = SeedRun(
            settings, load(data, seed), seed, folder, lambda text: console.print(f"seed {seed}: {text}")
        )
        result = run.run(client)
    kept.write_text(json.dumps(result, indent=1))
    return result


def summarised(results: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and spread (standard deviation over the seeds) of every figure that all seeds have."""
    names = [name for name in results[0] if all(name in result for result in results)]
    columns = {name: [result[name] for result in results] for name in names}
    return {
        name: {
            "mean": statistics.fmean(values),
            "spread": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
        for name, values in columns.items()
    }


def _print(console: Console, summary: Mapping[str, Mapping[str, Mapping[str, float]]], seeds: int) -> None:
    accuracy = Table(
        title=f"CLINC150, 45 intents, 1,350 test texts: accuracy over {seeds} seeds", title_justify="left"
    )
    for heading in ("", "mean", "spread"):
        accuracy.add_column(heading, justify="right" if heading else "left")
    for name, value in {**summary["accuracy"], **summary["right_teacher"]}.items():
        accuracy.add_row(name, f"{100 * value['mean']:.1f} %", f"{100 * value['spread']:.1f}")
    console.print(accuracy)
    times = Table(title="Wall time by stage, seconds", title_justify="left")
    for heading in ("", "mean", "spread"):
        times.add_column(heading, justify="right" if heading else "left")
    own = {f"(outside of the job) {name}": value for name, value in summary["seconds"].items()}
    for name, value in {**summary["stage_seconds"], **own}.items():
        times.add_row(name, f"{value['mean']:.1f}", f"{value['spread']:.1f}")
    console.print(times)


if __name__ == "__main__":
    typer.run(clinc)
