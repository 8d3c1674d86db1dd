"""Examples of the OpenAPI document. A test validates each against its schema."""

from typing import Any

RECIPE: dict[str, Any] = {
    "name": "support-router",
    "teachers": [
        "acme/billing-intents@3f2c5a9e0b7d4c1f8a6e2d3b4c5f6a7b8c9d0e1f",
        {
            "model": "mdl-01990b6d2f4c7aa0b1c2d3e4f5a6b7c8",
            "labels": {"LABEL_0": "refund", "LABEL_1": "invoice", "other": None},
        },
    ],
    "corpus": "cor-01990b6d2f4c7aa0b1c2d3e4f5a6b7c9",
    "student": {"init_from": "teachers/0", "layers": 6},
    "method": {
        "name": "muka",
        "integration": "soft",
        "mc_samples": 16,
        "temperature": 0.2,
        "reweight": "margin",
    },
    "training": {"epochs": 3, "batch_size": 32, "learning_rate": 2e-5, "max_length": 128, "seed": 1},
    "metadata": {"team": "support"},
}

SMALLEST_RECIPE: dict[str, Any] = {"teachers": RECIPE["teachers"], "corpus": RECIPE["corpus"]}

RECIPE_WITHOUT_STUDENT: dict[str, Any] = SMALLEST_RECIPE | {"method": {"name": "ensemble", "mc_samples": 16}}

AMALGAMATION: dict[str, Any] = {
    "id": "amg-01990b6d2f4c7aa0b1c2d3e4f5a6b7d0",
    "name": "support-router",
    "status": "running",
    "stage": "training",
    "transitions": [
        {"status": "queued", "at": "2026-11-23T06:00:00Z", "attempt": 0},
        {"status": "running", "at": "2026-11-23T06:00:01Z", "attempt": 1},
    ],
    "progress": {
        "fraction": 0.62,
        "stage_fraction": 0.4,
        "step": 120,
        "total_steps": 300,
        "eta_seconds": 95.0,
        "updated_at": "2026-11-23T06:02:00Z",
    },
    "queue_position": None,
    "attempt": 1,
    "heartbeat_at": "2026-11-23T06:02:00Z",
    "failure": None,
    "labels": ["late", "lost", "refund", "invoice"],
    "teachers": [
        {
            "source": "hub",
            "reference": RECIPE["teachers"][0],
            "repo_id": "acme/billing-intents",
            "commit": "3f2c5a9e0b7d4c1f8a6e2d3b4c5f6a7b8c9d0e1f",
            "object_id": None,
            "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "architecture": "BertForSequenceClassification",
            "labels": ["late", "lost"],
        },
        {
            "source": "model",
            "reference": "mdl-01990b6d2f4c7aa0b1c2d3e4f5a6b7c8",
            "repo_id": None,
            "commit": None,
            "object_id": "mdl-01990b6d2f4c7aa0b1c2d3e4f5a6b7c8",
            "digest": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
            "architecture": "DistilBertForSequenceClassification",
            "labels": ["refund", "invoice", None],
        },
    ],
    "corpus_id": RECIPE["corpus"],
    "student_id": None,
    "report": None,
    "recipe": RECIPE,
    "metadata": {"team": "support"},
    "created_at": "2026-11-23T06:00:00Z",
    "started_at": "2026-11-23T06:00:01Z",
    "finished_at": None,
    "expires_at": None,
}

EVENT: dict[str, Any] = {
    "sequence": 2,
    "type": "status",
    "message": "claimed by gpu-1",
    "data": {"status": "running", "attempt": 1},
    "created_at": "2026-11-23T06:00:01Z",
}

STUDENT: dict[str, Any] = {
    "id": "stu-01990b6d2f4c7aa0b1c2d3e4f5a6b7d0",
    "amalgamation_id": "amg-01990b6d2f4c7aa0b1c2d3e4f5a6b7d0",
    "name": "support-router",
    "architecture": "BertForSequenceClassification",
    "labels": ["late", "lost", "refund", "invoice"],
    "parameters": 22713988,
    "size_bytes": 91324416,
    "digest": "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13",
    "created_at": "2026-11-23T06:05:00Z",
    "expires_at": None,
}

PREDICTION_REQUESTS: list[dict[str, Any]] = [
    {"texts": ["where is my parcel?", "I was charged twice"], "top_k": 2},
    {"texts": ["where is my parcel?"], "top_k": None},
]

