import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fuzz.target import SEEDS
from tests.tiny_models import ARCHITECTURES, TEXTS, make_encoder, make_teacher
from worker.muka.errors import (
    LabelConflictError,
    TeacherNotClassifierError,
    TeacherNotFoundError,
    TeacherUnsafeFormatError,
)
from worker.muka.recipe import Sampling
from worker.muka.scoring import score_shard
from worker.muka.teacher import Teacher

PANIC = SEEDS / "teachers" / "panic-at-the-first-text.tokenizer.json"


@pytest.fixture
def folder(bank_folder: Path, tmp_path: Path) -> Path:
    """A copy of a good teacher, to be spoiled."""
    return shutil.copytree(bank_folder, tmp_path / "teacher")


def _edit_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_usual_architecture_loads_and_scores(architecture, tmp_path):
    teacher = Teacher.load(make_teacher(tmp_path, ["a", "b", "c"], architecture), precision="float32")
    assert teacher.has_dropout
    outputs = score_shard(teacher, TEXTS, sampling=Sampling(passes=2), shard=0, max_length=999)
    assert outputs.logits.shape == (len(TEXTS), 3)
    assert outputs.logits.isfinite().all()
    assert outputs.logits.std(0).min() > 0.05
    assert (outputs.mc_probabilities - outputs.logits.softmax(-1)).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_longest_text_that_a_teacher_admits_to_really_fits(architecture, tmp_path):
    teacher = Teacher.load(make_teacher(tmp_path, ["a", "b"], architecture), precision="float32")
    assert 60 <= teacher.max_length <= 64
    long = ["money " * 100]
    score_shard(teacher, long, sampling=Sampling(), shard=0, max_length=10_000)


def test_a_teacher_is_frozen_and_in_eval_mode(bank):
    assert not any(parameter.requires_grad for parameter in bank.model.parameters())
    assert not any(module.training for module in bank.model.modules())
    assert (bank.num_labels, bank.labels) == (3, ("balance", "transfer", "card"))


def test_its_weights_are_cast_when_asked(bank_folder):
    teacher = Teacher.load(bank_folder, precision="bfloat16")
    assert teacher.model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="weights are bfloat16"):
        score_shard(teacher, TEXTS, sampling=Sampling(), shard=0, max_length=8, precision="float32")


def test_its_digest_changes_with_its_weights_and_not_with_its_name(bank_folder, folder):
    digest = Teacher.load(bank_folder).digest
    assert Teacher.load(folder, name="other").digest == digest
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    assert Teacher.load(folder).digest != digest


def test_labels_can_be_mapped_or_replaced(bank_folder):
    assert Teacher.load(bank_folder, mapping={"card": None}).labels == ("balance", "transfer", None)
    assert Teacher.load(bank_folder, labels=["x", None, "y"]).labels == ("x", None, "y")
    with pytest.raises(ValueError, match="labels has 2 names"):
        Teacher.load(bank_folder, labels=["x", "y"])


class TestRefusals:
    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(TeacherNotFoundError, match=r"no config\.json") as caught:
            Teacher.load(tmp_path / "nowhere")
        assert caught.value.code == "teacher_not_found"

    def test_pickled_weights(self, folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(TeacherUnsafeFormatError, match=r"pytorch_model\.bin") as caught:
            Teacher.load(folder)
        assert caught.value.code == "teacher_unsafe_format"
        assert "safetensors" in caught.value.hint

    def test_no_weights_at_all(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(TeacherNotFoundError, match="no weights"):
            Teacher.load(folder)

    def test_broken_weights(self, folder):
        (folder / "model.safetensors").write_bytes(b"not a model")
        with pytest.raises(TeacherNotFoundError, match="weights cannot be read"):
            Teacher.load(folder)

    @pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForTokenClassification"])
    def test_another_architecture(self, folder, name):
        with pytest.raises(TeacherNotClassifierError, match=name) as caught:
            Teacher.load(_edit_config(folder, architectures=[name]))
        assert caught.value.code == "teacher_not_classifier"

    def test_an_encoder_without_a_head(self, tmp_path):
        with pytest.raises(TeacherNotClassifierError, match="BertModel"):
            Teacher.load(make_encoder(tmp_path))

    def test_a_head_that_was_never_saved_is_named(self, folder):
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(TeacherNotClassifierError, match=r"classifier\.bias, classifier\.weight"):
            Teacher.load(folder)

    def test_a_head_of_another_size(self, folder):
        names = {"0": "a", "1": "b"}
        with pytest.raises(TeacherNotClassifierError, match="do not fit"):
            Teacher.load(_edit_config(folder, id2label=names, label2id={"a": 0, "b": 1}))

    def test_regression(self, folder):
        with pytest.raises(TeacherNotClassifierError, match="one output"):
            Teacher.load(_edit_config(folder, id2label={"0": "score"}, label2id={"score": 0}))

    @pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
    def test_another_problem(self, folder, problem):
        with pytest.raises(TeacherNotClassifierError, match=problem):
            Teacher.load(_edit_config(folder, problem_type=problem))

    def test_code_that_comes_with_a_model_is_never_run(self, folder):
        (folder / "evil.py").write_text("raise SystemExit('was run')")
        changes = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
        with pytest.raises(TeacherNotClassifierError, match="auto_map"):
            Teacher.load(_edit_config(folder, **changes))

    def test_code_of_a_part_is_never_fetched(self, folder):
        _edit_config(folder, attn_implementation="kernels-community/flash-attn2")
        with pytest.raises(TeacherNotClassifierError, match="code of its own") as caught:
            Teacher.load(folder)
        assert "attn_implementation" in caught.value.hint

    def test_a_number_of_layers_that_takes_for_ever_to_build(self, folder):
        with pytest.raises(
            TeacherNotClassifierError, match=r"num_hidden_layers is 1000000; allowed: \[1, 256"
        ):
            Teacher.load(_edit_config(folder, num_hidden_layers=10**6))

    def test_more_weights_than_there_are(self, folder):
        with pytest.raises(
            TeacherNotClassifierError, match=r"asks for 32,\d{3},\d{3},\d{3} weights, there are"
        ):
            Teacher.load(_edit_config(folder, max_position_embeddings=10**9))

    def test_a_tokenizer_that_gives_up_at_its_first_text(self, folder):
        """Rust's panic is no `Exception`."""
        shutil.copyfile(PANIC, folder / "tokenizer.json")
        with pytest.raises(TeacherNotFoundError, match="tokenizer cannot be read"):
            Teacher.load(folder)

    def test_a_config_that_is_no_json(self, folder):
        (folder / "config.json").write_text("{")
        with pytest.raises(TeacherNotClassifierError, match="not JSON"):
            Teacher.load(folder)

    def test_a_tokenizer_that_cannot_be_read(self, folder):
        (folder / "tokenizer.json").write_text("{")
        with pytest.raises(TeacherNotFoundError, match="tokenizer"):
            Teacher.load(folder)

    def test_a_missing_tokenizer(self, folder):
        for path in folder.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(TeacherNotFoundError, match="tokenizer"):
            Teacher.load(folder)

    def test_placeholder_labels(self, tmp_path):
        with pytest.raises(LabelConflictError, match="LABEL_0"):
            Teacher.load(make_teacher(tmp_path, ["LABEL_0", "LABEL_1"]))
