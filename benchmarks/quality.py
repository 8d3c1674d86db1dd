"""Every method on real data, three seeds: the table of the README (`make bench-quality`).

A run that was stopped goes on: models and results are kept in `benchmarks/out/quality/`. Several lines and
seeds run at a time (`--jobs`), on the cores or a GPU.
"""

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks._quality_lines import ALL_LINES, LINES, Line

if TYPE_CHECKING:
    from benchmarks._quality_run import LineRun

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
DATA = ROOT.parent / "shared" / "data"

Results = dict[str, dict[str, Any]]
"""By column, as `LineRun.run` answers."""


def quality(
    *,
    data: Annotated[Path, typer.Option(help="Folder that holds clinc150/, ag_news/, ...")] = DATA,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    line: Annotated[list[str] | None, typer.Option(help="Only lines whose name begins so.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this student; several times for more.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    choice: Annotated[
        bool, typer.Option("--choice", help="Only how often the right teacher is chosen, in one pass each.")
    ] = False,
    heads: Annotated[
        bool,
        typer.Option("--heads", help="Only consensus and the perfect choice, with either start of the head."),
    ] = False,
) -> None:
    """Teachers, ensembles, the students of every method, and two students that are not allowed to us."""
    os.environ |= {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    lines = [each for each in ALL_LINES if _wanted(each, line)]
    found: dict[str, list[Any]] = {each.name: [] for each in lines}
    run: Callable[[str, int, Path], Any] = partial(_run, only=only or ())
    name = "quality"
    show: Callable[[Console, Any], None] = _print
    if choice:
        run, name, show = _choose, "choice", _print_choices
    elif heads:
        run, name, show = _start_heads, "heads", _print_heads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        longest_first = sorted(
            lines, key=lambda each: each.epochs * each.corpus / each.batch_size, reverse=True
        )
        asked = {
            pool.submit(run, each.name, seed, data): each
            for seed in range(1, seeds + 1)
            for each in longest_first  # so that at the end no process waits long for the other
        }
        for done in as_completed(asked):
            found[asked[done].name].append(done.result())
    OUT.joinpath(f"{name}.json").write_text(json.dumps({"cores": os.cpu_count(), "lines": found}, indent=1))
    show(Console(highlight=False), found)


def _wanted(line: Line, names: Sequence[str] | None) -> bool:
    if names is None:
        return line in LINES
    return any(line.name.startswith(name) for name in names)


def _run(name: str, seed: int, data: Path, only: Sequence[str]) -> Results:
    """One line and seed, in a process of its own."""
    from benchmarks._quality_run import METHODS  # noqa: PLC0415  (torch takes seconds to load)

    return _line_run(name, seed, data, METHODS).run(only)


def _choose(name: str, seed: int, data: Path) -> dict[str, float]:
    from benchmarks._quality_run import ONE_PASS  # noqa: PLC0415

    return _line_run(name, seed, data, ONE_PASS).choices()


def _start_heads(name: str, seed: int, data: Path) -> Results:
    from benchmarks._quality_run import METHODS  # noqa: PLC0415  (torch takes seconds to load)

    return _line_run(name, seed, data, METHODS).heads()


def _line_run(name: str, seed: int, data: Path, methods: Mapping[str, Mapping[str, Any]]) -> "LineRun":
    from benchmarks._quality_run import LineRun  # noqa: PLC0415
    from demo.encoder import minilm  # noqa: PLC0415
    from worker.muka.fine_tune import default_device  # noqa: PLC0415

    line = next(each for each in ALL_LINES if each.name == name)
    say = lambda text: print(f"{name}, seed {seed}: {text}", flush=True)  # noqa: E731
    return LineRun(line, seed, data, minilm(), OUT / "quality", default_device(), say, methods)


def _print(console: Console, found: Mapping[str, Sequence[Results]]) -> None:
    """Mean accuracy and spread over the seeds: one column a way, one row a line."""
    ways = list(next(iter(found.values()))[0])[1:]
    table = Table(
        title="Accuracy on the test, %: mean (standard deviation over seeds), classes that are gone",
        title_justify="left",
    )
    for heading in ("", "best teacher", "largest logit", "ensemble", *ways):
        table.add_column(heading, justify="right" if heading else "left")
    for name, results in found.items():
        teachers = [each["teachers"] for each in results]
        together = [[each[way] for each in teachers] for way in ("largest logit", "ensemble")]
        columns = [[max(each["alone"]) for each in teachers], *together]
        students = [_accuracy([each[way] for each in results]) for way in ways]
        table.add_row(name, *map(_mean_and_spread, columns), *students)
    console.print(table)
    for told in [*lost_classes(found), *found_strangers(found)]:
        console.print(told)


def lost_classes(found: Mapping[str, Sequence[Results]]) -> list[str]:
    """Each class that has vanished for the student of consensus in a run, and how `muka`'s knows it there."""
    return [
        f"{name}: {label} is gone with consensus; muka finds {each['muka']['recall'][label]:.0%} of its texts"
        for name, results in found.items()
        for each in results
        if {"consensus", "muka"} <= each.keys()
        for label, recall in each["consensus"]["recall"].items()
        if recall == 0.0
    ]


def found_strangers(found: Mapping[str, Sequence[Results]]) -> list[str]:
    """How many texts that no teacher knows are orphans, summed over the runs, and how many of the others."""
    told = []
    for name, results in found.items():
        counts = [each["teachers"]["orphans"] for each in results if "orphans" in each["teachers"]]
        if counts:
            n = {key: sum(count[key] for count in counts) for key in counts[0]}
            told.append(
                f"{name}: {n['found']} of {n['strangers']} texts that no teacher knows are orphans, and "
                f"{n['false']} of the {n['others']} others"
            )
    return told


def _print_choices(console: Console, found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    ways = list(next(iter(found.values()))[0])
    table = Table(title="Texts with the right teacher, %: mean (standard deviation)", title_justify="left")
    for heading in ("", *ways):
        table.add_column(heading, justify="right" if heading else "left")
    for name, results in found.items():
        table.add_row(name, *(_mean_and_spread([each[way] for each in results]) for way in ways))
    console.print(table)


def _print_heads(console: Console, found: Mapping[str, Sequence[Results]]) -> None:
    ways = list(next(iter(found.values()))[0])
    table = Table(
        title="Accuracy on the test, %: mean (standard deviation), classes that are gone",
        title_justify="left",
    )
    for heading in ("", *ways):
        table.add_column(heading, justify="right" if heading else "left")
    for name, results in found.items():
        table.add_row(name, *(_accuracy([each[way] for each in results]) for way in ways))
    console.print(table)


def _accuracy(results: Sequence[Mapping[str, Any]]) -> str:
    """Of a student in some runs, and how many classes have vanished on average, if any."""
    vanished = statistics.fmean(each["vanished"] for each in results)
    accuracy = _mean_and_spread([each["accuracy"] for each in results])
    return f"{accuracy}, {vanished:.1f} gone" if vanished else accuracy


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.1f} ({100 * spread:.1f})"


if __name__ == "__main__":
    typer.run(quality)
