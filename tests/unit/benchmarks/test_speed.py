from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks._arithmetic import forward_flops, matmul_rate
from benchmarks._speed_setting import LONG, _joined
from benchmarks.plain_muka import PlainSettings, PlainTeacher, golden_supervision, plain_muka
from benchmarks.speed import _summary
from tests.tiny_models import TEXTS, make_encoder, make_teacher
from worker.muka import LabelSpace, Muka, Sampling, Teacher, create_student, score_shard
from worker.muka.methods import Evidence

SETTINGS = PlainSettings(max_length=24, passes=2, batch_size=5, epochs=2, learning_rate=1e-3)


@pytest.fixture
def teachers(tmp_path: Path) -> list[Teacher]:
    folders = [
        make_teacher(tmp_path / "-".join(labels), labels, seed=seed, dropout=False)
        for seed, labels in enumerate((["a", "b", "c"], ["c", "d"]))
    ]
    return [Teacher.load(folder, precision="float32") for folder in folders]


@pytest.fixture
def plain(teachers: list[Teacher]) -> list[PlainTeacher]:
    places = [torch.tensor([0, 1, 2]), torch.tensor([2, 3])]
    return [PlainTeacher(t.model, t.tokenizer, at) for t, at in zip(teachers, places, strict=True)]


def test_the_plain_procedure_and_the_engine_are_the_same_method(teachers, plain):
    """Without dropout nothing is left to chance, and both must give the same supervision."""
    q, margin = golden_supervision(plain, TEXTS, 4, SETTINGS)
    outputs = [score_shard(t, TEXTS, sampling=Sampling(), shard=0, max_length=24) for t in teachers]
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    ours = Muka(mc_samples=2).supervise(Evidence(space, outputs)).columns
    torch.testing.assert_close(q, ours["q"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(margin, ours["m"], atol=1e-5, rtol=1e-5)


def test_the_plain_procedure_samples_and_learns(tmp_path):
    folders = [make_teacher(tmp_path / name, [name, "other"], seed=3) for name in "ab"]
    loaded = [Teacher.load(folder, precision="float32") for folder in folders]
    plain = [PlainTeacher(t.model, t.tokenizer, torch.tensor([i, 2])) for i, t in enumerate(loaded)]
    one, other = (golden_supervision(plain, TEXTS, 3, SETTINGS)[1] for _ in range(2))
    assert not torch.equal(one, other)
    student = create_student(make_encoder(tmp_path / "encoder"), ["a", "b", "other"], seed=1)
    longer = replace(SETTINGS, epochs=12)
    losses = plain_muka(plain, student.model, student.tokenizer, TEXTS, longer)
    assert len(losses) == 12 * 3
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])


def test_the_arithmetic_of_a_small_model_by_hand(teachers):
    width, between, layers, length = 32, 64, 2, 10
    weights = 4 * width * width + 2 * width * between
    by_hand = layers * (2 * weights * length + 4 * length**2 * width)
    assert forward_flops(teachers[0].model, np.array([length])) == by_hand
    assert forward_flops(teachers[0].model, np.array([length, length])) == 2 * by_hand


def test_a_matrix_product_has_a_rate():
    assert matmul_rate(64, torch.float32, torch.device("cpu"), seconds=0.0) > 1e6


def test_ratios_are_between_medians_and_the_share_is_that_of_the_slower_setting():
    def one(plain: float, share: float) -> dict[str, float]:
        found = {"plain": plain, "fixed": 0.1, "adaptive": 0.05}
        return {**found, "fixed_gemm_share": share, "adaptive_gemm_share": 0.2}

    summary = _summary({"short": [one(1.0, 0.5), one(3.0, 0.5), one(2.0, 0.9)], "long": [one(1.0, 0.6)]})
    assert summary["short_fixed_ratio"] == pytest.approx(20)
    assert summary["long_adaptive_ratio"] == pytest.approx(20)
    assert summary["gemm_share"] == 0.5


def test_long_texts_are_joined_of_one_label_and_long_enough():
    rows = [(f"{label} " * 30, label) for label in ("a", "b") * 12]
    joined = list(_joined(rows, 3))
    assert len(joined) == 3
    assert all(len(text.split()) >= LONG and len(set(text.split())) == 1 for text in joined)
