"""A student's `muka.json` repeats its job: through the API, with real models, on a worker of this process."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from app.domain.recipe import Recipe, Resolved
from app.main import create_app
from app.services.backend import Backend
from app.settings import Settings
from tests.tiny_models import TEXTS, make_teacher
from worker.__main__ import carry_out
from worker.lease import Lease, claim
from worker.report import exact_recipe

LABELS = (("travel", "money"), ("food", "other", "bread"))
COMMIT = "3f2c5a9e0b7d4c1f8a6e2d3b4c5f6a7b8c9d0e1f"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def _upload(api: TestClient, folder: Path) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, "model")
    answer = api.post("/models", files={"file": ("model.tar", packed.getvalue())})
    assert answer.is_success, answer.text
    model: str = answer.json()["id"]
    return model


def _run(api: TestClient, settings: Settings, backend: Backend, recipe: dict[str, Any]) -> dict[str, Any]:
    """The student of a job with this recipe."""
    answer = api.post("/amalgamations", json=recipe)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    attempt = claim(backend.database, job_id, worker="here", lease_seconds=60)
    assert attempt is not None
    lease = Lease(backend.database, job_id, attempt, lease_seconds=60, heartbeat_seconds=5)
    with lease.kept():
        assert carry_out(settings, backend.database, backend.store, lease) == 0
    job = api.get(f"/amalgamations/{job_id}").json()
    assert job["status"] == "succeeded", job["failure"]
    student: dict[str, Any] = api.get(f"/students/{job['student_id']}").json()
    files = api.get(f"/students/{student['id']}/files").json()["data"]
    return student | {"sha256": {entry["path"]: entry["sha256"] for entry in files}}


def test_the_recipe_in_muka_json_makes_the_same_student(
    settings: Settings, backend: Backend, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    folders = [make_teacher(tmp_path / str(i), labels, seed=i) for i, labels in enumerate(LABELS)]
    rows = "".join(json.dumps({"text": t, "label": LABELS[i % 2][0]}) + "\n" for i, t in enumerate(TEXTS))
    with TestClient(create_app(settings)) as api:
        gold = api.post(
            "/corpora",
            files={"file": ("gold.jsonl", rows.encode())},
            data={"label_column": "label"},
        ).json()["id"]
        teachers = [_upload(api, folder) for folder in folders]
        recipe = {
            "name": "repeated",
            "teachers": [teachers[0], {"model": teachers[1], "labels": {"other": None, "food": "meal"}}],
            "corpus": {"texts": list(TEXTS)},
            "method": {"name": "muka", "mc_samples": 2},
            "training": {"epochs": 1, "batch_size": 4, "seed": 3},
            "evaluation": {"corpus": gold},
            "metadata": {"team": "support"},
        }
        first = _run(api, settings, backend, recipe)
        story = api.get(f"/students/{first['id']}/files/muka.json").json()
        second = _run(api, settings, backend, story["recipe"])
        again = api.get(f"/students/{second['id']}/files/muka.json").json()
        findings = [api.get(f"/amalgamations/{s['amalgamation_id']}/texts").text for s in (first, second)]
    assert first["id"] != second["id"]
    assert first["digest"] == second["digest"]
    assert first["labels"] == second["labels"] == ["travel", "money", "meal", "bread"]
    # Beside the files that tell times and events, everything is the same, pictures and table included.
    same = {path for path in first["sha256"] if first["sha256"][path] == second["sha256"][path]}
    assert first["sha256"].keys() - same <= {"README.md", "muka.json", "MANIFEST.json"}
    assert again["recipe"] == story["recipe"]
    assert {"recipe", "resolved", "report"} == story.keys()
    assert findings[0] == findings[1]
    assert [json.loads(line)["text"] for line in findings[0].splitlines()] == list(TEXTS)


def test_an_exact_recipe_pins_what_may_move_on() -> None:
    recipe = Recipe.model_validate(
        {
            "teachers": ["acme/bank@main", {"model": "mdl-1", "labels": {"a": None}}],
            "corpus": {"dataset": "acme/texts"},
            "student": {"init_from": "acme/base"},
        }
    )
    hub = {"source": "hub", "commit": COMMIT}
    known = {"digest": "d", "architecture": "A", "labels": ["x", "y"]}
    resolved = Resolved.model_validate(
        {
            "teachers": [
                {**hub, **known, "reference": "acme/bank@main", "repo_id": "acme/bank"},
                {**known, "source": "model", "reference": "mdl-1", "object_id": "mdl-1"},
            ],
            "student": {**hub, "repo_id": "acme/base"},
            "labels": ["x", "y"],
            "corpus_id": "cor-1",
            "dataset": {"dataset": "acme/texts", "revision": COMMIT, "config": "default"},
        }
    )
    exact = exact_recipe(recipe, resolved)
    assert [teacher["model"] for teacher in exact["teachers"]] == [f"acme/bank@{COMMIT}", "mdl-1"]
    assert exact["teachers"][1]["labels"] == {"a": None}
    assert exact["corpus"] == {
        "dataset": "acme/texts",
        "revision": COMMIT,
        "config": "default",
        "split": "train",
        "text_column": "text",
    }
    assert exact_recipe(recipe, resolved.model_copy(update={"dataset": None}))["corpus"] == "cor-1"
    assert exact["student"]["init_from"] == f"acme/base@{COMMIT}"
    assert Recipe.model_validate(exact).training == recipe.training
