"""The ways to make a student from teachers: one method a file, tensors in and tensors out."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.muka.methods.interface import (
    AmalgamationMethod,
    Evidence,
    GoldenKL,
    Need,
    Objective,
    Supervision,
    TeacherChoice,
)
from worker.muka.methods.muka import Muka
from worker.muka.recipe import Method

METHODS: Mapping[str, AmalgamationMethod] = MappingProxyType({method.name: method for method in (Muka(),)})


def get_method(name: str) -> AmalgamationMethod:
    """The registered method of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; allowed: {', '.join(METHODS)}")
    return METHODS[name]


def supervise(method: Method, evidence: Evidence) -> Supervision:
    """What `method.name` makes of the teachers' outputs for the whole corpus."""
    return get_method(method.name).supervise(evidence, method)


__all__ = [
    "METHODS",
    "AmalgamationMethod",
    "Evidence",
    "GoldenKL",
    "Need",
    "Objective",
    "Supervision",
    "TeacherChoice",
    "get_method",
    "supervise",
]
