import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tiny_models import ARCHITECTURES, TEXTS, make_encoder
from worker.muka.distil import distil
from worker.muka.methods import Supervision
from worker.muka.recipe import Training
from worker.muka.student import Student, create_student
from worker.muka.vocabulary import UsedVocabulary

FEW = TEXTS[:4]
"""Most words of the tokenizer do not occur in them."""
UNCLIPPED = Training(
    epochs=3, batch_size=2, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=1e9, precision="float32"
)


def trained(folder, *, whole_table: bool, monkeypatch) -> dict[str, Tensor]:
    student: Student = create_student(folder, ["a", "b"], seed=1)
    q = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    with monkeypatch.context() as patch:
        if whole_table:
            patch.setattr(UsedVocabulary, "of", classmethod(lambda *_: None))
        distil(student, FEW, Supervision({"q": q, "m": torch.ones(4)}), UNCLIPPED)
    return dict(student.model.state_dict())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_student_is_the_same_bit_for_bit_as_with_the_whole_table(tmp_path, architecture, monkeypatch):
    folder = make_encoder(tmp_path, architecture)
    used = trained(folder, whole_table=False, monkeypatch=monkeypatch)
    whole = trained(folder, whole_table=True, monkeypatch=monkeypatch)
    assert [name for name in whole if not torch.equal(used[name], whole[name])] == []


def test_only_tokens_that_occur_are_trained(encoder_folder):
    student = create_student(encoder_folder, ["a", "b"], seed=1)
    vocabulary = UsedVocabulary.of(student.model, np.array([7, 5, 7], dtype=np.int32), pad_id=0)
    assert vocabulary.weight.shape == (3, 32)
    table = student.model.get_input_embeddings()
    assert torch.equal(vocabulary.weight, table.weight[[0, 5, 7]])
    assert torch.equal(vocabulary.forward(torch.tensor([[7, 0]])), table(torch.tensor([[7, 0]])))


def test_rows_are_written_back_and_the_others_decayed_once(encoder_folder):
    student = create_student(encoder_folder, ["a", "b"], seed=1)
    table = student.model.get_input_embeddings()
    before = table.weight.detach().clone()
    vocabulary = UsedVocabulary.of(student.model, np.array([5], dtype=np.int32), pad_id=0)
    vocabulary.weight.data.fill_(3.0)
    vocabulary.decay(0.5)
    for _ in range(2):
        vocabulary.write_back()
        assert (table.weight[5] == 3.0).all()
        assert torch.equal(table.weight[6], before[6] * 0.5)


def test_embeddings_that_are_other_weights_too_are_left_alone(encoder_folder):
    student = create_student(encoder_folder, ["a", "b"], seed=1)
    student.model.tied = nn.Linear(32, 8)
    student.model.tied.weight = student.model.get_input_embeddings().weight
    assert UsedVocabulary.of(student.model, np.array([5], dtype=np.int32), pad_id=0) is None
