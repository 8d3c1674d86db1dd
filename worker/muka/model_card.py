"""The student's README.md: metadata for the Hub, and the story of the job in words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]

_TAGS = ("text-classification", "knowledge-amalgamation", "knowledge-distillation", "muka")
_INTRODUCTION = """\
This student was amalgamated from several fine-tuned text classifiers **without labelled data** by MUKA
(model-uncertainty-aware knowledge amalgamation, [arXiv 2112.07327](https://arxiv.org/abs/2112.07327)).
It knows the union of its teachers' labels."""
_USAGE = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model="{name}")
classify("your text")
```"""


def model_card(report: Report) -> str:
    """Text of a README.md from a report.

    Args:
        report: All keys are optional: `name`, `labels`, `teachers` (mappings with `name`, `labels`,
            `architecture`, `revision`), `method`, `training`, `corpus`, `evaluation`, `versions`, `license`,
            `language`. Values must be plain (JSON).

    Returns:
        Markdown behind a YAML header. A licence that is not known is left out.
    """
    name = str(report.get("name") or "student")
    sections = [
        f"# {_inline(name)}",
        _INTRODUCTION,
        "## Use",
        _USAGE.format(name=name.replace('"', "'").replace("`", "'").replace("\n", " ")),
        *_labels(report.get("labels") or ()),
        *_teachers(report.get("teachers") or ()),
    ]
    for key in ("evaluation", "corpus", "method", "training", "versions"):
        sections += _table(key.capitalize(), report.get(key) or {})
    return f"{_header(report)}\n\n" + "\n\n".join(sections) + "\n"


def write_model_card(folder: Path, report: Report) -> Path:
    """Write the card as README.md into a student's folder."""
    path = folder / "README.md"
    path.write_text(model_card(report), encoding="utf-8")
    return path


def _header(report: Report) -> str:
    """The YAML block; JSON strings are YAML strings, so nothing can break out of it."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification", "tags:"]
    lines += [f"- {tag}" for tag in _TAGS]
    for key in ("license", "language"):
        if report.get(key):
            lines.append(f"{key}: {json.dumps(report[key], ensure_ascii=False)}")
    return "\n".join([*lines, "---"])


def _labels(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    return [f"## Labels ({len(labels)})", ", ".join(_inline(label) for label in labels)]


def _teachers(teachers: Sequence[Report]) -> list[str]:
    if not teachers:
        return []
    rows = ["| teacher | architecture | revision | labels |", "|---|---|---|---|"]
    for teacher in teachers:
        cells = [teacher.get(key) or "" for key in ("name", "architecture", "revision")]
        labels = [label for label in teacher.get("labels") or () if label is not None]
        rows.append("| " + " | ".join([*map(_inline, cells), str(len(labels))]) + " |")
    return ["## Teachers", "\n".join(rows)]


def _table(title: str, entries: Report) -> list[str]:
    plain = {key: value for key, value in entries.items() if not isinstance(value, Mapping | list | tuple)}
    if not plain:
        return []
    rows = [f"| {_inline(key)} | {_inline(_number(value))} |" for key, value in plain.items()]
    return [f"## {title}", "\n".join(["| | |", "|---|---|", *rows])]


def _number(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _inline(value: object) -> str:
    """Text that stays within one table cell and carries no markup of its own."""
    text = " ".join(str(value).split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
