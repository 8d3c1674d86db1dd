"""Adaptive K on CLINC150, with teachers that were really fine-tuned: two layers of MiniLM, five intents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks._clinc_data import Row, load
from benchmarks.adaptive import Recorded, choices
from demo.encoder import minilm
from worker.muka import LabelSpace, Muka, Teacher, Training, fine_tune
from worker.muka.recipe import SCORES, UNSAMPLED_SCORES
from worker.muka.scoring import ShardSampler

DATA = Path(__file__).resolve().parents[5] / "shared" / "data" / "clinc150"
TRAINING = Training(epochs=3, batch_size=16, learning_rate=5e-4)
K = 16


def five_intents(rows: Sequence[Row], domain: str) -> list[Row]:
    own = [row for row in rows if row.domain == domain]
    intents = sorted({row.label for row in own})[:5]
    return [row for row in own if row.label in intents]


def teacher_of(rows: Sequence[Row], folder: Path) -> Teacher:
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    fine_tune(minilm(), texts, labels, training=TRAINING, layers=2, output_dir=folder)
    return Teacher.load(folder)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real texts of ../shared/data/clinc150 are not there")
def test_at_least_995_of_1000_texts_keep_the_teacher_that_all_k_passes_choose(tmp_path):
    split, domains = load(DATA, seed=1), ("banking", "travel")
    texts = [row.text for domain in domains for row in five_intents(split.corpus, domain)]
    teachers = [teacher_of(five_intents(split.teachers, domain), tmp_path / domain) for domain in domains]
    by_seed = [[_recorded(teacher, texts, seed) for teacher in teachers] for seed in range(4)]
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    assert len(texts) == 500
    for score in sorted(set(SCORES) - UNSAMPLED_SCORES):
        kept, spent = zip(*(_kept_and_spent(space, recorded, score) for recorded in by_seed), strict=True)
        assert sum(kept) / 4 >= 0.995, score
        # Where passes agree, they agree on their mutual information as well: bald decides late.
        assert sum(spent) / 4 < (K if score == "bald" else K / 2), score


def _recorded(teacher: Teacher, texts: Sequence[str], seed: int) -> Recorded:
    sampler = ShardSampler(teacher, texts, seed=seed, shard=0, max_length=128)
    return Recorded(sampler.deterministic(), sampler.dropout_passes(0, K, np.arange(len(texts))))


def _kept_and_spent(space: LabelSpace, recorded: Sequence[Recorded], score: str) -> tuple[float, float]:
    """The share of texts with the same teacher, and the mean of passes."""
    with_all_passes, _ = choices(space, recorded, K, None, score)
    chosen, spent = choices(space, recorded, K, Muka().adaptive_bound, score)
    return (chosen == with_all_passes).double().mean().item(), spent
