"""Which unpacked folders are classifiers that muka can load."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import InvalidModelError
from app.ingestion.model_folder import CheckedModel, check_model_folder
from tests.tiny_models import ARCHITECTURES, make_encoder, make_teacher
from tests.unit.app.ingestion.archives import CONFIG, model_files, safetensors


def _check(folder: Path, files: dict[str, bytes], others: tuple[str, ...] = ()) -> CheckedModel:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return check_model_folder(folder, {*files, *others})


def _refused(folder: Path, files: dict[str, bytes], *others: str) -> InvalidModelError:
    with pytest.raises(InvalidModelError) as caught:
        _check(folder, files, others)
    assert caught.value.faults
    return caught.value


def _config(**changes: Any) -> bytes:
    return json.dumps(CONFIG | changes).encode()


def test_a_classifier_is_accepted(tmp_path: Path) -> None:
    model = _check(tmp_path, model_files())
    assert model.config.labels == ("refund", "invoice", "other")
    assert model.parameters == 7 * 4 + 3 * 4
    assert model.weights == {"model.safetensors"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_real_classifiers_of_every_architecture_are_accepted(tmp_path: Path, architecture: str) -> None:
    folder = make_teacher(tmp_path / "model", ["yes", "no"], architecture)
    model = check_model_folder(folder, {path.name for path in folder.iterdir()})
    assert model.config.labels == ("yes", "no")
    encoder = make_encoder(tmp_path / "encoder", architecture)
    config = json.loads((folder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config))
    assert "have no head" in _refused(encoder, {}).detail


def test_shards_are_accepted_when_all_are_there(tmp_path: Path) -> None:
    index = {"weight_map": {"classifier.weight": "m-2.safetensors", "x": "m-1.safetensors"}}
    files = model_files() | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "m-1.safetensors": safetensors({"x": [5]}),
        "m-2.safetensors": safetensors({"classifier.weight": [3, 2]}),
    }
    del files["model.safetensors"]
    model = _check(tmp_path, files)
    assert model.weights == {"m-1.safetensors", "m-2.safetensors", "model.safetensors.index.json"}
    assert model.parameters == 11
    (tmp_path / "m-1.safetensors").unlink()
    del files["m-1.safetensors"]
    error = _refused(tmp_path, files)
    assert (error.faults[0].code, "m-1.safetensors" in error.detail) == ("shard_missing", True)


@pytest.mark.parametrize("shard", ["../m.safetensors", "config.json", 5])
def test_an_index_names_only_weights_beside_it(tmp_path: Path, shard: Any) -> None:
    files = model_files() | {
        "model.safetensors.index.json": json.dumps({"weight_map": {"x": shard}}).encode()
    }
    del files["model.safetensors"]
    _refused(tmp_path, files)


def test_pickles_only_is_unsafe_and_says_how_to_convert(tmp_path: Path) -> None:
    files = model_files()
    del files["model.safetensors"]
    error = _refused(tmp_path, files, "pytorch_model.bin", "training_args.bin")
    assert error.problem_code == "teacher_unsafe_format"
    assert "model.save_pretrained(folder, safe_serialization=True)" in error.detail
    assert "pytorch_model.bin" in error.detail


def test_no_weights_at_all(tmp_path: Path) -> None:
    files = model_files()
    del files["model.safetensors"]
    assert _refused(tmp_path, files, "training_args.bin").faults[0].code == "no_weights"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"config.json": b"{nonsense"}, "model_invalid"),
        ({"config.json": b"[]"}, "model_invalid"),
        ({"config.json": b"\xff\xfe"}, "model_invalid"),
        ({"config.json": b"[" * 100_000}, "model_invalid"),
        ({"config.json": b" " * (9 << 20)}, "model_invalid"),
        ({"config.json": _config(architectures=["BertModel"])}, "teacher_not_classifier"),
        ({"config.json": _config(id2label={"0": "score"})}, "teacher_not_classifier"),
        ({"config.json": _config(id2label={"0": "\ud800", "1": "b"})}, "teacher_not_classifier"),
        ({"model.safetensors": safetensors({"classifier.weight": [4, 4]})}, "teacher_not_classifier"),
        ({"model.safetensors": safetensors({"embeddings.weight": [3, 4]})}, "teacher_not_classifier"),
        ({"model.safetensors": b"junk"}, "weights_invalid"),
        ({"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": "x.Y"}}'}, "model_invalid"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, changes: dict[str, bytes], code: str) -> None:
    error = _refused(tmp_path, model_files() | changes)
    assert error.problem_code == code
    assert str(tmp_path) not in error.detail


@pytest.mark.parametrize(
    "tokenizer", [["vocab.txt"], ["vocab.json", "merges.txt"], ["spiece.model"], ["x.tiktoken"]]
)
def test_slow_tokenizers_are_tokenizers(tmp_path: Path, tokenizer: list[str]) -> None:
    files = model_files() | dict.fromkeys(tokenizer, b"x")
    del files["tokenizer.json"]
    assert _check(tmp_path, files)


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    files = model_files() | {"vocab.json": b"{}"}
    del files["tokenizer.json"]
    assert "tokenizer.save_pretrained(folder)" in _refused(tmp_path, files).detail
