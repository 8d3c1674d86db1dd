"""All doors for files of strangers, by name. Each is loaded where it is used: one of them loads torch."""

from importlib import import_module

from tests.fuzz.target import Target

NAMES = {
    "texts": "corpora",
    "parquet": "corpora",
    "archives": "archives",
    "weights": "models",
    "configs": "models",
    "teachers": "teachers",
}


def find(name: str) -> Target:
    """The target of this name."""
    target = getattr(import_module(f"tests.fuzz.{NAMES[name]}"), name.upper())
    assert isinstance(target, Target)
    return target
