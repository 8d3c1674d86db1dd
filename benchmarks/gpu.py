"""The engine on a GPU: two teachers and a student of the shape of all-mpnet-base-v2 on texts of ag_news.

    make bench-gpu ARGS='--weights FOLDER'

Without --weights the models have that architecture and random weights, which costs the same; without the data
the texts are made up, of the same lengths. `--tiny` proves on any machine in seconds that it all works.
Variants are measured side by side, each for a few seconds, then comes a whole job by the library: K = 16
fixed passes of both teachers over all texts, then three epochs. All goes to benchmarks/out/gpu.json.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks._arithmetic import forward_flops, matmul_rate, timed
from benchmarks._gpu_models import agnews_texts, model_folder
from worker.muka import scoring
from worker.muka.ahead import TokenisedAhead, Upcoming
from worker.muka.amalgamate import score_corpus
from worker.muka.batching import tokenise
from worker.muka.distil import distil
from worker.muka.errors import StoppedError
from worker.muka.fine_tune import default_device
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Muka
from worker.muka.recipe import Sampling, Training
from worker.muka.scoring import SHARD_SIZE, TeacherOutputs, score_shard
from worker.muka.step_graphs import StepGraphs
from worker.muka.student import Student, create_student
from worker.muka.teacher import Teacher

OUT = Path(__file__).with_name("out")
LABELS = (("World", "Sports"), ("Business", "Sci/Tech"))
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all variants share."""

    teachers: Sequence[Teacher]
    folder: Path
    texts: Sequence[str]
    device: torch.device
    peak: float
    """Floating point operations a second of the matrix product."""
    passes: int
    seconds: float
    """For each variant."""

    @property
    def one_shard(self) -> Sequence[str]:
        """The first texts."""
        return self.texts[:SHARD_SIZE]


