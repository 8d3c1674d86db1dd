"""The student's README.md: the story of the job in words, tables and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.muka.card_header import card_header

Report = Mapping[str, Any]

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
`muka.json` holds the complete recipe, the report and the versions. Sent again to a service that has models
and corpus, the recipe makes the same student:

```bash
python -c 'import json; print(json.dumps(json.load(open("muka.json"))["recipe"]))' |
  curl -H 'Content-Type: application/json' -d @- http://127.0.0.1:8000/amalgamations
```"""
_CLOSED_WORLD = """\
It answers with one of its labels whatever the text, also where none fits, and has its teachers' faults."""
_SYSTEMS = {
    "this student": "student",
    "all teachers, by certainty": "ensemble",
    "all teachers, by largest probability": "naive_ensemble",
}
_SHOWN = 20
_MOST_CONFUSED = 10


def model_card(report: Report) -> str:
    """Text of a README.md from a report.

    Args:
        report: All keys are optional: `name`, `labels`, `teachers` (mappings with `name`, `labels`,
            `architecture`, `revision`, `passes_per_text`), `base_model` (ids on the Hub), `evaluation`
            (`texts`, and mappings with `accuracy`, `macro_f1`, `calibration_error`, `per_label` and
            `confusion` under `student`, `ensemble`, `naive_ensemble` and, a list, `teachers`), `choice`,
            `agreement`, `orphans`, `predicted_labels`, `pictures` (mappings with `title`, `caption`, `png`
            and `svg`), `unfinished` (`step`, `total_steps`), `recipe`, `method`, `training`, `corpus`,
            `versions`, `license`, `language`. Values must be plain (JSON).

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
        *_teachers(report),
        *_results(report),
        *_pictures(report.get("pictures") or ()),
        *_limits(report),
    ]
    for key in ("corpus", "method", "training", "versions"):
        sections += _table(key.capitalize(), report.get(key) or {})
    if "recipe" in report:
        sections += ["## Repeat it", _REPEAT]
    return f"{card_header(report, name)}\n\n" + "\n\n".join(sections) + "\n"


def write_model_card(folder: Path, report: Report) -> Path:
    """Write the card as README.md into a student's folder."""
    path = folder / "README.md"
    path.write_text(model_card(report), encoding="utf-8")
    return path


def _labels(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    return [f"## Labels ({len(labels)})", ", ".join(_inline(label) for label in labels)]


def _teachers(report: Report) -> list[str]:
    teachers = report.get("teachers") or ()
    if not teachers:
        return []
    shares = (report.get("choice") or {}).get("chosen_share") or [None] * len(teachers)
    rows = [
        _row("teacher", "architecture", "revision", "labels", "passes a text", "chosen for"),
        "|---|---|---|---|---|---|",
    ]
    for teacher, share in zip(teachers, shares, strict=True):
        cells = [teacher.get(key) or "" for key in ("name", "architecture", "revision")]
        labels = [label for label in teacher.get("labels") or () if label is not None]
        chosen = "" if share is None else f"{share:.1%} of the texts"
        rows.append(_row(*cells, len(labels), _number(teacher.get("passes_per_text", "")), chosen))
    return ["## Teachers", "\n".join(rows)]


def _results(report: Report) -> list[str]:
    """Student, combinations and teachers on held-out texts, one row each."""
    evaluation = report.get("evaluation") or {}
    names = [teacher.get("name") for teacher in report.get("teachers") or ()]
    rows = [(title, evaluation[key]) for title, key in _SYSTEMS.items() if key in evaluation]
    rows += [(f"teacher {n}", e) for n, e in zip(names, evaluation.get("teachers") or (), strict=False)]
    if not rows:
        return []
    keys = ("accuracy", "macro_f1", "calibration_error")
    lines = [
        _row(f"on {evaluation.get('texts')} held-out texts", "accuracy", "macro-F1", "calibration error")
    ]
    lines.append("|---|---|---|---|")
    lines += [_row(title, *(_number(figures.get(key, "")) for key in keys)) for title, figures in rows]
    return ["## Results", "\n".join(lines), *_detail(evaluation.get("student") or {})]


def _detail(student: Report) -> list[str]:
    """Each label, and what is taken for what most often."""
    sections = []
    if labels := student.get("per_label"):
        keys = ("label", "support", "precision", "recall", "f1")
        lines = [_row("label", "texts", "precision", "recall", "F1"), "|---|---|---|---|---|"]
        lines += [_row(*(_number(label[key]) for key in keys)) for label in labels]
        summary = f"<details><summary>Each label ({len(labels)})</summary>"
        sections.append("\n".join([summary, "", *lines, "", "</details>"]))
    wrong = [cell for cell in student.get("confusion") or () if cell["gold"] != cell["predicted"]]
    if wrong:
        lines = [_row("gold label", "the student's", "texts"), "|---|---|---|"]
        most = wrong[:_MOST_CONFUSED]
        lines += [_row(cell["gold"], cell["predicted"], cell["texts"]) for cell in most]
        sections += ["Most often taken for another one:", "\n".join(lines)]
    return sections


def _pictures(pictures: Sequence[Report]) -> list[str]:
    if not pictures:
        return []
    shown = [f"![{p['title']}]({p['png']})\n\n{p['caption']} ([SVG]({p['svg']}))" for p in pictures]
    return ["## Pictures", *shown]


def _limits(report: Report) -> list[str]:
    """What a user must know before trusting an answer."""
    limits = [_CLOSED_WORLD]
    if cut := report.get("unfinished"):
        limits.append(
            f"Its training was cut short: this is its state at step {cut['step']} of {cut['total_steps']}."
        )
    if "evaluation" not in report:
        limits.append("It was not measured on labelled texts.")
    if unknown := (report.get("evaluation") or {}).get("unknown_labels"):
        limits.append(f"It cannot answer {_listed(unknown)}, which the held-out texts have.")
    if agreement := report.get("agreement"):
        limits.append(f"It agrees with what it was taught on {agreement['top1']:.1%} of the corpus.")
    if (orphans := report.get("orphans") or {}).get("texts"):
        limits.append(
            f"On {orphans['share']:.1%} of the corpus ({orphans['texts']} texts) no teacher's certainty "
            f"reached {orphans['certainty_below']}: a label may be missing there."
        )
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
    rows = [_row(key, _number(value)) for key, value in plain.items()]
    return [f"## {title}", "\n".join(["| | |", "|---|---|", *rows])]


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(_inline, cells)) + " |"


def _number(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _inline(value: object) -> str:
    """Text that stays within one table cell and carries no markup of its own."""
    text = " ".join(str(value).split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
