"""The metadata in front of a model card, in the Hub's own form (https://huggingface.co/docs/hub/model-cards)."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

_TASK = "text-classification"
_TAGS = (_TASK, "knowledge-amalgamation", "knowledge-distillation", "muka")
_METRICS = {
    "accuracy": ("accuracy", "Accuracy", None),
    "f1": ("macro_f1", "Macro F1", {"average": "macro"}),
    "expected_calibration_error": ("calibration_error", "Expected calibration error", None),
}
"""The Hub's name of each: key of the figure, name for people, arguments."""


def card_header(report: Mapping[str, Any], name: str) -> str:
    """The YAML between the dashes; what is not known (a licence above all) is left out.

    Args:
        report: As `model_card` takes it.
        name: Of the student.
    """
    results = _results(report.get("evaluation") or {}, report.get("evaluation_corpus"))
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASK,
        tags=list(_TAGS),
        base_model=list(report.get("base_model") or ()) or None,
        datasets=list(report.get("datasets") or ()) or None,
        license=report.get("license"),
        language=report.get("language"),
        metrics=list(_METRICS) if results else None,
        model_name=" ".join(name.split()) if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _results(evaluation: Mapping[str, Any], corpus: str | None) -> list[EvalResult]:
    """The student's figures as the Hub's `model-index`."""
    figures = evaluation.get("student") or {}
    return [
        EvalResult(
            task_type=_TASK,
            task_name="Text Classification",
            dataset_type=corpus or "held-out-texts",
            dataset_name=f"{evaluation.get('texts')} held-out texts",
            metric_type=kind,
            metric_name=title,
            metric_value=figures[key],
            metric_args=arguments,
        )
        for kind, (key, title, arguments) in _METRICS.items()
        if key in figures
    ]
