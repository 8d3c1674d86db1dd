"""Is every label of a teacher a name, and are enough of them left? Faults say how to map."""

from collections.abc import Iterator, Sequence

from app.domain import labels as label_names
from app.domain.errors import Fault
from app.domain.recipe import TeacherSpec


def label_faults(
    index: int, spec: TeacherSpec, labels: Sequence[str], names: Sequence[str | None]
) -> Iterator[Fault]:
    """What is wrong with the labels of teacher `index`, `names` being what the mapping made of them."""
    pointer = f"/teachers/{index}/labels"
    for unknown in label_names.unknown_in_mapping(labels, spec.labels or {}):
        escaped = unknown.replace("~", "~0").replace("/", "~1")
        known = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
        yield Fault(
            f"{pointer}/{escaped}", "label_unknown", f"{spec.model} has no label {unknown!r}; it has: {known}"
        )
    if nameless := label_names.placeholders(names):
        example = "{" + ", ".join(f'"{name}": "…"' for name in nameless[:3]) + "}"
        yield Fault(
            pointer,
            "placeholder_labels",
            f"teacher {index} ({spec.model}) has labels without a meaning: {', '.join(nameless[:20])}; map "
            f'each to its name, or to null to drop it: {{"model": "{spec.model}", "labels": {example}}}',
        )
    kept = {name for name in names if name is not None}
    if len(kept) < 2:
        detail = (
            f"teacher {index} ({spec.model}) keeps {len(kept)} of its labels; it needs at least two different"
        )
        yield Fault(pointer, "too_few_labels", f"{detail}: drop fewer, or leave this teacher out")
