"""The student's README.md: the story of the job in words, tables and pictures."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.muka.card_header import card_header
from worker.muka.methods import METHODS
from worker.muka.recipe import UNSAMPLED_SCORES

Report = Mapping[str, Any]

_INTRODUCTION = """\
This student was amalgamated from several fine-tuned text classifiers **without labelled data** by
muka{method}. It knows the union of its teachers' labels."""
_USAGE = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/the/folder/of/this/file")
classify("your text")
```"""
_REPEAT = """\
`muka.json` holds the complete recipe, the report and the versions. Sent again to a service that has, or finds
on the Hub, the models and the corpus, the recipe makes the same student (where it asks for keys, with one in
`MUKA_API_KEY`):

```bash
python -c 'import json; print(json.dumps(json.load(open("muka.json"))["recipe"]))' |
  curl -H 'Content-Type: application/json' -H "Authorization: Bearer $MUKA_API_KEY" -d @- \\
    http://127.0.0.1:8000/amalgamations
```"""
_CLOSED_WORLD = """\
It answers with one of its labels whatever the text, also where none fits, and has its teachers' faults."""
_SYSTEMS = {
    "this student": "student",
    "all teachers, by certainty": "ensemble",
    "all teachers, by largest probability": "naive_ensemble",
}
_MARKS, _LIST = re.compile(r"[\\`*_\[\]<>|#&~$]"), re.compile(r"^(\d*)([-+.)](?: |$))")
_SHOWN = 20
_MOST_CONFUSED = 10


