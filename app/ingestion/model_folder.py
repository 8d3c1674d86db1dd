"""Is an unpacked folder a classifier that muka can load? Everything is read, nothing is run."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import Fault, InvalidModelError
from app.ingestion.classifier_config import ClassifierConfig, check_classifier_config
from app.ingestion.model_files import (
    CONFIG,
    INDEX,
    MAX_JSON_BYTES,
    TOKENIZER_CONFIG,
    WEIGHTS,
    has_tokenizer,
    pickles,
)
from app.ingestion.safetensors_header import TensorInfo, read_header

CONVERT = "model.save_pretrained(folder, safe_serialization=True)"


@dataclass(frozen=True)
class CheckedModel:
    """A folder that holds a usable classifier."""

    config: ClassifierConfig
    weights: frozenset[str]
    """Files that hold its weights (and the index of shards)."""
    parameters: int


def check_model_folder(folder: Path, all_files: Collection[str]) -> CheckedModel:
    """Check configuration, weights, head and tokenizer.

    Args:
        folder: With the kept files.
        all_files: Names of all files that came, so that pickled weights are named in the problem.

    Raises:
        InvalidModelError: With the code that says what kind of thing is wrong.
    """
    names = {path.name for path in folder.iterdir()}
    config = check_classifier_config(read_json(folder / CONFIG))
    shards = _weight_files(folder, names, all_files)
    _check_tokenizer(folder, names)
    tensors = _tensors(folder, shards)
    _check_head(config, tensors)
    weights = frozenset(shards if WEIGHTS in names else [*shards, INDEX])
    return CheckedModel(config, weights, sum(tensor.elements for tensor in tensors.values()))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size."""
    problem = "is not a JSON object"
    if path.stat().st_size > MAX_JSON_BYTES:
        raise _refusal(path.name, "json_invalid", f"has more than {MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _refusal(path.name, "json_invalid", "is not valid JSON in UTF-8") from error
    if not isinstance(content, dict):
        raise _refusal(path.name, "json_invalid", problem)
    return content


def _refusal(file: str, fault: str, problem: str, *, code: str | None = None) -> InvalidModelError:
    faults = [Fault(file, fault, f"{file} {problem}")]
    return InvalidModelError(f"{file} {problem}. Nothing was stored", faults=faults, code=code)


def _weight_files(folder: Path, names: set[str], all_files: Collection[str]) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        return _shards(read_json(folder / INDEX), names)
    if found := pickles(all_files):
        problem = (
            "is a pickle, which can run code when it is loaded, and muka loads safetensors only; "
            f"convert the model: {CONVERT}"
        )
        raise _refusal(found[0], "pickled_weights", problem, code="teacher_unsafe_format")
    raise _refusal(WEIGHTS, "no_weights", f"(or {INDEX} and its shards) is missing; write it with {CONVERT}")


def _shards(index: dict[str, Any], names: set[str]) -> list[str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise _refusal(INDEX, "weights_invalid", "has no `weight_map` of tensor to file")
    shards = sorted(set(weight_map.values()))
    missing = [name for name in shards if name not in names or not name.endswith(".safetensors")]
    if missing or not shards:
        named = ", ".join(repr(name[:100]) for name in missing[:5]) or "no file"
        raise _refusal(INDEX, "shard_missing", f"names {named}, which the archive does not have")
    return shards


def _tensors(folder: Path, shards: list[str]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, tensor in read_header(folder / shard).items():
            if name in tensors:
                raise _refusal(
                    shard, "weights_invalid", f"has the tensor {name[:100]!r}, as another shard has"
                )
            tensors[name] = tensor
    return tensors


def _check_tokenizer(folder: Path, names: set[str]) -> None:
    if not has_tokenizer(names):
        problem = (
            "(or vocab.txt, or vocab.json with merges.txt, or a sentencepiece *.model) is missing; "
            "write it beside the model: tokenizer.save_pretrained(folder)"
        )
        raise _refusal("tokenizer.json", "no_tokenizer", problem)
    if TOKENIZER_CONFIG in names and read_json(folder / TOKENIZER_CONFIG).get("auto_map"):
        raise _refusal(
            TOKENIZER_CONFIG, "custom_code", "asks for code of its own (`auto_map`), which muka never runs"
        )


def _check_head(config: ClassifierConfig, tensors: dict[str, TensorInfo]) -> None:
    """Some matrix must have one row a label; embeddings of token types may have two rows by chance."""
    count = len(config.labels)
    if any(len(t.shape) == 2 and t.shape[0] == count and "embed" not in name for name, t in tensors.items()):
        return
    problem = (
        f"have no head: no matrix has {count} rows, one a label of config.json; "
        "save the fine-tuned classifier, not the encoder alone"
    )
    raise _refusal("the weights", "no_head", problem, code="teacher_not_classifier")
