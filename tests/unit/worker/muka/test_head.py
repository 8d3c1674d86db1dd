"""The head before the first step: a closed form, on numbers worked out by hand and on every architecture."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification

from tests.tiny_models import ARCHITECTURES, TEXTS, make_encoder, make_tokenizer
from worker.muka import head
from worker.muka.batching import TokenisedTexts, tokenise
from worker.muka.errors import StoppedError
from worker.muka.head import ClassMoments, start_head
from worker.muka.losses import weighted_kl
from worker.muka.student import Student, create_student

LABELS = ["a", "b", "c"]


def _columns(labels: int = len(LABELS)) -> dict[str, Tensor]:
    """Each text has one label, and is rather sure of it."""
    kind = torch.arange(len(TEXTS)) % labels
    q = 0.1 / labels + 0.9 * torch.nn.functional.one_hot(kind, labels)
    return {"q": q, "m": torch.ones(len(TEXTS))}


def _texts(student: Student) -> TokenisedTexts:
    return tokenise(student.tokenizer, TEXTS, 32)


def _logits(student: Student) -> Tensor:
    return student.predict(TEXTS).log()


@pytest.fixture
def student(encoder_folder: Path) -> Student:
    return create_student(encoder_folder, LABELS, seed=1)


def test_two_labels_in_one_direction_by_hand():
    """Texts at -3 and -1 are `a`, those at 1 and 3 are `b`; each label gets one more text, at the mean of 0.

    So the means are ∓4/3, and the variance around them is (9 + 1 + 1 + 9)/4 - 16/9 = 29/9.
    """
    moments = ClassMoments(2, 1)
    features = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=torch.float64)
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    moments.add(features, q, torch.ones(4, dtype=torch.float64))
    weight, bias = moments.discriminant()
    torch.testing.assert_close(weight, torch.tensor([[-12 / 29], [12 / 29]], dtype=torch.float64))
    torch.testing.assert_close(bias, torch.tensor([-8 / 29, -8 / 29], dtype=torch.float64))


def test_variances_are_drawn_to_their_mean_by_hand():
    """As above, and texts differ in a second direction, too, with variance 1, whatever their label.

    The mean of the variances is (29/9 + 1)/2 = 19/9; the first one is drawn by 0.3 to it: 26/9.
    """
    moments = ClassMoments(2, 2)
    features = torch.tensor([[-3.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [3.0, -1.0]], dtype=torch.float64)
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    moments.add(features, q, torch.ones(4, dtype=torch.float64))
    weight, bias = moments.discriminant()
    torch.testing.assert_close(weight, torch.tensor([[-6 / 13, 0.0], [6 / 13, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(bias, torch.tensor([-4 / 13, -4 / 13], dtype=torch.float64))


def test_texts_count_as_much_as_they_are_weighted_and_where_they_lie_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    q = torch.randn(20, 3, generator=generator, dtype=torch.float64).softmax(-1)
    once, parts, moved = (ClassMoments(3, 4) for _ in range(3))
    once.add(torch.cat([features, features[:5]]), torch.cat([q, q[:5]]), torch.ones(25, dtype=torch.float64))
    m = torch.tensor([2.0] * 5 + [1.0] * 15, dtype=torch.float64)
    for part in (slice(0, 7), slice(7, 20)):
        parts.add(features[part], q[part], m[part])
    moved.add(features + 100.0, q, m)
    weight, bias = once.discriminant()
    for found in (parts.discriminant(), moved.discriminant()):
        torch.testing.assert_close(found[0], weight, rtol=1e-6, atol=1e-9)
    logits = features @ weight.T + bias
    torch.testing.assert_close((features + 100.0) @ found[0].T + found[1], logits, rtol=1e-5, atol=1e-6)


def test_a_student_knows_its_texts_before_the_first_step(student):
    columns = _columns()
    before = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
    random_head = weighted_kl(_logits(student), columns["q"], columns["m"])
    assert start_head(student.model, _texts(student), columns, seed=1)
    logits = _logits(student)
    assert weighted_kl(logits, columns["q"], columns["m"]) < 0.5 * random_head
    assert (logits.argmax(-1) == columns["q"].argmax(-1)).float().mean() > 0.8
    changed = {name for name, tensor in student.model.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_it_is_as_sure_as_the_supervision_at_every_temperature(student, encoder_folder):
    columns = _columns()
    start_head(student.model, _texts(student), columns, seed=1)
    loss = weighted_kl(_logits(student), columns["q"], columns["m"])
    for factor in (0.8, 1.25):  # surer or less sure, it would be worse
        assert weighted_kl(factor * _logits(student), columns["q"], columns["m"]) > loss
    warm = create_student(encoder_folder, LABELS, seed=1)
    start_head(warm.model, _texts(warm), columns, seed=1, temperature=2.0)
    torch.testing.assert_close((_logits(warm) / 2).softmax(-1), student.predict(TEXTS), rtol=1e-4, atol=1e-5)


def test_the_same_seed_takes_the_same_sample_of_a_large_corpus(student, monkeypatch):
    monkeypatch.setattr(head, "REFERENCE_TEXTS", len(TEXTS) // 2)
    texts, columns = _texts(student), _columns()
    found, blocks = [], []
    for seed in (1, 1, 2):
        assert start_head(student.model, texts, columns, seed=seed, on_block=lambda: blocks.append(1))
        found.append(student.model.classifier.weight.clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_label_without_texts_starts_where_all_texts_are(student):
    columns = _columns()
    columns["q"] = torch.cat(
        [columns["q"][:, :2] / columns["q"][:, :2].sum(-1, keepdim=True), torch.zeros(len(TEXTS), 1)], -1
    )
    assert start_head(student.model, _texts(student), columns, seed=1)
    torch.testing.assert_close(
        student.model.classifier.weight[2], torch.zeros_like(student.model.classifier.weight[2])
    )
    assert torch.isfinite(_logits(student)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_a_head_that_it_finds(architecture, tmp_path):
    pupil = create_student(make_encoder(tmp_path, architecture), LABELS, seed=1)
    columns = _columns()
    random_head = weighted_kl(_logits(pupil), columns["q"], columns["m"])
    assert start_head(pupil.model, _texts(pupil), columns, seed=1)
    assert weighted_kl(_logits(pupil), columns["q"], columns["m"]) < random_head


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_of_another_kind_stays_as_it_is(bias):
    """GPT-2 answers for every token, as a rule without a bias, and takes the last answer."""
    tokenizer = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        num_labels=3,
        pad_token_id=0,
    )
    model = GPT2ForSequenceClassification(config).eval()
    model.score = torch.nn.Linear(16, 3, bias=bias)
    before = model.score.weight.clone()
    assert not start_head(model, tokenise(tokenizer, TEXTS, 32), _columns(), seed=1)
    assert torch.equal(model.score.weight, before)


def test_texts_that_look_all_the_same_teach_no_head(student):
    before = student.model.classifier.weight.clone()
    texts = tokenise(student.tokenizer, [TEXTS[0]] * len(TEXTS), 32)
    assert not start_head(student.model, texts, _columns(), seed=1)
    assert torch.equal(student.model.classifier.weight, before)


def test_a_reason_to_stop_ends_it_and_leaves_nothing_behind(student):
    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        start_head(student.model, _texts(student), _columns(), seed=1, on_block=stop)
    assert not student.model.classifier._forward_pre_hooks
