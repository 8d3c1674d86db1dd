"""Reading a Hugging Face folder with care: local files, safetensors, no foreign code, no noise."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from worker.muka.errors import (
    TeacherNotClassifierError,
    TeacherNotFoundError,
    TeacherUnsafeFormatError,
    is_panic,
)

MAX_LAYERS = 256
"""The deepest have about a hundred; a thousand take half a minute to build."""
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
"""Under the names that the families of transformers give them."""
_MOST_TIMES = 8
"""As many weights as a number of a file may hold, where they are packed."""
_NEW_NUMBERS = 1 << 26
"""That may be missing: an encoder gets a new head."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


class _Quiet:
    """How many blocks want transformers to be quiet now, in all threads, and how loud it was before."""

    lock = Lock()
    blocks = 0
    before = (0, True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars and load reports; our own warnings are not touched."""
    with _Quiet.lock:
        _Quiet.blocks += 1
        if _Quiet.blocks == 1:
            _Quiet.before = logging.get_verbosity(), logging.is_progress_bar_enabled()
            logging.set_verbosity_error()  # type: ignore[no-untyped-call]
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.blocks -= 1
            if not _Quiet.blocks:
                verbosity, bars = _Quiet.before
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def read_config(folder: Path) -> PretrainedConfig:
    """The configuration of a model folder, without running code that comes with it.

    Raises:
        TeacherNotFoundError: No folder, or no config.json in it.
        TeacherNotClassifierError: The config is no JSON object, or its architecture is only in foreign code.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise TeacherNotFoundError(
            f"{folder.name}: there is no config.json", hint="Give a Hugging Face folder."
        )
    content = _read_json(path)
    _refuse_foreign_code(folder, content)
    _refuse_endless_layers(folder, content)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every family checks its fields in its own way
        raise TeacherNotClassifierError(f"{folder.name}: config.json cannot be read: {error}") from error
    if not isinstance(config, PretrainedConfig):
        raise TeacherNotClassifierError(f"{folder.name}: config.json is no model's configuration")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TeacherNotClassifierError(f"{path.parent.name}: {path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise TeacherNotClassifierError(f"{path.parent.name}: {path.name} holds no JSON object")
    return content


def _refuse_foreign_code(folder: Path, content: dict[str, Any]) -> None:
    model_type = content.get("model_type")
    if model_type not in CONFIG_MAPPING:
        foreign = (
            "needs code of its own (auto_map), which is never run"
            if content.get("auto_map")
            else "is unknown"
        )
        raise TeacherNotClassifierError(
            f"{folder.name}: the model type {model_type!r} {foreign}",
            hint="Use an architecture that is part of the transformers library.",
        )
    # transformers takes the code of an attention layer, say, from any repository that a config names.
    named = [name for name in content if name.endswith("_implementation") and "/" in str(content[name])]
    if named:
        raise TeacherNotClassifierError(
            f"{folder.name}: {named[0]} names code of its own, which is never run",
            hint=f"Leave {named[0]} out of config.json.",
        )


def _refuse_endless_layers(folder: Path, content: dict[str, Any]) -> None:
    """A model is built before its weights are looked at, and a number is quickly written."""
    for name in _LAYERS:
        if isinstance(content.get(name), int) and not 1 <= content[name] <= MAX_LAYERS:
            raise TeacherNotClassifierError(
                f"{folder.name}: {name} is {content[name]}; allowed: [1, {MAX_LAYERS}]"
            )


def require_safetensors(folder: Path) -> None:
    """Refuse a folder without safetensors weights.

    Raises:
        TeacherUnsafeFormatError: There are weights, but only in formats that can run code when read.
        TeacherNotFoundError: There are no weights at all.
    """
    if any(folder.glob("*.safetensors")):
        return
    if pickles := sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)):
        raise TeacherUnsafeFormatError(
            f"{folder.name}: the weights are only in {', '.join(pickles)}",
            hint="Convert them with model.save_pretrained(folder), which writes safetensors.",
        )
    raise TeacherNotFoundError(f"{folder.name}: there are no weights (*.safetensors)")


def require_weights_for(folder: Path, config: PretrainedConfig) -> None:
    """Refuse a config that asks for many more weights than there are.

    Minutes and gigabytes would go into drawing them, before anybody saw that they are missing.

    Raises:
        TeacherNotClassifierError: Says how many there are; or the config makes no model at all.
    """
    try:
        with torch.device("meta"), quiet_transformers():
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a config asks for is built in one of a hundred families
        raise TeacherNotClassifierError(
            f"{folder.name}: no model can be made from config.json: {error}"
        ) from error
    asked, there = sum(each.numel() for each in model.parameters()), _numbers_in(folder)
    if asked > _MOST_TIMES * there + _NEW_NUMBERS:
        raise TeacherNotClassifierError(
            f"{folder.name}: the config asks for {asked:,} weights, there are {there:,}",
            hint="Give the config.json that was saved with these weights.",
        )


def _numbers_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  (no mapping)
        except SafetensorError as error:
            raise TeacherNotFoundError(f"{folder.name}: the weights cannot be read: {error}") from error
    return total


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        TeacherNotFoundError: The folder has none, or it cannot be read.
    """
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if isinstance(tokenizer, PreTrainedTokenizerBase):
                tokenizer(["a text", "another one"])  # some faults show at the first text only
    except BaseException as error:  # the Rust tokenizers raise bare Exception on a broken file, and panic
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise TeacherNotFoundError(
            f"{folder.name}: the tokenizer cannot be read: {error}",
            hint="Save it beside the model with tokenizer.save_pretrained(folder).",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or len(tokenizer) <= len(tokenizer.all_special_ids):
        # Without files transformers makes a tokenizer that knows no words, and says nothing.
        raise TeacherNotFoundError(f"{folder.name}: there is no tokenizer with a vocabulary")
    return tokenizer
