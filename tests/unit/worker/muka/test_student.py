import json
import shutil

import pytest
import torch
from transformers import pipeline

from tests.tiny_models import ARCHITECTURES, TEXTS, make_encoder, make_teacher
from worker.muka.errors import StudentNotUsableError, TeacherNotFoundError, TeacherUnsafeFormatError
from worker.muka.student import Student, create_student

LABELS = ["balance", "flight", "hotel"]


def _encoder(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return model.base_model.state_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_usual_encoder_can_become_a_student(architecture, tmp_path):
    student = create_student(make_encoder(tmp_path, architecture), LABELS, seed=1)
    assert student.predict(TEXTS).shape == (len(TEXTS), 3)
    assert student.model.dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_classifiers_encoder_is_kept_and_its_head_is_not_even_where_it_fits(architecture, tmp_path):
    folder = make_teacher(tmp_path, ["a", "b", "c"], architecture)
    source, student = Student.load(folder).model, create_student(folder, LABELS, seed=1).model
    encoder = _encoder(source)
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in _encoder(student).items())
    base = f"{source.base_model_prefix}."
    heads = [(n, p) for n, p in student.named_parameters() if not n.startswith(base) and p.ndim == 2]
    before = source.state_dict()
    assert heads
    assert not any(torch.equal(parameter, before[name]) for name, parameter in heads)


def test_the_head_depends_on_the_seed_alone(encoder_folder):
    def head(seed: int) -> torch.Tensor:
        torch.rand(3)  # whatever was drawn before
        return create_student(encoder_folder, LABELS, seed=seed).model.classifier.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_its_config_names_the_labels(encoder_folder):
    config = create_student(encoder_folder, LABELS, seed=1).model.config
    assert config.id2label == {0: "balance", 1: "flight", 2: "hotel"}
    assert config.label2id == {"balance": 0, "flight": 1, "hotel": 2}
    assert config.problem_type == "single_label_classification"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_layers_can_be_kept_alone(architecture, tmp_path):
    folder = make_encoder(tmp_path, architecture)
    whole, half = create_student(folder, LABELS, seed=1), create_student(folder, LABELS, layers=1, seed=1)
    assert half.model.config.num_hidden_layers == 1
    before = _encoder(whole.model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in _encoder(half.model).items())
    assert half.predict(TEXTS).isfinite().all()


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_are_not_there_are_refused(encoder_folder, layers):
    with pytest.raises(StudentNotUsableError, match=rf"layers is {layers}; allowed: \[1, 2\]"):
        create_student(encoder_folder, LABELS, layers=layers, seed=1)


def test_a_checkpoint_without_the_encoder_is_refused(tmp_path):
    folder = make_encoder(tmp_path / "two", layers=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(StudentNotUsableError, match="lacks"):
        create_student(folder, LABELS, seed=1)


def test_pickles_and_missing_folders_are_refused(encoder_folder, tmp_path):
    with pytest.raises(TeacherNotFoundError):
        create_student(tmp_path / "nowhere", LABELS, seed=1)
    folder = shutil.copytree(encoder_folder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(TeacherUnsafeFormatError):
        create_student(folder, LABELS, seed=1)


def test_predictions_are_in_the_order_of_the_texts_and_do_not_depend_on_batches(encoder_folder):
    student = create_student(encoder_folder, LABELS, seed=1)
    whole = student.predict(TEXTS)
    torch.testing.assert_close(whole.sum(-1), torch.ones(len(TEXTS)))
    torch.testing.assert_close(student.predict(TEXTS, token_budget=1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(student.predict(TEXTS[3:4]), whole[3:4], atol=1e-5, rtol=1e-5)


def test_a_saved_student_is_an_ordinary_hugging_face_classifier(encoder_folder, tmp_path):
    student = create_student(encoder_folder, LABELS, seed=1)
    student.save(tmp_path)
    again = Student.load(tmp_path)
    assert again.labels == tuple(LABELS)
    assert torch.equal(again.predict(TEXTS), student.predict(TEXTS))
    answer = pipeline("text-classification", model=str(tmp_path), device="cpu")(TEXTS[0])
    best = student.predict(TEXTS[:1])[0]
    assert answer[0]["label"] == LABELS[best.argmax()]
    assert answer[0]["score"] == pytest.approx(best.max().item(), abs=1e-4)