def main() -> None:
    """Run it, print rows, write benchmarks/out/gpu.json."""
    arguments = _arguments()
    started, device = time.monotonic(), default_device()
    texts, source = agnews_texts(
        arguments.data, min(300, arguments.texts) if arguments.tiny else arguments.texts
    )
    folder, weights = model_folder(OUT, texts, arguments.weights, tiny=arguments.tiny)
    peak = matmul_rate(256 if arguments.tiny else 8192, torch.bfloat16, device)
    teachers = [Teacher.load(folder, labels=names, device=device, name="+".join(names)) for names in LABELS]
    setting = Setting(
        teachers, folder, texts, device, peak, 4 if arguments.tiny else 16, arguments.variant_seconds
    )
    result: Row = {
        "device": _device(device),
        "weights": weights,
        "texts": source,
        "matmul_tflops": peak / 1e12,
    }
    deadline = started + arguments.limit_seconds
    parts: dict[str, Callable[[], Any]] = {
        "scoring": lambda: list(_printed(_scoring(setting, _budgets(arguments)))),
        "training": lambda: list(_printed(_training(setting))),
        "whole_job": lambda: _whole_job(setting, result, deadline - time.monotonic()),
    }
    if arguments.compile:
        parts["compiled"] = lambda: list(_printed(_compiled(setting, result)))
    for name, part in parts.items():
        result[name] = part()
        result["seconds"] = round(time.monotonic() - started, 1)
        OUT.joinpath("gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"whole job {json.dumps(result['whole_job'])}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=29_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ag_news"))
    parser.add_argument("--weights", type=Path, help="folder of all-mpnet-base-v2; random weights without")
    parser.add_argument("--budgets", type=int, nargs="+", help="tokens a batch, one variant each")
    parser.add_argument("--variant-seconds", type=float, default=4.0)
    parser.add_argument("--limit-seconds", type=float, default=285.0, help="for everything")
    parser.add_argument("--compile", action="store_true", help="try torch.compile on the GPU, too")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, few texts: only whether it works")
    return parser.parse_args()


def _budgets(arguments: argparse.Namespace) -> Sequence[int]:
    return arguments.budgets or ((2_048, 4_096) if arguments.tiny else (65_536, 262_144, 131_072))


def _device(device: torch.device) -> Row:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return {
        "name": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
    }


def _scoring(setting: Setting, budgets: Sequence[int]) -> Iterator[Row]:
    """One teacher, one shard after another until the time is up."""
    for budget in budgets:
        yield _score_variant(setting, f"{budget} tokens", budget)
    with _instead(scoring, "suited_attention", lambda _model: nullcontext()):
        name = f"attention as transformers and PyTorch choose it, {budgets[-1]} tokens"
        yield _score_variant(setting, name, budgets[-1]) | {"not_ours": True}


@contextmanager
def _instead(place: Any, name: str, value: object) -> Iterator[None]:
    """Another value for a name within the block."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def _compiled(setting: Setting, measured: Mapping[str, Any]) -> Iterator[Row]:
    """torch.compile of every layer, with the best budget; the first shard tells what compiling costs."""
    budget, teacher = _best(measured["scoring"])["token_budget"], setting.teachers[0]
    _ = teacher.drops_for_all_texts  # hooks the layers, which would be compiled again
    layers: Any = teacher.model.base_model
    for layer in layers.encoder.layer:
        layer.compile(dynamic=True)
    yield _score_variant(setting, f"torch.compile, {budget} tokens", budget)


def _best(rows: Sequence[Row]) -> Row:
    """Of the engine's own."""
    return max((row for row in rows if "not_ours" not in row), key=lambda row: row["tokens_per_second"])


def _score_variant(setting: Setting, name: str, budget: int) -> Row:
    """Shard after shard, as in a job: what is compiled for the shapes of one is of no use to the next."""
    teacher = setting.teachers[0]
    row: Row = {"variant": name, "token_budget": budget}
    shards = _shards(setting, teacher, budget)
    seconds, flops, tokens = 0.0, 0.0, 0
    done: list[NDArray[np.int64]] = []
    try:
        with _memory(row, setting.device):
            row["first_seconds"] = round(timed(lambda: next(shards), setting.device), 2)
            while seconds < setting.seconds:
                seconds += timed(lambda: done.append(next(shards)), setting.device)
                flops += forward_flops(teacher.model, done[-1]) * (1 + setting.passes)
                tokens += int(done[-1].sum()) * (1 + setting.passes)
    except Exception as error:  # noqa: BLE001  (a variant that fails is a result)
        return {**row, "failed": f"{type(error).__name__}: {error}"[:300], "tokens_per_second": 0}
    row["shards"] = len(done)
    row["tokens_per_second"] = round(tokens / seconds)
    row["share_of_peak"] = round(flops / seconds / setting.peak, 3)
    return row


def _shards(setting: Setting, teacher: Teacher, budget: int) -> Iterator[NDArray[np.int64]]:
    """Scores one at a time, with the next one's tokens made ahead, and answers the lengths of its texts."""
    ahead, sampling = TokenisedAhead(128), Sampling(passes=setting.passes)
    parts = [setting.texts[at : at + SHARD_SIZE] for at in range(0, len(setting.texts), SHARD_SIZE)]
    for shard, texts in cycle(enumerate(parts)):
        following = (shard + 1) % len(parts)
        upcoming = Upcoming(following, partial(parts.__getitem__, following))
        tokens = ahead.take(teacher, shard, texts, upcoming)
        score_shard(
            teacher, texts, sampling=sampling, shard=shard, max_length=128, token_budget=budget, tokens=tokens
        )
        yield tokens.lengths


@contextmanager
def _memory(row: Row, device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield
    if device.type == "cuda":
        row["gigabytes"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)


def _training(setting: Setting) -> Iterator[Row]:
    for size in (32, 128):
        yield _train_variant(setting, f"one launch a step, batches of {size}", Training(batch_size=size))
        with _instead(StepGraphs, "prepare", lambda _graphs, _batch: None):
            name = f"kernel by kernel, batches of {size}"
            yield _train_variant(setting, name, Training(batch_size=size)) | {"not_ours": True}


def _train_variant(setting: Setting, name: str, training: Training) -> Row:
    row: Row = {"variant": name}
    student = _student(setting)
    try:
        with _memory(row, setting.device):
            row |= _train_for(student, setting, replace(training, epochs=1000), warm_up=20.0)
    except Exception as error:  # noqa: BLE001  (a variant that fails is a result)
        return {**row, "failed": f"{type(error).__name__}: {error}"[:300], "tokens_per_second": 0}
    return row


def _student(setting: Setting) -> Student:
    names = [name for names in LABELS for name in names]
    return create_student(setting.folder, names, seed=1).to(setting.device)


def _train_for(student: Student, setting: Setting, training: Training, *, warm_up: float) -> Row:
    """Steps a second after a warm-up: 100 steps (a CPU: 3), and more while they are slow, for `warm_up` s."""
    ends: list[float] = []
    first = time.monotonic()
    warm: list[int] = []
    steps = 100 if setting.device.type == "cuda" else 3

    def on_step(_: object) -> None:
        ends.append(time.monotonic())
        if warm or len(ends) < steps:
            return
        if ends[-1] - ends[-(steps // 3)] < 2.0 or ends[-1] - first > warm_up:
            warm.append(len(ends))

    def should_stop() -> bool:
        return bool(warm) and ends[-1] - ends[warm[0] - 1] > setting.seconds and len(ends) > warm[0]

    supervision = Muka(mc_samples=0).supervise(_evidence(setting, [_random_outputs(setting)] * 2))
    with suppress(StoppedError):
        distil(student, setting.texts, supervision, training, on_step=on_step, should_stop=should_stop)
    done, seconds = len(ends) - warm[0], ends[-1] - ends[warm[0] - 1]
    lengths = tokenise(student.tokenizer, setting.one_shard, 128).lengths
    tokens = float(lengths.mean()) * training.batch_size * done
    flops = 3 * forward_flops(student.model, lengths) / len(lengths) * training.batch_size * done
    return {
        "warm_up_seconds": round(ends[warm[0] - 1] - first, 2),
        "steps_per_second": round(done / seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "share_of_peak": round(flops / seconds / setting.peak, 3),
    }


def _random_outputs(setting: Setting) -> TeacherOutputs:
    n = len(setting.texts)
    logits = torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    passes = torch.zeros(n, dtype=torch.int16)
    return TeacherOutputs(logits, logits.softmax(-1), passes, torch.zeros(n))


def _evidence(setting: Setting, outputs: Sequence[TeacherOutputs]) -> Evidence:
    space = LabelSpace.union([teacher.labels for teacher in setting.teachers])
    return Evidence(space, outputs, student_width=None, seed=1)


def _whole_job(setting: Setting, measured: Mapping[str, Any], seconds: float) -> Row:
    """By the library as it is: as many texts as fit into the time by what was measured."""
    asking, training = _best(measured["scoring"]), measured["training"][0]
    tokens = float(tokenise(setting.teachers[0].tokenizer, setting.one_shard, 128).lengths.mean())
    a_text = 2 * tokens * (1 + setting.passes) / max(asking["tokens_per_second"], 1)
    a_text += 3 * tokens / max(training["tokens_per_second"], 1)
    n = max(64, min(len(setting.texts), int(0.85 * seconds / a_text)))
    job = replace(setting, texts=setting.texts[:n])
    outputs: list[TeacherOutputs] = []
    sampling = Sampling(passes=setting.passes)
    score = timed(
        lambda: outputs.extend(score_corpus(job.teachers, job.texts, sampling=sampling, training=Training())),
        job.device,
    )
    supervision = Muka(mc_samples=0).supervise(_evidence(job, outputs))
    student = _student(job)
    train = timed(lambda: distil(student, job.texts, supervision, Training()), job.device)
    return {
        "texts": n,
        "passes": 1 + setting.passes,
        "scoring_seconds": round(score, 1),
        "training_seconds": round(train, 1),
        "seconds": round(score + train, 1),
        "expected_seconds": round(n * a_text, 1),
    }


def _printed(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        sys.stdout.write(" ".join(f"{key}={value}" for key, value in row.items()) + "\n")
        sys.stdout.flush()
        yield row


if __name__ == "__main__":
    main()
