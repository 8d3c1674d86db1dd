"""Training on a GPU: CUDA graphs give what the kernels one by one give."""

from pathlib import Path

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, TEXTS, make_teacher
from worker.muka import StoppedError, Student, Training, amalgamate, create_student, distil
from worker.muka.methods import METHODS, GoldenKL, Supervision, get_method
from worker.muka.step_graphs import StepGraphs

MANY = [" ".join((text, *TEXTS[: i % 5])) for i in range(32) for text in TEXTS]
LABELS = ["a", "b", "c", "d"]
TRAINING = Training(epochs=2, batch_size=16, learning_rate=1e-3, seed=3)


@pytest.fixture
def replayed(monkeypatch) -> list[bool]:
    """For every step whether a graph ran it."""
    found: list[bool] = []
    run = StepGraphs.run

    def spy(graphs: StepGraphs, batch):
        loss = run(graphs, batch)
        found.append(loss is not None)
        return loss

    monkeypatch.setattr(StepGraphs, "run", spy)
    return found


def supervision(n: int = len(MANY)) -> Supervision:
    random = torch.Generator().manual_seed(1)
    q = torch.rand(n, len(LABELS), generator=random)
    columns = {"q": q / q.sum(-1, keepdim=True), "m": torch.rand(n, generator=random)}
    return Supervision(columns, GoldenKL())


def trained(folder: Path, device: torch.device, **settings) -> tuple[Student, list[float]]:
    student = create_student(folder, LABELS, seed=1).to(device)
    losses: list[float] = []
    distil(student, MANY, supervision(), TRAINING, on_step=lambda step: losses.append(step.loss), **settings)
    return student, losses


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graphs_are_captured_and_learn_what_single_kernels_learn(
    tmp_path, gpu, replayed, monkeypatch, architecture
):
    folder = make_teacher(tmp_path, ["x", "y"], architecture)
    student, losses = trained(folder, gpu)
    assert sum(replayed) > len(replayed) / 2
    monkeypatch.setattr(StepGraphs, "prepare", lambda _graphs, _batch: None)
    replayed.clear()
    other, expected = trained(folder, gpu)
    assert not any(replayed)
    assert losses == pytest.approx(expected, rel=0.02)
    for ours, theirs in zip(student.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.05)


def test_the_same_training_gives_the_same_losses_and_every_step_its_own_masks(tmp_path, gpu, replayed):
    folder = make_teacher(tmp_path, ["x", "y"])
    one, other = trained(folder, gpu)[1], trained(folder, gpu)[1]
    assert one == pytest.approx(other, rel=1e-4)

    still = Training(epochs=8, batch_size=12, learning_rate=1e-12, seed=3)
    losses: list[float] = []
    student = create_student(folder, LABELS, seed=1).to(gpu)
    replayed.clear()
    same = [TEXTS[0]] * 12
    distil(student, same, supervision(12), still, on_step=lambda step: losses.append(step.loss))
    assert replayed == [False] * 2 + [True] * 6
    assert len(set(losses)) == 8  # the same texts and weights: only dropout differs


def test_the_random_state_of_the_caller_is_left_alone(tmp_path, gpu, replayed):
    folder = make_teacher(tmp_path, ["x", "y"])
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device=gpu)
    torch.cuda.manual_seed(5)
    trained(folder, gpu)
    assert any(replayed)
    assert torch.equal(torch.rand(3, device=gpu), expected)


def test_a_training_that_was_stopped_goes_on_where_it_was(tmp_path, gpu, replayed):
    folder = make_teacher(tmp_path / "start", ["x", "y"])
    expected, _ = trained(folder, gpu)
    steps: list[bool] = []
    with pytest.raises(StoppedError):
        trained(
            folder,
            gpu,
            should_stop=lambda: len(steps) > 30 or steps.append(True),
            save_checkpoint=lambda checkpoint: checkpoint.write(tmp_path / "checkpoint"),
        )
    resumed, losses = trained(folder, gpu, resume_from=tmp_path / "checkpoint")
    assert 0 < len(losses) < 48
    for ours, theirs in zip(resumed.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.05)


def test_too_little_memory_makes_the_batches_smaller(tmp_path, gpu):
    folder = make_teacher(tmp_path, ["x", "y"], width=256)
    student = create_student(folder, LABELS, seed=1).to(gpu)
    large = Training(epochs=1, batch_size=384, learning_rate=1e-3, precision="float32")
    torch.cuda.empty_cache()
    torch.cuda.reset_accumulated_memory_stats(gpu)
    allowed = torch.cuda.memory_reserved(gpu) + 96 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(gpu)[1], gpu)
    try:
        report = distil(student, MANY, supervision(), large)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
    assert report.micro_batch < 384
    assert torch.cuda.memory_stats(gpu)["num_ooms"] > 0


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"ensemble"}))
def test_every_method_amalgamates_on_a_gpu(tmp_path, gpu, replayed, method):
    teachers = [
        make_teacher(tmp_path / "one", ["a", "b"], "bert"),
        make_teacher(tmp_path / "two", ["c", "d"], "mpnet", seed=1),
    ]
    settings = {"training": TRAINING, "device": gpu, "progress": False}
    student = amalgamate(teachers, MANY, method=get_method(method), **settings)
    assert student.device == gpu
    assert sum(replayed) > len(replayed) / 2
    answers = student.predict(TEXTS)
    torch.testing.assert_close(answers.sum(-1), torch.ones(len(TEXTS)))
    assert answers.std() > 0
