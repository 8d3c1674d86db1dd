import gc
import json
import mmap
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

import worker.muka
from tests.tiny_models import TEXTS, make_encoder, make_teacher
from worker.muka import (
    CorpusEmptyError,
    LabelConflictError,
    Muka,
    TeacherNotClassifierError,
    Training,
    amalgamate,
    columns,
    evaluate,
    fine_tune,
)
from worker.muka.student import Student
from worker.muka.teacher import Teacher

METHOD = Muka(mc_samples=2)
TRAINING = Training(epochs=1, batch_size=4, precision="float32")


def test_heterogeneous_teachers_make_one_student_of_a_third_architecture(
    bank_folder, travel_folder, tmp_path
):
    start = make_encoder(tmp_path / "start", "distilbert")
    student = amalgamate(
        [bank_folder, travel_folder],
        TEXTS,
        student=start,
        method=METHOD,
        training=TRAINING,
        output_dir=tmp_path / "student",
        progress=False,
    )
    assert student.labels == ("balance", "transfer", "card", "flight", "hotel")
    assert type(student.model).__name__ == "DistilBertForSequenceClassification"
    report = json.loads(json.dumps(student.report))
    assert sum(report["choice"]["chosen_share"]) == pytest.approx(1.0)
    assert report["training"]["steps"] == 3
    assert (tmp_path / "student" / "README.md").exists()
    answer = pipeline("text-classification", model=str(tmp_path / "student"), device="cpu")("hello")
    assert answer[0]["label"] in student.labels


def test_loaded_teachers_do_as_well_and_a_student_can_teach_again(bank, travel, tmp_path):
    first = amalgamate([bank, travel], TEXTS, layers=1, method=METHOD, training=TRAINING, progress=False)
    first.save(tmp_path)
    assert first.model.config.num_hidden_layers == 1
    second = amalgamate([tmp_path, travel], TEXTS, method=METHOD, training=TRAINING, progress=False)
    assert second.labels == first.labels


def test_the_same_call_gives_the_same_student_bit_for_bit(bank_folder, travel_folder):
    def weights() -> dict[str, torch.Tensor]:
        teachers = [bank_folder, travel_folder]
        return amalgamate(
            teachers, TEXTS, method=METHOD, training=TRAINING, progress=False
        ).model.state_dict()

    one, other = weights(), weights()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_one_teacher_is_in_memory_at_a_time(bank_folder, travel_folder, monkeypatch):
    alive: weakref.WeakSet[Teacher] = weakref.WeakSet()
    most = []
    load = Teacher.load.__func__

    def watched(cls, *arguments, **others) -> Teacher:
        gc.collect()
        most.append(len(alive))
        teacher = load(cls, *arguments, **others)
        alive.add(teacher)
        return teacher

    monkeypatch.setattr(Teacher, "load", classmethod(watched))
    folders = [bank_folder, travel_folder]
    amalgamate(folders, TEXTS, method=METHOD, training=TRAINING, progress=False)
    assert most == [0] * 4, "that each loads is tried before the first is asked"
    gc.collect()
    assert not alive


def test_what_lies_on_disk_meanwhile_changes_nothing_and_leaves_no_file(
    bank_folder, travel_folder, tmp_path, monkeypatch
):
    mapped: list[Path] = []

    def spy(size: int, folder: Path) -> mmap.mmap:
        mapped.append(folder)
        return make(size, folder)

    make = columns.mapped
    monkeypatch.setattr(columns, "mapped", spy)
    texts = TEXTS * 100  # two shards
    folders = [bank_folder, travel_folder]
    here, there = (
        amalgamate(folders, texts, training=TRAINING, progress=False, scratch=scratch)
        for scratch in (None, tmp_path)
    )
    assert all(map(torch.equal, here.model.parameters(), there.model.parameters()))
    assert here.report["teachers"] == there.report["teachers"]
    assert list(tmp_path.iterdir()) == []
    assert set(mapped) == {tmp_path}
    supervision, choice, answers = 2, 3, 1
    assert len(mapped) == 2 * 5 + supervision + choice + answers


def test_what_is_wrong_with_any_teacher_is_told_before_the_first_is_asked(bank_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["worker.muka.amalgamate"], "score_shard", lambda *_, **__: pytest.fail("asked")
    )
    nameless = make_teacher(tmp_path / "nameless", ["LABEL_0", "LABEL_1"])
    with pytest.raises(LabelConflictError):
        amalgamate([bank_folder, nameless], TEXTS, progress=False)
    headless = make_teacher(tmp_path / "headless", ["a", "b"])
    weights = load_file(headless / "model.safetensors")
    save_file(
        {n: w for n, w in weights.items() if not n.startswith("classifier")},
        headless / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(TeacherNotClassifierError):
        amalgamate([bank_folder, headless], TEXTS, progress=False)


def test_one_teacher_or_no_text_is_refused(bank, travel):
    with pytest.raises(ValueError, match="teachers has 1"):
        amalgamate([bank], TEXTS, progress=False)
    with pytest.raises(CorpusEmptyError):
        amalgamate([bank, travel], [], progress=False)


def test_fine_tuning_makes_a_teacher_that_knows_its_labels(encoder_folder, tmp_path):
    gold = ["travel" if "flight" in text or "hotel" in text else "other" for text in TEXTS]
    training = Training(epochs=40, batch_size=4, learning_rate=3e-3, precision="float32")
    teacher = fine_tune(encoder_folder, TEXTS, gold, training=training, output_dir=tmp_path)
    assert teacher.labels == ("other", "travel")
    assert evaluate(Student.load(tmp_path).predict(TEXTS), gold, teacher.labels).accuracy == 1.0


def test_fine_tuning_refuses_labels_that_it_was_not_told_of(encoder_folder):
    with pytest.raises(ValueError, match="labels has"):
        fine_tune(encoder_folder, TEXTS[:1], ["x"], training=TRAINING, label_names=["a", "b"])


class TestPublicSurface:
    def test_it_is_exactly_all(self):
        assert sorted(worker.muka.__all__) == sorted(worker.muka._HOME_OF)
        assert all(getattr(worker.muka, name) is not None for name in worker.muka.__all__)
        with pytest.raises(AttributeError, match="nonsense"):
            _ = worker.muka.nonsense

    def test_a_submodule_does_not_hide_the_function_of_its_name(self):
        code = "import worker.muka.distil; from worker.muka import distil; distil.__code__"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_importing_the_package_its_errors_or_recipe_loads_no_torch(self):
        code = (
            "import sys, worker, worker.muka, worker.muka.errors, worker.muka.recipe;"
            "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tqdm', 'numpy')))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_the_library_imports_nothing_else_of_ours(self):
        code = (
            "import sys, worker.muka as m; [getattr(m, n) for n in m.__all__];"
            "foreign = ('app', 'celery', 'sqlalchemy', 'fastapi');"
            "ours = [n for n in sys.modules if n.split('.')[0] in foreign];"
            "sys.exit(repr(ours) if ours else 0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
