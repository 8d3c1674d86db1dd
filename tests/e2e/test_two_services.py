"""Two real services: one makes a student, the other one learns from it by its Hub name. And the way back
of a job that its user gave up, from the command line."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.client import MukaClient
from app.client.job import Job
from tests.e2e.service import ROOT, Muka, serving
from tests.hub_clients import base_python, linked
from tests.servers import wait_until
from tests.tiny_models import TEXTS, make_teacher

KEY = "a-key-of-the-first-service"
TRAINING = {"epochs": 4, "batch_size": 4, "learning_rate": 1e-3}
METHOD = {"name": "muka", "mc_samples": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muka]:
    with serving(tmp_path_factory.mktemp("first") / "data", MUKA_API_KEY=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def muka(first: Muka) -> Iterator[MukaClient]:
    with MukaClient(first.url, KEY) as client:
        yield client


@pytest.fixture(scope="module")
def recipe(muka: MukaClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inputs")
    labels = (("refund", "invoice"), ("late", "lost"))
    models = [make_teacher(folder / str(seed), names, seed=seed) for seed, names in enumerate(labels)]
    teachers = [muka.models.upload(model).id for model in models]
    return {"teachers": teachers, "corpus": {"texts": [*TEXTS]}, "training": TRAINING, "method": METHOD}


@pytest.fixture(scope="module")
def made(muka: MukaClient, recipe: dict[str, Any]) -> Job:
    """A job that has succeeded, with a checkpoint an epoch."""
    job = muka.amalgamations.submit(recipe | {"checkpoints": {"every": "epoch", "keep": 3}})
    return job.wait(timeout=120)


_LOAD = """
from transformers import pipeline
classify = pipeline("text-classification", "{name}", revision="{revision}")
print(classify("my parcel is late"))
"""


@pytest.mark.parametrize("revision", ["main", "step-9"])
def test_three_lines_of_python_load_what_the_service_has_just_made(
    first: Muka, made: Job, tmp_path: Path, revision: str
) -> None:
    """Where there is nothing but the two libraries, what they need, and torch to compute with."""
    clean = linked(tmp_path / "clean", "huggingface_hub", "transformers", "torch")
    assert not [path for path in clean.iterdir() if path.name.startswith(("app", "worker", "muka"))]
    hub = {"HF_ENDPOINT": f"{first.url}/hub", "HF_TOKEN": KEY, "HF_HOME": str(tmp_path / "hf")}
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [base_python(), "-S", "-c", _LOAD.format(name=f"students/{made.student().id}", revision=revision)],
        env=kept | hub | {"HOME": str(tmp_path), "PYTHONPATH": str(clean)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    [answer] = ast.literal_eval(done.stdout)
    assert answer["label"] in {"refund", "invoice", "late", "lost"}


def test_the_second_service_learns_from_a_student_and_a_checkpoint_of_the_first(
    first: Muka, made: Job, tmp_path: Path
) -> None:
    name = f"students/{made.student().id}"
    hub = {"HF_ENDPOINT": f"{first.url}/hub", "HF_TOKEN": KEY, "HF_HUB_OFFLINE": "0"}
    with (
        serving(tmp_path / "second", HF_HOME=str(tmp_path / "hf"), **hub) as second,
        MukaClient(second.url) as muka,
    ):
        job = muka.amalgamations.create(
            teachers=[name, {"model": f"{name}@step-6", "labels": {"late": "delayed"}}],
            corpus={"texts": [*TEXTS]},
            training={"epochs": 1},
            method=METHOD,
        ).wait(timeout=120)
        teachers = (job.amalgamation.model_extra or {})["teachers"]
        assert [teacher["source"] for teacher in teachers] == ["hub", "hub"]
        assert [len(teacher["commit"]) for teacher in teachers] == [40, 40]
        assert teachers[0]["commit"] != teachers[1]["commit"]
        assert job.report is not None
        assert [teacher["passes_computed"] for teacher in job.report["teachers"]] == [2 * len(TEXTS)] * 2
        assert job.student().labels == ["refund", "invoice", "late", "lost", "delayed"]


def _cli(first: Muka, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.cli", *arguments, "--url", first.url, "--api-key", KEY]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_job_that_was_given_up_goes_on_and_is_given_up_with_a_student(
    first: Muka, muka: MukaClient, recipe: dict[str, Any], tmp_path: Path
) -> None:
    job = muka.amalgamations.submit(recipe | {"training": TRAINING | {"epochs": 1000}})
    for keep in ((), ("--keep-best",)):
        before = job.refresh().progress.step or 0
        wait_until(lambda: (job.refresh().progress.step or 0) > before, "it trains")  # noqa: B023
        assert _cli(first, "cancel", job.id, *keep).returncode == 0
        wait_until(lambda: job.refresh().has_ended, "it ends")
        if not keep:
            assert job.status == "cancelled"
            [checkpoint] = [json.loads(_cli(first, "checkpoints", job.id, "--json").stdout)]
            assert checkpoint["id"] in _cli(first, "checkpoints", job.id).stdout
            resumed = _cli(first, "resume", job.id)
            assert (resumed.returncode, "is queued" in resumed.stdout) == (0, True), resumed.stderr
    told = [event.message for event in job.events()]
    assert f"going on from step {checkpoint['step']}" in told
    assert "kept as a student as it was at step" in told[-1]
    fetched = _cli(first, "download", job.id, str(tmp_path / "student"))
    assert fetched.returncode == 0, fetched.stderr
    assert "cut short" in (tmp_path / "student" / "README.md").read_text()
    refused = _cli(first, "resume", job.id)
    assert (refused.returncode, "kept its student" in refused.stderr) == (3, True)
