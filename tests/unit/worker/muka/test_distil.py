import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tiny_models import TEXTS
from worker.muka.checkpoint import Checkpoint, CheckpointUnusableError
from worker.muka.columns import Columns
from worker.muka.distil import DistilReport, StepReport, distil, make_optimizer
from worker.muka.errors import (
    CorpusEmptyError,
    DivergedError,
    OutOfMemoryError_,
    StoppedError,
)
from worker.muka.forward import Answer
from worker.muka.losses import weighted_kl
from worker.muka.methods import GoldenKL, Objective, Supervision
from worker.muka.recipe import Training
from worker.muka.schedule import learning_rate_factor
from worker.muka.student import Student, create_student

LABELS = ["balance", "flight", "hotel"]
TRAINING = Training(epochs=2, batch_size=5, learning_rate=1e-3, precision="float32")
STEPS = 6


def _supervision(objective: Objective | None = None, head: str = "random") -> Supervision:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(len(TEXTS), 3, generator=generator).softmax(-1)
    m = torch.rand(len(TEXTS), generator=generator)
    return Supervision({"q": q, "m": m}, objective or GoldenKL(), head=head)


def _weights(student: Student) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in student.model.state_dict().items()}


def _identical(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def new_student(encoder_folder: Path) -> Callable[[], Student]:
    return lambda: create_student(encoder_folder, LABELS, seed=1)


def _train_with_a_stop(
    new_student: Callable[[], Student],
    at: int,
    folder: Path,
    new_objective: Callable[[], Objective] = GoldenKL,
    head: str = "random",
) -> tuple[Student, DistilReport, list[StepReport]]:
    """Stop before step `at`+1, then go on with new objects, as another process would."""
    steps: list[StepReport] = []
    with pytest.raises(StoppedError):
        distil(
            new_student(),
            TEXTS,
            _supervision(new_objective(), head),
            TRAINING,
            on_step=steps.append,
            should_stop=lambda: len(steps) == at,
            save_checkpoint=lambda checkpoint: checkpoint.write(folder),
        )
    torch.rand(5)  # the other process drew other random numbers
    student = new_student()
    student.model.classifier.weight.data.zero_()
    report = distil(
        student,
        TEXTS,
        _supervision(new_objective(), head),
        TRAINING,
        on_step=steps.append,
        resume_from=folder,
    )
    return student, report, steps


class TestReproducibility:
    def test_the_same_request_gives_the_same_student_bit_for_bit(self, new_student):
        one, other = new_student(), new_student()
        distil(one, TEXTS, _supervision(), TRAINING)
        torch.rand(11)
        distil(other, TEXTS, _supervision(), TRAINING)
        assert _identical(_weights(one), _weights(other))

    def test_another_seed_gives_another_student(self, new_student):
        one, other = new_student(), new_student()
        distil(one, TEXTS, _supervision(), TRAINING)
        distil(other, TEXTS, _supervision(), Training(**{**vars(TRAINING), "seed": 2}))
        assert not _identical(_weights(one), _weights(other))

    @pytest.mark.parametrize("head", ["random", "discriminant"])
    @pytest.mark.parametrize("at", range(STEPS))
    def test_an_interruption_changes_nothing_bit_for_bit(self, new_student, tmp_path, at, head):
        whole, steps = new_student(), []
        report = distil(whole, TEXTS, _supervision(head=head), TRAINING, on_step=steps.append)
        student, resumed, resumed_steps = _train_with_a_stop(new_student, at, tmp_path, head=head)
        assert _identical(_weights(student), _weights(whole))
        assert resumed_steps == steps
        assert resumed.epoch_losses == report.epoch_losses
        assert (resumed.resumed_from, resumed.steps) == (at, STEPS)
        assert (report.head, resumed.head) == (head, head)

    def test_bfloat16_training_is_resumed_bit_for_bit_too(self, new_student, tmp_path):
        training = Training(**{**vars(TRAINING), "precision": "bfloat16"})
        whole, steps = new_student(), []
        distil(whole, TEXTS, _supervision(), training)
        with pytest.raises(StoppedError):
            distil(
                new_student(),
                TEXTS,
                _supervision(),
                training,
                on_step=steps.append,
                should_stop=lambda: len(steps) == 3,
                save_checkpoint=lambda checkpoint: checkpoint.write(tmp_path),
            )
        student = new_student()
        assert distil(student, TEXTS, _supervision(), training, resume_from=tmp_path).precision == "bfloat16"
        assert _identical(_weights(student), _weights(whole))

    def test_the_random_state_of_the_caller_is_left_alone(self, new_student):
        student = new_student()
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        distil(student, TEXTS, _supervision(), TRAINING)
        assert torch.equal(torch.rand(1), expected)

    def test_a_head_that_is_the_discriminant_begins_with_a_smaller_loss(self, new_student):
        first: dict[str, float] = {}
        for head in ("random", "discriminant"):
            steps: list[StepReport] = []
            distil(new_student(), TEXTS, _supervision(head=head), TRAINING, on_step=steps.append)
            first[head] = steps[0].loss
        assert first["discriminant"] < first["random"]

    def test_a_head_that_could_not_start_as_it_was_to_is_reported_as_random(self, new_student):
        all_the_same = [TEXTS[0]] * len(TEXTS)
        training = Training(**{**vars(TRAINING), "precision": "float32"})
        report = distil(new_student(), all_the_same, _supervision(head="discriminant"), training)
        assert report.head == "random"


class TestCheckpoints:
    def test_they_are_folders_of_safetensors_and_json(self, new_student, tmp_path):
        _train_with_a_stop(new_student, 3, tmp_path)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]

    def test_they_are_written_as_often_as_asked_but_not_after_the_last_step(self, new_student):
        seen: list[tuple[int, int]] = []

        def note(checkpoint: Checkpoint) -> None:
            seen.append((checkpoint.step, checkpoint.total_steps))

        distil(
            new_student(), TEXTS, _supervision(), TRAINING, save_checkpoint=note, checkpoint_every_seconds=0
        )
        assert seen == [(step, STEPS) for step in range(1, STEPS)]
        distil(
            new_student(),
            TEXTS,
            _supervision(),
            TRAINING,
            save_checkpoint=note,
            checkpoint_every_seconds=3600,
        )
        distil(new_student(), TEXTS, _supervision(), TRAINING, save_checkpoint=note)
        assert len(seen) == STEPS - 1

    def test_writing_them_does_not_change_the_student(self, new_student, tmp_path):
        one, other = new_student(), new_student()
        distil(one, TEXTS, _supervision(), TRAINING)
        write = lambda checkpoint: checkpoint.write(tmp_path / str(checkpoint.step))  # noqa: E731
        distil(other, TEXTS, _supervision(), TRAINING, save_checkpoint=write, checkpoint_every_seconds=0)
        assert _identical(_weights(one), _weights(other))

    @pytest.mark.parametrize("change", [{"learning_rate": 2e-3}, {"epochs": 3}, {"seed": 9}])
    def test_one_of_another_recipe_is_refused(self, new_student, tmp_path, change):
        _train_with_a_stop(new_student, 2, tmp_path)
        other = Training(**{**vars(TRAINING), **change})
        with pytest.raises(CheckpointUnusableError, match="another recipe"):
            distil(new_student(), TEXTS, _supervision(), other, resume_from=tmp_path)

    def test_one_of_another_loss_is_refused(self, new_student, tmp_path):
        _train_with_a_stop(new_student, 2, tmp_path)
        supervision = _supervision(GoldenKL(temperature=2.0))
        with pytest.raises(CheckpointUnusableError, match="another recipe"):
            distil(new_student(), TEXTS, supervision, TRAINING, resume_from=tmp_path)

    @pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"{}", None])
    def test_a_damaged_one_is_refused(self, new_student, tmp_path, name, content):
        _train_with_a_stop(new_student, 2, tmp_path)
        if content is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointUnusableError, match="damaged"):
            distil(new_student(), TEXTS, _supervision(), TRAINING, resume_from=tmp_path)

    def test_one_of_another_corpus_is_refused(self, new_student, tmp_path):
        _train_with_a_stop(new_student, 2, tmp_path)
        with pytest.raises(ValueError, match="corpus"):
            distil(new_student(), TEXTS[::-1], _supervision(), TRAINING, resume_from=tmp_path)


