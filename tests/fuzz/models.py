"""What a model's folder says of itself: safetensors headers, configurations, tokenizers."""

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from safetensors import safe_open

from app.ingestion.classifier_config import check_classifier_config
from app.ingestion.model_facts import model_facts
from app.ingestion.model_folder import check_model_folder
from app.ingestion.safetensors_header import read_header
from tests.fuzz.mutate import LARGE, NUMBERS, json_bytes, some_bytes, some_json
from tests.fuzz.target import Input, Target
from tests.unit.app.ingestion.archives import CONFIG, model_files, safetensors

_SHAPES = (
    {"bert.embeddings.weight": [7, 4], "classifier.weight": [3, 4]},
    {"a": []},
    {"a": [0], "b": [2, 0], "c": [1]},
)
_TYPES = ("BOOL", "U8", "I8", "F8_E4M3", "F16", "BF16", "F32", "F64", "I64", "C64", "F4", "f32", "F8_E8M0")
_INDEX = {
    "metadata": {"total_size": 7},
    "weight_map": {"a": "x-1.safetensors", "classifier.weight": "model.safetensors"},
}
_WHOLE = {
    **CONFIG,
    "num_labels": 3,
    "label2id": {"refund": 0, "invoice": 1, "other": 2},
    "problem_type": "single_label_classification",
    "auto_map": None,
    "num_hidden_layers": 2,
    "hidden_size": 4,
    "vocab_size": 7,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attn_implementation": "sdpa",
    "quantization_config": None,
}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "model_max_length": 64,
    "vocab_file": None,
    "auto_map": None,
}


# --- Weights ---------------------------------------------------------------------------------------


def make_weights(rng: Random) -> Input:
    """A header that is nearly right, before content that is nearly as long."""
    content = safetensors(rng.choice(_SHAPES))
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.8:
        header = some_json(rng, header, rng.randrange(1, 4))
    for entry in header.values() if isinstance(header, dict) else ():
        if isinstance(entry, dict) and "dtype" in entry and rng.random() < 0.2:
            entry["dtype"] = rng.choice(_TYPES)
    raw = json_bytes(rng, header)
    if rng.random() < 0.1:
        raw += b" " * rng.randrange(16)
    if rng.random() < 0.3:
        raw = some_bytes(rng, raw, rng.randrange(1, 3))
    told = rng.choice((*NUMBERS, *LARGE, len(raw) + 1, len(raw) - 1)) if rng.random() < 0.1 else len(raw)
    if rng.random() < 0.2:
        body = rng.choice((body[:-1], body + b"\0", b"", body * 2))
    return Input("safetensors", struct.pack("<Q", told % 2**64) + raw + body)


def read_weights(case: Input, path: Path, folder: Path) -> None:
    """What the check lets through is what the library reads."""
    tensors = read_header(path)
    with safe_open(path, "numpy") as opened:
        assert set(opened.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert tuple(opened.get_slice(name).get_shape()) == tensor.shape


# --- Configurations --------------------------------------------------------------------------------

_JSONS = {
    "config.json": _WHOLE,
    "tokenizer_config.json": _TOKENIZER_CONFIG,
    "model.safetensors.index.json": _INDEX,
}


def make_config(rng: Random) -> Input:
    """One of the three files that are parsed."""
    kind = rng.choice(list(_JSONS))
    content = json_bytes(rng, some_json(rng, _JSONS[kind], rng.randrange(1, 5)))
    return Input(kind, some_bytes(rng, content, rng.randrange(1, 3)) if rng.random() < 0.15 else content)


def read_config(case: Input, path: Path, folder: Path) -> None:
    """A folder that is good but for this file."""
    files = model_files() | {case.kind: case.content}
    if case.kind == "model.safetensors.index.json":
        files["x-1.safetensors"] = safetensors({"a": [2]})
        files["y-1.safetensors"] = files.pop("model.safetensors")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if case.kind == "config.json":
        _check_facts(case.content, files)
    checked = check_model_folder(folder, files)
    assert len(checked.config.labels) >= 2
    assert len(set(checked.config.labels)) == len(checked.config.labels)
    assert checked.parameters > 0


def _check_facts(content: bytes, files: dict[str, bytes]) -> None:
    """Read on its own: facts are shown of models, too, that cannot teach."""
    try:
        config: Any = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(config, dict):
        json.dumps([str(value) for value in vars(model_facts(config, files)).values()])
        check_classifier_config(config)


WEIGHTS = Target("weights", make_weights, read_weights, grown_bytes=64 << 20)
CONFIGS = Target("configs", make_config, read_config, grown_bytes=64 << 20)