PREDICTIONS: dict[str, Any] = {
    "student_id": STUDENT["id"],
    "digest": STUDENT["digest"],
    "data": [
        {
            "label": "late",
            "probability": 0.91,
            "top": [{"label": "late", "probability": 0.91}, {"label": "lost", "probability": 0.07}],
            "truncated": False,
        },
        {
            "label": "refund",
            "probability": 0.84,
            "top": [{"label": "refund", "probability": 0.84}, {"label": "invoice", "probability": 0.13}],
            "truncated": False,
        },
    ],
}

METRICS: dict[str, Any] = {
    "steps": [100, 200, 300],
    "series": {
        "loss": [0.71, 0.32, 0.21],
        "learning_rate": [1.5e-5, 7e-6, 0.0],
        "grad_norm": [1.9, 1.1, 0.8],
        "epoch": [0, 1, 2],
    },
}

_FIGURES: dict[str, Any] = {
    "accuracy": 0.9,
    "macro_f1": 0.89,
    "calibration_error": 0.04,
    "accuracy_by_teacher": [0.92, 0.88],
    "per_label": [
        {"label": "late", "support": 5, "predicted": 6, "precision": 0.83, "recall": 1.0, "f1": 0.91}
    ],
    "confusion": [
        {"gold": "late", "predicted": "late", "texts": 5},
        {"gold": "lost", "predicted": "late", "texts": 1},
    ],
    "confusion_cells": 2,
}

REPORT: dict[str, Any] = {
    "labels": ["late", "lost", "refund", "invoice"],
    "teachers": [
        {
            "name": RECIPE["teachers"][0],
            "architecture": "BertForSequenceClassification",
            "revision": "3f2c5a9e0b7d4c1f8a6e2d3b4c5f6a7b8c9d0e1f",
            "labels": ["late", "lost"],
            "mc_samples": 16,
            "passes_per_text": 16.0,
            "passes_computed": 28050,
            "shards": 2,
            "shards_reused": 0,
        }
    ],
    "corpus": {
        "id": RECIPE["corpus"],
        "texts": 1650,
        "content_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "method": {"name": "muka", "integration": "soft", "mc_samples": 16, "temperature": 0.2},
    "training": {"steps": 156, "epoch_losses": [0.71, 0.32, 0.21], "seconds": 60.2, "resumed_from": 0}
    | {"micro_batch": 32, "precision": "bfloat16", "head": "random"},
    "choice": {
        "decides": True,
        "chosen_share": [0.55, 0.45],
        "mean_weight": [0.53, 0.47],
        "mean_score": [0.61, 0.58],
        "score_histogram": [[400, 1250], [520, 1130]],
        "margin_histogram": [1100, 550],
        "bin_edges": [0.0, 0.5, 1.0],
    },
    "orphans": {"texts": 33, "share": 0.02, "certainty_below": 0.5},
    "predicted_labels": {"late": 420, "lost": 380, "refund": 450, "invoice": 400},
    "taught_labels": {"late": 415, "lost": 385, "refund": 452, "invoice": 398},
    "agreement": {"top1": 0.97, "mean_kl": 0.08},
    "evaluation": {"texts": 20, "unknown_labels": [], "student": _FIGURES, "teachers": [_FIGURES]},
    "seconds": {"preparing": 1.2, "scoring": 71.0, "training": 60.9, "evaluating": 3.1},
    "throughput": {"scoring_passes_per_second": 790.1, "training_texts_per_second": 82.2},
    "versions": {"muka": "0.2.0", "python": "3.11.2", "torch": "2.9.1"},
}

TEXT_ROW: dict[str, Any] = {
    "row": 17,
    "text": "where do I park?",
    "chosen_teacher": 1,
    "weights": [0.49, 0.51],
    "certainty": [0.21, 0.22],
    "entropy": [0.55, 0.54],
    "margin": 0.010001,
    "label": "late",
    "probability": 0.41,
    "orphan": True,
}

SCHEMA_EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "Recipe": [RECIPE, SMALLEST_RECIPE, RECIPE_WITHOUT_STUDENT],
    "Amalgamation": [AMALGAMATION],
    "Event": [EVENT],
    "Student": [STUDENT],
    "Report": [REPORT],
    "Metrics": [METRICS],
    "PredictionRequest": PREDICTION_REQUESTS,
    "Predictions": [PREDICTIONS],
}
"""By the name of the schema."""
