"""What a student says of texts, as the API sends it."""

import json
from pathlib import Path

import pytest

from app.domain.prediction import Question
from app.storage import open_store
from tests.tiny_models import TEXTS, make_teacher
from worker.muka import Student, TeacherNotFoundError
from worker.predicting import load_student, predict

LABELS = ("a", "b", "ü")


def question(texts: list[str], top_k: int | None = None) -> Question:
    return Question(
        student_id="stu-1",
        digest="d",
        storage_prefix="students/stu-1",
        size_bytes=1,
        texts=texts,
        top_k=top_k,
    )


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return Student.load(make_teacher(tmp_path_factory.mktemp("student"), LABELS))


def test_equally_probable_labels_come_in_the_student_s_order(student: Student) -> None:
    indifferent = Student(student.model, student.tokenizer)
    head = indifferent.model.classifier
    before = head.weight.detach().clone(), head.bias.detach().clone()
    head.weight.data.zero_()
    head.bias.data.zero_()
    answer = json.loads(predict(indifferent, question(["hello"]), lambda _: None))
    head.weight.data, head.bias.data = before
    assert [each["label"] for each in answer["data"][0]["top"]] == ["a", "b", "ü"]
    assert answer["data"][0]["probability"] == pytest.approx(1 / 3)


def test_it_can_be_given_up_between_two_batches(student: Student) -> None:
    """64 texts of 64 tokens are one batch of the CPU's budget."""
    seen: list[int] = []

    def give_up(texts: int) -> None:
        seen.append(texts)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        predict(student, question(["flight " * 80] * 256), give_up)
    assert seen == [64]


def test_a_student_comes_out_of_the_store(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    with store.staging() as folder:
        store.put_folder("students/stu-1", make_teacher(folder / "model", LABELS))
    answer = json.loads(
        predict(load_student(store, question([*TEXTS])), question([*TEXTS], 1), lambda _: None)
    )
    assert (answer["student_id"], answer["digest"], len(answer["data"])) == ("stu-1", "d", len(TEXTS))
    store.delete("students/stu-1/model.safetensors")
    with pytest.raises(TeacherNotFoundError):
        load_student(store, question(["hello"]))
