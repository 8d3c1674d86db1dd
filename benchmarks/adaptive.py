"""Adaptive K on CLINC150: how many dropout passes it saves, and how often it chooses another teacher.

`make bench-adaptive ARGS='--data ../shared/data/clinc150'`. The teachers of three domains are fine-tuned once
and kept under benchmarks/out. Each text gets K passes; then it is seen where the rule would have stopped, on
the very same passes, so that nothing but the rule makes a difference. How much chance alone does is the
agreement of two seeds, both with all K. It fails if the default bound keeps less than 99.5 % of the choices.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._clinc_data import DOMAINS, Row, load
from demo.encoder import minilm
from worker.muka import SHARD_SIZE, Evidence, LabelSpace, Muka, Sampling, Teacher, Training, fine_tune
from worker.muka.adaptive import Samples, sample_until_decided
from worker.muka.batching import Rows
from worker.muka.forward import Answer
from worker.muka.methods.choosing import teacher_scores
from worker.muka.scoring import ShardSampler

OUT = Path(__file__).with_name("out")
TRAINING = Training(epochs=8, learning_rate=3e-4)
MOST, SEEDS = (8, 16), (1, 2)
DEFAULT = Muka().adaptive_bound
BOUNDS = sorted({0.0, 0.02, DEFAULT, 0.1})
WANTED = 0.995


@dataclass(frozen=True)
class Recorded:
    """A teacher's passes over n texts, drawn once: [n, K, C]."""

    answer: Answer
    passes: Tensor

    def dropout_passes(self, first: int, count: int, rows: Rows) -> Tensor:
        """As a `ShardSampler`."""
        return self.passes[torch.from_numpy(rows), first : first + count]


def main() -> None:
    """Run it, print rows, write benchmarks/out/adaptive.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clinc150"))
    parser.add_argument("--seed", type=int, default=1, help="of the split and the teachers")
    arguments = parser.parse_args()
    split = load(arguments.data, arguments.seed)
    teachers = [_teacher(domain, split.teachers, arguments.seed) for domain in DOMAINS]
    texts = [row.text for row in split.corpus[::2]][:SHARD_SIZE]
    rows = list(_rows(teachers, texts))
    (OUT / "adaptive.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        sys.stdout.write(" ".join(f"{key}={value}" for key, value in row.items()) + "\n")
    if any(row["bound"] == DEFAULT and row["same_teacher"] < WANTED for row in rows):
        sys.exit(f"the default bound {DEFAULT} keeps less than {WANTED:.1%} of the choices")


def _teacher(domain: str, rows: Sequence[Row], seed: int) -> Teacher:
    folder = OUT / f"adaptive-{seed}-{domain}"
    if not (folder / "model.safetensors").exists():
        mine = [row for row in rows if row.domain == domain]
        texts, labels = [row.text for row in mine], [row.label for row in mine]
        fine_tune(minilm(), texts, labels, training=replace(TRAINING, seed=seed), output_dir=folder)
    return Teacher.load(folder)


def _rows(teachers: Sequence[Teacher], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    by_seed = {seed: [_record(teacher, texts, seed) for teacher in teachers] for seed in SEEDS}
    for k in MOST:
        fixed = {seed: choices(space, records, k, bound=None)[0] for seed, records in by_seed.items()}
        chance = _share(fixed[SEEDS[0]], fixed[SEEDS[1]])
        for seed, records in by_seed.items():
            for bound in BOUNDS:
                chosen, passes = choices(space, records, k, bound)
                yield {
                    "k": k,
                    "seed": seed,
                    "bound": bound,
                    "passes_per_text": round(passes, 2),
                    "same_teacher": _share(chosen, fixed[seed]),
                    "two_seeds_with_fixed_k": chance,
                }


def _record(teacher: Teacher, texts: Sequence[str], seed: int) -> Recorded:
    sampler = ShardSampler(teacher, texts, seed=seed, shard=0, max_length=TRAINING.max_length)
    passes = sampler.dropout_passes(0, max(MOST), np.arange(len(texts)))
    return Recorded(sampler.deterministic(), passes)


def choices(
    space: LabelSpace, records: Sequence[Recorded], k: int, bound: float | None, score: str = "entropy"
) -> tuple[Tensor, float]:
    """The most certain teacher of each text [n], and the mean of passes taken; None: all K."""
    samples = [Samples(record, record.answer, sampled=True) for record in records]
    n, sampling = len(records[0].answer.logits), Sampling(passes=k, adaptive_bound=bound, score=score)
    if bound is None:
        for sample in samples:
            sample.take(0, k, np.arange(n))
    else:
        sample_until_decided(samples, space, n, sampling, torch.device("cpu"))
    outputs = [sample.outputs() for sample in samples]
    chosen = teacher_scores(Evidence(space, outputs), sampling.score).argmax(-1)
    return chosen, outputs[0].passes.float().mean().item()


def _share(one: Tensor, other: Tensor) -> float:
    return round((one == other).float().mean().item(), 5)


if __name__ == "__main__":
    main()
