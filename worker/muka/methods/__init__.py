"""The ways to make a student from teachers: one method a file, tensors in and tensors out.

Every module of this folder is imported, and every method defined there is registered. So a new method is one
file, and `python -m worker.muka.methods > app/domain/methods.json`, which tells the API of it.
"""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from worker.muka.methods.interface import (
    Evidence,
    GoldenKL,
    Method,
    Need,
    Objective,
    Supervision,
    TeacherChoice,
)
from worker.muka.methods.muka import Muka


def _methods(base: type[Method]) -> Iterator[type[Method]]:
    for method in base.__subclasses__():
        if not inspect.isabstract(method):
            yield method
        yield from _methods(method)


def _registered() -> Mapping[str, type[Method]]:
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            import_module(f"{__name__}.{module.name}")
    found = _methods(Method)  # type: ignore[type-abstract]
    mine = [method for method in found if method.__module__.startswith(f"{__name__}.")]
    return MappingProxyType({method.name: method for method in sorted(mine, key=lambda each: each.name)})


METHODS: Mapping[str, type[Method]] = _registered()
DEFAULT = "consensus"
"""For who names none; `muka` is the paper's."""


def get_method(name: str = DEFAULT, **settings: Any) -> Method:
    """The method of that name with these settings, and its own defaults for the rest.

    Raises:
        ValueError: There is none, it takes no such setting, or not this value.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; allowed: {', '.join(METHODS)}")
    taken = METHODS[name].parameters()
    if foreign := [setting for setting in settings if setting not in taken]:
        raise ValueError(f"{name} takes no {', '.join(foreign)}; allowed: {', '.join(taken)}")
    return METHODS[name](**settings)


def catalogue() -> dict[str, Any]:
    """What the API must know of every method, as plain values."""
    return {
        name: {
            "summary": (inspect.getdoc(method) or "").split("\n", 1)[0],
            "source": method.source,
            "trains_student": method.trains_student,
            "needs": sorted(method.needs),
            "parameters": method.parameters(),
        }
        for name, method in METHODS.items()
    }


__all__ = [
    "DEFAULT",
    "METHODS",
    "Evidence",
    "GoldenKL",
    "Method",
    "Muka",
    "Need",
    "Objective",
    "Supervision",
    "TeacherChoice",
    "catalogue",
    "get_method",
]