class TestMemory:
    def _refuse_more_than(self, student: Student, limit: int) -> None:
        def refuse(_module, _args, kwargs):
            if len(kwargs["input_ids"]) > limit:
                raise torch.OutOfMemoryError("out of memory")

        student.model.register_forward_pre_hook(refuse, with_kwargs=True)

    def test_smaller_micro_batches_accumulate_to_the_same_gradient(self, encoder_folder):
        def train(limit: int) -> tuple[Student, DistilReport, list[StepReport]]:
            student, steps = create_student(encoder_folder, LABELS, seed=1), []
            for module in student.model.modules():  # so that only the arithmetic differs
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            self._refuse_more_than(student, limit)
            return student, distil(student, TEXTS, _supervision(), TRAINING, on_step=steps.append), steps

        whole, report, steps = train(5)
        parts, other, other_steps = train(2)
        assert (report.micro_batch, other.micro_batch) == (5, 2)
        for one, two in zip(steps, other_steps, strict=True):
            assert two.loss == pytest.approx(one.loss, rel=1e-3)
            assert two.texts == one.texts
        torch.testing.assert_close(parts.predict(TEXTS), whole.predict(TEXTS), atol=1e-3, rtol=1e-3)

    def test_a_single_text_that_does_not_fit_is_an_error(self, new_student):
        student = new_student()
        self._refuse_more_than(student, 0)
        with pytest.raises(OutOfMemoryError_, match="single text"):
            distil(student, TEXTS, _supervision(), TRAINING)


