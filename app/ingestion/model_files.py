"""Which files of a Hugging Face folder a classifier is loaded from. All others stay out of the store."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

MAX_JSON_BYTES = 8 << 20
"""Of config.json, the tokenizer's configuration and the index: all are parsed."""

_WANTED = (
    "*.safetensors",
    INDEX,
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "README.md",
    "LICENSE*",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_NO_WEIGHTS = ("training_args.bin", "optimizer.*", "scheduler.*", "rng_state*")


def is_wanted(name: str) -> bool:
    """True for names that may be kept."""
    return name == CONFIG or any(fnmatchcase(name, pattern) for pattern in _WANTED)


def pickles(names: Iterable[str]) -> list[str]:
    """Names of weights that can run code when they are loaded."""
    return sorted(
        name
        for name in names
        if any(fnmatchcase(name, pattern) for pattern in _PICKLES)
        and not any(fnmatchcase(name, pattern) for pattern in _NO_WEIGHTS)
    )


def has_tokenizer(names: Collection[str]) -> bool:
    """True when some tokenizer can be loaded: a fast one, or the vocabulary of a slow one."""
    return (
        "tokenizer.json" in names
        or "vocab.txt" in names
        or {"vocab.json", "merges.txt"} <= set(names)
        or any(name.endswith((".model", ".tiktoken")) for name in names)
    )
