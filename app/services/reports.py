"""A job's report as its object shows it: without what grows with the number of labels."""

from typing import Any

_DETAIL = frozenset({"per_label", "confusion", "confusion_cells"})


def brief(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The report without the figures of single labels: jobs stay small when they are polled and listed."""
    if not report or "evaluation" not in report:
        return report
    evaluation = {
        key: [_without(each) for each in value] if key == "teachers" else _without(value)
        for key, value in report["evaluation"].items()
        if key not in _DETAIL
    }
    return report | {"evaluation": evaluation}


def _without(figures: Any) -> Any:
    if not isinstance(figures, dict):
        return figures
    return {key: value for key, value in figures.items() if key not in _DETAIL}
