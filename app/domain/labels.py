"""Label names: from a teacher's configuration, through the request's mapping, to the student's union.

Section 2 of `design/algorithm.md`, for checks before a job runs. A label is a name, never an index.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""


def canonical(name: str) -> str:
    """The name under which equal labels meet: Unicode NFC, trimmed; case matters."""
    return unicodedata.normalize("NFC", name).strip()


def placeholders(labels: Sequence[str | None]) -> list[str]:
    """The labels that carry no meaning."""
    return [label for label in labels if label is not None and PLACEHOLDER.fullmatch(label)]


def mapped(labels: Sequence[str], mapping: Mapping[str, str | None] | None) -> list[str | None]:
    """The teacher's labels, by class index, after renaming and dropping (`None`)."""
    renames = {canonical(old): new for old, new in (mapping or {}).items()}
    names: list[str | None] = []
    for label in map(canonical, labels):
        name = renames.get(label, label)
        names.append(None if name is None else canonical(name))
    return names


def unknown_in_mapping(labels: Sequence[str], mapping: Mapping[str, str | None]) -> list[str]:
    """Keys of the mapping that name no label of the teacher."""
    known = set(map(canonical, labels))
    return [name for name in mapping if canonical(name) not in known]


def shared(teachers: Sequence[Sequence[str | None]]) -> dict[str, list[int]]:
    """Labels that several teachers have, with the teachers' numbers."""
    owners: dict[str, list[int]] = {}
    for index, names in enumerate(teachers):
        for name in dict.fromkeys(names):
            if name is not None:
                owners.setdefault(name, []).append(index)
    return {name: indices for name, indices in owners.items() if len(indices) > 1}


def similar(labels: Sequence[str]) -> list[list[str]]:
    """Groups of labels that differ in case, spaces, hyphens or underscores only: one meaning, maybe."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(re.sub(r"[\s_-]+", "", label.casefold()) or label, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def union(teachers: Sequence[Sequence[str | None]]) -> list[str]:
    """The student's labels: teacher order, then label order; equal names are one class."""
    return list(dict.fromkeys(name for names in teachers for name in names if name is not None))
