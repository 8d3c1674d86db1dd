"""The client's commands as a user types them, against a real `muka serve` with its worker."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, Muka, serving
from tests.tiny_models import TEXTS, make_teacher

QUICKLY = ["--method", "muka", "--mc-samples", "1", "--epochs", "1", "--max-length", "16"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muka]:
    with serving(tmp_path_factory.mktemp("muka") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_teacher(folder / "billing", ("LABEL_0", "invoice", "other"), seed=1)
    make_teacher(folder / "shipping", ("late", "lost"), seed=2)
    (folder / "inbox.txt").write_text("\n".join(TEXTS))
    gold = [{"text": text, "label": "late"} for text in TEXTS[:4]]
    (folder / "gold.jsonl").write_text("\n".join(map(json.dumps, gold)))
    return folder


def muka(service: Muka, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.cli", *map(str, arguments), "--url", service.url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_folders_and_texts_become_a_student_in_one_command(
    service: Muka, inputs: Path, tmp_path: Path
) -> None:
    teachers: list[str | Path] = [inputs / "billing", "--teacher", inputs / "shipping"]
    mapping = ["--rename", "0:LABEL_0=refund", "--drop", f"{inputs / 'billing'}:other"]
    (tmp_path / "recipe.json").write_text(json.dumps({"training": {"seed": 7}, "name": "from the file"}))
    texts: list[str | Path] = ["--corpus", inputs / "inbox.txt", "--evaluation", inputs / "gold.jsonl"]
    done = muka(
        service, "submit", *teachers, *mapping, *texts, *QUICKLY, "--recipe", tmp_path / "recipe.json",
        "--name", "router", "--metadata", "a=b", "--download", tmp_path / "student", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["name"], job["metadata"]) == ("succeeded", "router", {"a": "b"})
    assert job["labels"] == ["refund", "invoice", "late", "lost"]
    assert job["recipe"]["training"]["seed"] == 7
    assert job["report"]["evaluation"]["texts"] == 4
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert list(config["id2label"].values()) == job["labels"]

    watched = muka(service, "watch", job["id"])
    assert watched.returncode == 0
    assert "training the student" in watched.stdout

    again = muka(service, "download", job["id"], tmp_path / "again")
    assert again.returncode == 0
    student = (tmp_path / "student" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == student


def test_the_ensemble_labels_the_corpus_and_makes_no_student(
    service: Muka, inputs: Path, tmp_path: Path
) -> None:
    done = muka(
        service, "submit", inputs / "billing", inputs / "shipping", "--rename", "0:LABEL_0=refund",
        "--corpus", inputs / "inbox.txt", "--evaluation", inputs / "gold.jsonl", *QUICKLY,
        "--method", "ensemble", "--download", tmp_path / "labelled",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    rows = [json.loads(line) for line in (tmp_path / "labelled" / "texts.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == list(TEXTS)
    assert {row["label"] for row in rows} <= {"refund", "invoice", "other", "late", "lost"}
    assert json.loads(muka(service, "list", "--json", "--limit", "1").stdout)["student_id"] is None

    watched = muka(service, "watch", job_id)
    assert watched.returncode == 0
    assert "combining the teachers" in watched.stdout
    assert "training" not in watched.stdout
    assert "all teachers, by certainty" in muka(service, "report", job_id).stdout


def test_a_job_that_is_not_waited_for_is_listed_and_cancelled(service: Muka, inputs: Path) -> None:
    submitted = muka(
        service, "submit", inputs / "billing", inputs / "shipping", "--rename", "0:LABEL_0=refund",
        "--corpus", inputs / "inbox.txt", "--epochs", "1000", "--name", "endless",
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    assert f"muka watch {job_id}" in submitted.stderr

    assert job_id in muka(service, "list").stdout
    assert json.loads(muka(service, "list", "--json", "--limit", "1").stdout)["id"] == job_id

    assert muka(service, "cancel", job_id).returncode == 0
    watched = muka(service, "watch", job_id)
    assert (watched.returncode, "was cancelled" in watched.stderr) == (2, True), watched
    fetched = muka(service, "download", job_id)
    assert (fetched.returncode, "was cancelled" in fetched.stderr) == (2, True)


def test_a_refused_job_names_every_fault(service: Muka, inputs: Path) -> None:
    done = muka(
        service, "submit", inputs / "billing", inputs / "shipping",
        "--corpus", inputs / "inbox.txt", "--epochs", "0",
    )  # fmt: skip
    assert done.returncode == 3
    assert "LABEL_0" in done.stderr
    assert "/training/epochs" in done.stderr
    assert "Traceback" not in done.stderr