class TestLoop:
    def test_the_student_learns_what_it_is_taught(self, new_student):
        q = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]]).repeat(4, 1)
        student, supervision = new_student(), Supervision({"q": q, "m": torch.ones(len(TEXTS))})
        training = Training(epochs=60, batch_size=4, learning_rate=3e-3, precision="float32")
        report = distil(student, TEXTS, supervision, training)
        assert report.epoch_losses[-1] < 0.2 * report.epoch_losses[0]
        assert torch.equal(student.predict(TEXTS).argmax(-1), supervision.columns["q"].argmax(-1))
        assert not student.model.training

    def test_every_step_is_reported(self, new_student):
        steps: list[StepReport] = []
        distil(new_student(), TEXTS, _supervision(), TRAINING, on_step=steps.append)
        assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
        assert [step.epoch for step in steps] == [0, 0, 0, 1, 1, 1]
        assert sum(step.texts for step in steps) == 2 * len(TEXTS)
        assert steps[0].learning_rate == TRAINING.learning_rate
        assert all(step.total_steps == STEPS and step.grad_norm > 0 for step in steps)

    @pytest.mark.parametrize("broken", [math.nan, math.inf])
    def test_a_loss_that_is_no_number_ends_it_with_a_hint_and_without_an_update(self, new_student, broken):
        student = new_student()
        before = _weights(student)
        supervision = _supervision()
        supervision.columns["m"].fill_(broken)
        with pytest.raises(DivergedError, match="step 1") as caught:
            distil(student, TEXTS, supervision, TRAINING)
        assert caught.value.code == "diverged"
        assert "learning rate" in caught.value.hint
        assert _identical(_weights(student), before)

    def test_a_corpus_of_one_text_is_enough_and_none_is_too_few(self, new_student):
        one = Supervision({"q": torch.tensor([[0.0, 1.0, 0.0]]), "m": torch.ones(1)})
        assert distil(new_student(), TEXTS[:1], one, TRAINING).steps == 2
        with pytest.raises(CorpusEmptyError):
            distil(new_student(), [], Supervision({"q": torch.ones(0, 3), "m": torch.ones(0)}), TRAINING)

    def test_supervision_of_another_number_of_texts_is_refused(self, new_student):
        with pytest.raises(ValueError, match="supervision has 12 rows; allowed: 11"):
            distil(new_student(), TEXTS[1:], _supervision(), TRAINING)

    def test_biases_and_norms_do_not_decay(self, new_student):
        matrices, vectors = make_optimizer(new_student().model, GoldenKL(), TRAINING).param_groups
        assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)
        assert all(parameter.ndim >= 2 for parameter in matrices["params"])
        assert all(parameter.ndim < 2 for parameter in vectors["params"])


class Matching(Objective):
    """Golden supervision and, through an adapter of its own, features to match: what dfa and cfl need."""

    wants_features = True

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(32, 4)
        with torch.no_grad():
            self.adapter.weight.fill_(0.1)
            self.adapter.bias.zero_()

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        assert student.features is not None
        loss = weighted_kl(student.logits, columns["q"], columns["m"])
        return loss + functional.mse_loss(
            self.adapter(student.features.float()), columns["q"][:, :1].expand(-1, 4)
        )


def test_a_methods_own_adapters_are_trained_and_survive_an_interruption(new_student, tmp_path):
    objective, whole = Matching(), new_student()
    before = objective.adapter.weight.detach().clone()
    distil(whole, TEXTS, _supervision(objective), TRAINING)
    assert not torch.equal(objective.adapter.weight, before)
    student, _, _ = _train_with_a_stop(new_student, 3, tmp_path, Matching)
    assert (tmp_path / "objective.safetensors").exists()
    assert _identical(_weights(student), _weights(whole))


class TestSchedule:
    def test_it_rises_linearly_for_a_tenth_then_falls_linearly(self):
        factors = [learning_rate_factor(step, 20, 0.1) for step in range(20)]
        assert factors[:3] == [0.5, 1.0, 1.0]
        assert factors[-1] == pytest.approx(1 / 18)
        assert factors[2:] == sorted(factors[2:], reverse=True)

    @pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("total", [1, 2, 7])
    def test_no_step_is_for_nothing(self, ratio, total):
        assert all(0 < learning_rate_factor(step, total, ratio) <= 1 for step in range(total))


def test_supervision_that_lies_on_disk_is_given_back_to_the_kernel_under_way(
    new_student, tmp_path, monkeypatch
):
    on_disk = Columns(len(TEXTS), tmp_path)
    on_disk.put(0, _supervision().columns)
    let_go: list[int] = []
    steps: list[StepReport] = []
    give_back = Columns.let_go

    def spy(columns: Columns, rows: slice | None = None) -> None:
        let_go.append(len(steps))
        give_back(columns, rows)

    monkeypatch.setattr(Columns, "let_go", spy)
    training = Training(epochs=34, batch_size=len(TEXTS), learning_rate=1e-3, precision="float32")
    one, other = new_student(), new_student()
    distil(one, TEXTS, Supervision(on_disk, GoldenKL()), training, on_step=steps.append)
    assert let_go == [0, 32]
    distil(other, TEXTS, _supervision(), training)
    assert _identical(_weights(one), _weights(other))
