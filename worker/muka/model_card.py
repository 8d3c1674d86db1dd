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
_REPEAT = """\
`muka.json` holds the complete recipe. Sent again to a service that has models and corpus, it makes the same
student:

```bash
python -c 'import json; print(json.dumps(json.load(open("muka.json"))["recipe"]))' |
  curl --json @- http://127.0.0.1:8000/amalgamations
```"""
_CLOSED_WORLD = """\
It answers with one of its labels whatever the text, also where none fits, and has its teachers' faults."""
_SYSTEMS = {
    "this student": "student",
    "all teachers, by certainty": "ensemble",
    "all teachers, by largest probability": "naive_ensemble",
}
_SHOWN = 20


def model_card(report: Report) -> str:
    """Text of a README.md from a report.

    Args:
        report: All keys are optional: `name`, `labels`, `teachers` (mappings with `name`, `labels`,
            `architecture`, `revision`), `evaluation` (`texts`, and mappings with `accuracy`, `macro_f1` and
            `calibration_error` under `student`, `ensemble`, `naive_ensemble` and, a list, `teachers`),
            `orphans`, `predicted_labels`, `recipe`, `method`, `training`, `corpus`, `versions`, `license`,
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
        *_results(report),
        *_limits(report),
    ]
    for key in ("corpus", "method", "training", "versions"):
        sections += _table(key.capitalize(), report.get(key) or {})
    if "recipe" in report:
        sections += ["## Repeat it", _REPEAT]
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


def _results(report: Report) -> list[str]:
    """Student, combinations and teachers on held-out texts, one row each."""
    evaluation = report.get("evaluation") or {}
    names = [teacher.get("name") for teacher in report.get("teachers") or ()]
    rows = [(title, evaluation[key]) for title, key in _SYSTEMS.items() if key in evaluation]
    rows += [(f"teacher {n}", e) for n, e in zip(names, evaluation.get("teachers") or (), strict=False)]
    if not rows:
        return []
    lines = [f"| on {evaluation.get('texts')} held-out texts | accuracy | macro-F1 | calibration error |"]
    lines.append("|---|---|---|---|")
    for title, figures in rows:
        cells = [_number(figures.get(key, "")) for key in ("accuracy", "macro_f1", "calibration_error")]
        lines.append("| " + " | ".join(map(_inline, [title, *cells])) + " |")
    return ["## Results", "\n".join(lines)]


def _limits(report: Report) -> list[str]:
    """What a user must know before trusting an answer."""
    limits = [_CLOSED_WORLD]
    if "evaluation" not in report:
        limits.append("It was not measured on labelled texts.")
    if unknown := (report.get("evaluation") or {}).get("unknown_labels"):
        limits.append(f"It cannot answer {_listed(unknown)}, which the held-out texts have.")
    if (orphans := report.get("orphans") or {}).get("texts"):
        share = orphans["texts"] / report["corpus"]["texts"]
        limits.append(f"On {share:.1%} of the corpus no teacher was sure: a label may be missing there.")
    if never := [label for label, texts in (report.get("predicted_labels") or {}).items() if not texts]:
        limits.append(f"It gave no text of its corpus the label {_listed(never)}.")
    return ["## Limits", "\n".join(f"- {limit}" for limit in limits)]


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(map(_inline, labels[:_SHOWN]))
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN} more"


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
