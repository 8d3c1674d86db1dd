"""The settings of the paper in one call each: many, heterogeneous, cross-dataset and overlapping teachers."""

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, TEXTS, make_encoder, make_teacher
from worker.muka import Training, amalgamate, get_method
from worker.muka.student import Student
from worker.muka.teacher import Teacher

TRAINING = Training(epochs=1, batch_size=4, precision="float32")
CORPUS = TEXTS * 4
"""More than three texts a label: `consensus` has clusters to learn."""
METHODS = {"muka": {"mc_samples": 2}, "consensus": {}, "vanilla_kd": {}, "uhc": {}, "dfa": {}, "cfl": {}}
LABELS = ("balance", "flight", "hotel", "visa", "soup", "bread", "eggs", "bill", "gate", "greeting")


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> list[Teacher]:
    """A teacher of every architecture, with a tokenizer of its kind; neighbours share a label.

    They are of three widths.
    """
    root, teachers = tmp_path_factory.mktemp("nine"), []
    for i, architecture in enumerate(ARCHITECTURES):
        width = (32, 48, 16)[i % 3]
        folder = make_teacher(root / architecture, LABELS[i : i + 2], architecture, seed=i, width=width)
        teachers.append(Teacher.load(folder, precision="float32"))
    return teachers


@pytest.mark.parametrize("name", METHODS)
def test_nine_teachers_of_nine_architectures_make_one_student(name, nine, tmp_path):
    assert len({type(teacher.tokenizer.backend_tokenizer.model).__name__ for teacher in nine}) == 3
    student = amalgamate(
        nine,
        CORPUS,
        student=make_encoder(tmp_path / "start", "mpnet", layers=3),  # wider than some, narrower than others
        layers=1,
        method=get_method(name, **METHODS[name]),
        training=TRAINING,
        output_dir=tmp_path / "student",
        progress=False,
    )
    assert student.labels == LABELS, "each shared label once, in the order of the teachers"
    assert student.model.config.num_hidden_layers == 1, "smaller than any of its teachers"
    assert {teacher.model.config.hidden_size for teacher in nine} == {16, 32, 48}
    again = Student.load(tmp_path / "student").predict(TEXTS)
    torch.testing.assert_close(again, student.predict(TEXTS))
    torch.testing.assert_close(again.sum(-1), torch.ones(len(TEXTS)))
