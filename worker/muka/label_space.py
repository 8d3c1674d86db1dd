"""The union of the teachers' labels, and where each teacher's probabilities go in it (section 2)."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from worker.muka.errors import LabelConflictError

# Below this, float32 has too few digits left for a quotient (subnormal numbers).
_NO_MASS = 1e-30
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def normalise(name: str) -> str:
    """A label's name as it is compared: Unicode NFC, trimmed; case matters."""
    return unicodedata.normalize("NFC", name).strip()


def is_placeholder(name: str) -> bool:
    """Whether a name is one of transformers' defaults (`LABEL_0`), which carry no meaning."""
    return _PLACEHOLDER.fullmatch(name) is not None


def teacher_labels(
    id2label: Mapping[int, str], mapping: Mapping[str, str | None] | None = None
) -> tuple[str | None, ...]:
    """Names of a teacher's classes, in class order, after renaming and dropping.

    Args:
        id2label: Of the teacher's config; keys 0..C-1.
        mapping: Old name to new name, or to None to drop that label. Names not in it stay.

    Returns:
        One name a class; None for a dropped one. Equal names are one class of the student.

    Raises:
        LabelConflictError: The mapping names labels that the teacher has not, placeholders are left,
            or fewer than two different labels are left.
    """
    names = [normalise(str(id2label[index])) for index in sorted(id2label)]
    renames = {normalise(old): new for old, new in (mapping or {}).items()}
    _refuse_unknown(names, renames)
    _refuse_placeholders(name for name in names if name not in renames)
    renamed = [renames.get(name, name) for name in names]
    labels = tuple(None if name is None else normalise(name) for name in renamed)
    _refuse_too_few(labels)
    return labels


def _refuse_unknown(names: Sequence[str], renames: Mapping[str, str | None]) -> None:
    if unknown := [name for name in renames if name not in names]:
        raise LabelConflictError(
            f"the label mapping names {unknown}, but the teacher's labels are {list(names)}",
            hint="Use the names of the teacher's config.id2label as keys.",
        )


def _refuse_placeholders(names: Iterable[str]) -> None:
    if placeholders := [name for name in names if is_placeholder(name)]:
        raise LabelConflictError(
            f"the teacher's labels {placeholders} are placeholders without a meaning",
            hint="Map each of them to a name, or to null to drop it.",
        )


def _refuse_too_few(labels: Sequence[str | None]) -> None:
    kept = {label for label in labels if label is not None}
    if len(kept) < 2 or "" in kept:
        raise LabelConflictError(
            f"a teacher needs at least two labels with non-empty names; left are {sorted(kept)}",
            hint="Drop fewer labels, or leave this teacher out.",
        )


@dataclass(frozen=True)
class LabelSpace:
    """The student's classes: the union of the teachers' label names, in teacher and label order.

    Attributes:
        labels: The student's class names; class j is labels[j].
        teachers: For each teacher the name of each of its classes; None where dropped.
    """

    labels: tuple[str, ...]
    teachers: tuple[tuple[str | None, ...], ...]

    @classmethod
    def union(cls, teachers: Sequence[Sequence[str | None]]) -> Self:
        """The label space of teachers with these class names.

        Raises:
            LabelConflictError: A teacher keeps fewer than two labels.
        """
        named = tuple(tuple(None if n is None else normalise(n) for n in names) for names in teachers)
        for names in named:
            _refuse_too_few(names)
        return cls(tuple(dict.fromkeys(n for names in named for n in names if n is not None)), named)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def id2label(self) -> dict[int, str]:
        """Class index to name, as in a model's config."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        """Name to class index, as in a model's config."""
        return {name: index for index, name in enumerate(self.labels)}

    def indices(self, i: int) -> Tensor:
        """Where the distinct kept labels of teacher `i` lie in `labels`: int64 [c_i], c_i <= C_i."""
        kept = dict.fromkeys(name for name in self.teachers[i] if name is not None)
        return torch.tensor([self.label2id[name] for name in kept])

    @cached_property
    def known(self) -> Tensor:
        """Which teacher knows which label: bool [N, |L|]."""
        known = torch.zeros(len(self.teachers), len(self.labels), dtype=torch.bool)
        for i, row in enumerate(known):
            row[self.indices(i)] = True
        return known

    def keeps_all(self, i: int) -> bool:
        """Whether every class of teacher `i` is a label of its own: then `project` changes nothing."""
        return None not in self.teachers[i] and len(set(self.teachers[i])) == len(self.teachers[i])

    def project(self, i: int, probabilities: Tensor) -> Tensor:
        """A distribution over teacher `i`'s classes as one over its distinct kept labels.

        Masses of classes with one name add up; dropped mass is removed and the rest renormalised.
        Where nothing is left (all mass on dropped classes), the answer is uniform: knows nothing.

        Args:
            i: The teacher's position.
            probabilities: [..., C_i], each row sums to one.

        Returns:
            [..., c_i], in the order of `indices(i)`; each row sums to one.
        """
        kept = self._merge(i, probabilities.shape[-1]).to(probabilities)
        merged = probabilities @ kept
        mass = merged.sum(-1, keepdim=True)
        return torch.where(mass > _NO_MASS, merged / mass.clamp_min(_NO_MASS), 1 / kept.shape[1])

    def scatter(self, i: int, probabilities: Tensor) -> Tensor:
        """P_i: teacher `i`'s distribution at its places in the union, zeros elsewhere.

        Args:
            i: The teacher's position.
            probabilities: [..., C_i].

        Returns:
            [..., |L|], renormalised as in `project`.
        """
        projected = self.project(i, probabilities)
        united = projected.new_zeros((*projected.shape[:-1], len(self.labels)))
        united[..., self.indices(i).to(projected.device)] = projected
        return united

    def _merge(self, i: int, num_classes: int) -> Tensor:
        """[C_i, c_i] of zeros and ones: which class counts towards which distinct kept label."""
        names = self.teachers[i]
        if num_classes != len(names):
            raise ValueError(
                f"teacher {i} has {len(names)} classes, but the probabilities have {num_classes}"
            )
        kept = list(dict.fromkeys(name for name in names if name is not None))
        merge = torch.zeros(len(names), len(kept))
        for index, name in enumerate(names):
            if name is not None:
                merge[index, kept.index(name)] = 1.0
        return merge
