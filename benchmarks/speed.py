"""The engine against the plain procedure: same texts, teachers, student, process and threads, in turns.

`make bench-speed` takes under ten minutes on two cores (the first run fine-tunes four teachers, too). A job
is K = 16 passes of two MiniLM teachers and three epochs of a MiniLM student. The plain procedure costs the
same for every text and epoch, so it is timed on one batch of 32 texts and one epoch a round, and multiplied.
Figures are seconds a text; ratios are between medians. benchmarks/out/speed.json has every single time.
On a machine that others use, `OMP_NUM_THREADS=1` and `--clock cpu` are fairer than the time on the wall.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from benchmarks._arithmetic import Clock, forward_flops, matmul_rate, timed
from benchmarks._speed_setting import Setting, long_setting, short_setting
from benchmarks.plain_muka import PlainSettings, PlainTeacher, plain_muka
from demo.encoder import minilm
from worker.muka import Evidence, LabelSpace, Muka, Teacher, Training, create_student, distil, score_corpus
from worker.muka.batching import tokenise

OUT = Path(__file__).with_name("out")
CPU = torch.device("cpu")
PLAIN = PlainSettings()
ENGINE = Training(max_length=PLAIN.max_length)
METHODS = {"fixed": Muka(mc_samples=PLAIN.passes), "adaptive": Muka(mc_samples=PLAIN.passes, adaptive=True)}
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
WANTED = {
    "short_fixed_ratio": 10.0,
    "short_adaptive_ratio": 30.0,
    "long_fixed_ratio": 2.5,
    "long_adaptive_ratio": 7.0,
    "gemm_share": 0.55,
}


@dataclass(frozen=True)
class Line:
    """A setting with everything loaded."""

    setting: Setting
    teachers: Sequence[Teacher]
    plain_teachers: Sequence[PlainTeacher]
    space: LabelSpace
    flops: float
    """Of one pass of both teachers over all texts, padding not counted."""
    tokens: float
    """Mean of a text."""


def main() -> None:
    """Run it, print a table, write benchmarks/out/speed.json."""
    arguments = _arguments()
    settings = [short_setting(arguments.data, arguments.short), long_setting(arguments.data, arguments.long)]
    lines = [_loaded(setting) for setting in settings]
    rounds: dict[str, list[dict[str, float]]] = {line.setting.name: [] for line in lines}
    for number in range(arguments.rounds):
        for line in lines:
            rounds[line.setting.name].append(_round(line, CLOCKS[arguments.clock]))
            sys.stdout.write(f"round {number + 1}, {line.setting.name}: {rounds[line.setting.name][-1]}\n")
            sys.stdout.flush()
    result = {**_summary(rounds), **_circumstances(lines), "clock": arguments.clock, "rounds": rounds}
    OUT.joinpath("speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, wanted in WANTED.items():
        sys.stdout.write(f"{name:22} {result[name]:8.2f}   wanted: {wanted}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--short", type=int, default=512, help="short texts for the engine")
    parser.add_argument("--long", type=int, default=128, help="long texts for the engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    return parser.parse_args()


def _loaded(setting: Setting) -> Line:
    teachers = [Teacher.load(folder) for folder in setting.teachers]
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    plain = [
        PlainTeacher(_float32(teacher.folder), teacher.tokenizer, torch.tensor(places))
        for teacher, places in zip(teachers, _places(space, teachers), strict=True)
    ]
    lengths = [tokenise(t.tokenizer, setting.texts, ENGINE.max_length).lengths for t in teachers]
    flops = sum(forward_flops(t.model, each) for t, each in zip(teachers, lengths, strict=True))
    return Line(setting, teachers, plain, space, flops, float(lengths[0].mean()))


def _float32(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _places(space: LabelSpace, teachers: Sequence[Teacher]) -> Iterator[list[int]]:
    for teacher in teachers:
        yield [space.labels.index(name) for name in teacher.labels if name is not None]


def _round(line: Line, clock: Clock) -> dict[str, float]:
    """Seconds a text of every contestant, one after another, and the share of the matrix product's rate."""
    found = {"plain": _plain_seconds(line, clock)}
    for name, method in METHODS.items():
        rate = matmul_rate(1024, torch.bfloat16, CPU, seconds=0.5, clock=clock)
        stages = _engine_seconds(line, method, clock)
        rate = statistics.mean([rate, matmul_rate(1024, torch.bfloat16, CPU, seconds=0.5, clock=clock)])
        passes = stages.pop("passes")
        found |= {f"{name}_{stage}": seconds for stage, seconds in stages.items()}
        found |= {name: sum(stages.values()), f"{name}_passes": passes, "matmul_gflops": rate / 1e9}
        flops = line.flops / len(line.setting.texts) * (1 + passes)
        found[f"{name}_gemm_share"] = flops / stages["scoring"] / rate
    return {name: round(value, 5) for name, value in found.items()}


def _plain_seconds(line: Line, clock: Clock) -> float:
    texts = line.setting.texts[: PLAIN.batch_size]
    student = create_student(minilm(), line.space.labels, seed=1)
    one_epoch = replace(PLAIN, epochs=1)
    job = lambda: plain_muka(line.plain_teachers, student.model, student.tokenizer, texts, one_epoch)  # noqa: E731
    return timed(job, CPU, clock) * PLAIN.epochs / len(texts)


def _engine_seconds(line: Line, method: Muka, clock: Clock) -> dict[str, float]:
    """By stage; and the mean of the passes that a text took beside the one without dropout."""
    texts = line.setting.texts
    student = create_student(minilm(), line.space.labels, seed=1)
    started = clock()
    outputs = score_corpus(line.teachers, texts, sampling=method.sampling, training=ENGINE)
    scored = clock()
    supervision = method.supervise(Evidence(line.space, outputs, seed=1))
    distil(student, texts, supervision, ENGINE)
    trained = clock()
    passes = outputs[0].passes.float().mean().item()
    n = len(texts)
    return {"scoring": (scored - started) / n, "training": (trained - scored) / n, "passes": passes}


def _summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """The ratios of medians; the share is that of the fixed passes, of the setting where it is lower."""
    found: dict[str, float] = {}
    shares = []
    for name, each in rounds.items():
        median = {key: statistics.median(one[key] for one in each) for key in each[0]}
        found |= {f"{name}_{method}_ratio": median["plain"] / median[method] for method in METHODS}
        found |= {f"{name}_{method}_gemm_share": median[f"{method}_gemm_share"] for method in METHODS}
        found |= {f"{name}_{key}_seconds_a_text": median[key] for key in ("plain", *METHODS)}
        shares.append(median["fixed_gemm_share"])
    return {**found, "gemm_share": min(shares)}


def _circumstances(lines: Sequence[Line]) -> dict[str, Any]:
    texts = {
        line.setting.name: {
            "source": line.setting.source,
            "engine_texts": len(line.setting.texts),
            "plain_texts": PLAIN.batch_size,
            "mean_tokens": round(line.tokens, 1),
        }
        for line in lines
    }
    return {
        "texts": texts,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _cpu() -> str:
    """The model's name, where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
