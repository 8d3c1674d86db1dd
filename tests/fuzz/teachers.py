"""A teacher's folder, as the worker loads it: whatever its JSON says, it is a failure that tells why."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import json_bytes, some_bytes, some_json
from tests.fuzz.target import Input, Target
from tests.tiny_models import TEXTS, make_teacher
from worker.failures import failure_of
from worker.muka import Teacher
from worker.muka.errors import MukaLibraryError

_LABELS = ("a", "b", "c")
_ODD: dict[str, Any] = {
    "auto_map": {
        "AutoTokenizer": ["x.Y", None],
        "AutoConfig": "x.Y",
        "AutoModelForSequenceClassification": "x.Y",
    },
    "attn_implementation": "kernels-community/flash-attn2",
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "tokenizer_class": "PreTrainedTokenizerFast",
    "vocab_file": "/etc/passwd",
    "tokenizer_file": "/etc/passwd",
    "added_tokens_decoder": {"7": {"content": "x", "special": True}},
    "extra_special_tokens": ["<x>"],
    "truncation": {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0},
    "pruned_heads": {"0": [1]},
    "dtype": "float32",
}


_TEMPORARY = tempfile.TemporaryDirectory(prefix="muka-fuzz-teacher-")
_FOLDER = make_teacher(Path(_TEMPORARY.name), _LABELS, "bert", seed=1)
"""Made with the module: later, somebody watches for what is written elsewhere."""


@cache
def _json(name: str) -> Any:
    return json.loads((_FOLDER / name).read_bytes())


def make(rng: Random) -> Input:
    """One of the three files that transformers reads."""
    name = rng.choice(("config.json", "tokenizer.json", "tokenizer_config.json"))
    value = some_json(rng, _json(name), rng.randrange(1, 3))
    if rng.random() < 0.3 and isinstance(value, dict):
        key = rng.choice(list(_ODD))
        value[key] = some_json(rng, _ODD[key], rng.randrange(2))
    content = json_bytes(rng, value)
    return Input(name, some_bytes(rng, content, 1) if rng.random() < 0.1 else content)


def read(case: Input, path: Path, folder: Path) -> None:
    """Load it, and let it read a text."""
    for file in _FOLDER.iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / case.kind).write_bytes(case.content)
    teacher = Teacher.load(folder)
    assert type(teacher.model).__module__.startswith("transformers.models.")
    assert type(teacher.tokenizer).__module__.startswith("transformers.")
    assert teacher.tokenizer(list(TEXTS[:2]), truncation=True, max_length=8)["input_ids"]


TEACHERS = Target(
    "teachers",
    make,
    read,
    grown_bytes=1 << 30,
    refusals=(MukaLibraryError,),
    told=lambda error: failure_of(error).message,
    address_bytes=None,
    share=0.1,
)
