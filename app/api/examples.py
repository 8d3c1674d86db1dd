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
    "method": {"integration": "soft", "mc_samples": 16, "temperature": 0.2, "reweight": "margin"},
    "training": {"epochs": 3, "batch_size": 32, "learning_rate": 2e-5, "max_length": 128, "seed": 1},
    "metadata": {"team": "support"},
}

SMALLEST_RECIPE: dict[str, Any] = {"teachers": RECIPE["teachers"], "corpus": RECIPE["corpus"]}

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

SCHEMA_EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "Recipe": [RECIPE, SMALLEST_RECIPE],
    "Amalgamation": [AMALGAMATION],
    "Event": [EVENT],
    "Student": [STUDENT],
    "PredictionRequest": PREDICTION_REQUESTS,
    "Predictions": [PREDICTIONS],
}
"""By the name of the schema."""