def model_card(report: Report) -> str:
    """Text of a README.md from a report.

    Args:
        report: All keys are optional: `name`, `labels`, `teachers` (mappings with `name`, `labels`,
            `architecture`, `revision`, `passes_per_text`, `sampled`), `student` (`init_from`, `layers`),
            `base_model` and `datasets` (ids on the Hub), `evaluation` (`texts`, `corpus`, and mappings with
            `accuracy`, `macro_f1`, `calibration_error`, `accuracy_by_teacher`, `per_label` and `confusion`
            under `student`, `ensemble`, `naive_ensemble` and, a list, `teachers`), `choice`, `agreement`,
            `orphans`, `predicted_labels`, `pictures` (mappings with `title`, `caption`, `png` and `svg`),
            `unfinished` (`step`, `total_steps`), `recipe`, `method`, `training`, `corpus`, `versions`,
            `license`, `language`. Values must be plain (JSON).

    Returns:
        Markdown behind a YAML header. A licence that is not known is left out.
    """
    name = str(report.get("name") or "student")
    sections = [
        f"# {_inline(name)}",
        _INTRODUCTION.format(method=_method(report.get("method") or {})),
        "## Use",
        _USAGE,
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


def _method(method: Report) -> str:
    """Its name and where it comes from."""
    name = str(method.get("name"))
    return f"'s method `{name}` ({METHODS[name].source})" if name in METHODS else ""


def _labels(labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    return [f"## Labels ({len(labels)})", ", ".join(_inline(label) for label in labels)]


def _teachers(report: Report) -> list[str]:
    teachers = report.get("teachers") or ()
    if not teachers:
        return []
    choice = report.get("choice") or {}
    shares = choice.get("chosen_share") or [None] * len(teachers)
    chosen_for = "chosen for" if choice.get("decides", True) else "most certain on"
    rows = [
        _row("teacher", "architecture", "revision", "labels", "passes a text", chosen_for),
        "|---|---|---|---|---|---|",
    ]
    for teacher, share in zip(teachers, shares, strict=True):
        cells = [teacher.get(key) or "" for key in ("name", "architecture", "revision")]
        chosen = "" if share is None else f"{share:.1%} of the texts"
        passes = _number(teacher.get("passes_per_text", ""))
        rows.append(_row(*cells, _how_many(teacher.get("labels") or ()), passes, chosen))
    return ["## Teachers", "\n".join(rows), *_student(report.get("student") or {})]


def _how_many(labels: Sequence[str | None]) -> str:
    dropped = sum(label is None for label in labels)
    return f"{len(labels) - dropped}" + (f" ({dropped} dropped)" if dropped else "")


def _student(student: Report) -> list[str]:
    """Where it started from."""
    if not student:
        return []
    layers = student.get("layers")
    kept = "" if layers is None else f", of which the first {layers} layers were kept"
    return [f"The student started from {_inline(student.get('init_from'))}{kept}."]


def _results(report: Report) -> list[str]:
    """Student, combinations and teachers on held-out texts, one row each."""
    evaluation = report.get("evaluation") or {}
    names = [teacher.get("name") for teacher in report.get("teachers") or ()]
    rows = [(title, evaluation[key]) for title, key in _SYSTEMS.items() if key in evaluation]
    rows += [(f"teacher {n}", e) for n, e in zip(names, evaluation.get("teachers") or (), strict=False)]
    if not rows:
        return []
    keys = ("accuracy", "macro_f1", "calibration_error")
    parts = [f"accuracy on the labels of {name}" for name in names]
    if not any("accuracy_by_teacher" in figures for _, figures in rows):
        parts = []
    headings = ("accuracy", "macro-F1", "calibration error", *parts)
    lines = [_row(f"on {evaluation.get('texts')} held-out texts", *headings)]
    lines.append("|---" * (1 + len(headings)) + "|")
    for title, figures in rows:
        on_each = figures.get("accuracy_by_teacher") or [""] * len(parts)
        cells = [*(figures.get(key, "") for key in keys), *("" if each is None else each for each in on_each)]
        lines.append(_row(title, *map(_number, cells)))
    return [
        "## Results",
        "\n".join(lines),
        *_held_out(evaluation.get("corpus") or {}),
        *_detail(evaluation.get("student") or {}),
    ]


def _held_out(corpus: Report) -> list[str]:
    digest = corpus.get("content_sha256")
    return [f"The held-out texts are those of {corpus.get('id')} (SHA-256 `{digest}`)."] if digest else []


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
    if names := [t.get("name") for t in report.get("teachers") or () if _was_unsampled(t, report)]:
        limits.append(
            f"No dropout layer could be sampled of {_listed(names)}: there the single pass was scored."
        )
    if unknown := (report.get("evaluation") or {}).get("unknown_labels"):
        limits.append(f"It cannot answer {_listed(unknown)}, which the held-out texts have.")
    if agreement := report.get("agreement"):
        limits.append(f"It agrees with what it was taught on {agreement['top1']:.1%} of the corpus.")
    if (orphans := report.get("orphans") or {}).get("texts"):
        limits.append(
            f"On {orphans['share']:.1%} of the corpus ({orphans['texts']} texts) no teacher's certainty by "
            f"entropy reached {orphans['certainty_below']}: a label may be missing there."
        )
    if never := [label for label, texts in (report.get("predicted_labels") or {}).items() if not texts]:
        limits.append(f"It gave no text of its corpus the label {_listed(never)}.")
    return ["## Limits", "\n".join(f"- {limit}" for limit in limits)]


def _was_unsampled(teacher: Report, report: Report) -> bool:
    """Whether dropout passes were asked for that the teacher could not give."""
    method = report.get("method") or {}
    wanted = method.get("mc_samples") and method.get("score") not in UNSAMPLED_SCORES
    return bool(wanted) and teacher.get("sampled") is False


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
    """Four digits of a fraction, and no exponent of anything that lasted long."""
    if not isinstance(value, float):
        return value
    return f"{value:,.0f}" if 9999.5 <= abs(value) < 1e15 else f"{value:.4g}"


def _inline(value: object) -> str:
    """Text that stays within one table cell and carries no markup of its own, nor begins a list."""
    text = " ".join(str(value).split())
    return _LIST.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", text))
