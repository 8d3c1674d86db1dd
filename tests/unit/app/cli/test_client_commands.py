"""How client commands end, as processes; `tests/e2e/test_command_line.py` has the whole path."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.app.client.scripted_server import Reply, ScriptedServer, event_stream, running

ROOT = Path(__file__).parents[4]
JOB = "amg-" + "0" * 32
URL = f"/amalgamations/{JOB}"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with running() as scripted:
        scripted.on("GET", f"{URL}/events", Reply.of({"data": [], "has_more": False}))
        yield scripted


def muka(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_service_asks_whether_it_runs() -> None:
    done = muka("list", "--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "is `muka serve` running there?" in done.stderr
    assert "Traceback" not in done.stderr


def test_address_and_key_may_come_from_the_environment(server: ScriptedServer) -> None:
    server.on("GET", "/amalgamations", Reply.of({"data": [], "has_more": False}))
    done = muka("list", MUKA_URL=server.url, MUKA_API_KEY="secret")
    assert (done.returncode, done.stdout) == (0, "")
    assert server.requests[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 2)])
def test_watch_ends_as_the_job_did(server: ScriptedServer, status: str, code: int) -> None:
    failure = {"code": "diverged", "message": "the loss is NaN", "hint": "lower learning_rate"}
    job = {"id": JOB, "status": status, "failure": failure if status == "failed" else None}
    server.on("GET", URL, Reply.of(job))
    done = muka("watch", JOB, "--url", server.url)
    assert done.returncode == code
    assert ("lower learning_rate" in done.stderr) == (status == "failed")


def test_watch_tells_each_event_once(server: ScriptedServer) -> None:
    server.on(
        "GET", URL, *[Reply.of({"id": JOB, "status": s}, Retry_After="0") for s in ("running", "succeeded")]
    )
    events = [
        {"sequence": 1, "type": "stage", "message": "[training] begins"},
        {"sequence": 2, "type": "metric", "message": "step 9"},
        {"sequence": 3, "type": "status", "message": "published", "data": {"status": "succeeded"}},
    ]
    server.on("GET", f"{URL}/events", event_stream(*events))
    done = muka("watch", JOB, "--url", server.url)
    assert done.stdout == "[training] begins\npublished\n"


def test_ctrl_c_leaves_the_job_alone(server: ScriptedServer) -> None:
    server.on("GET", URL, Reply.of({"id": JOB, "status": "running"}, Retry_After="1"))
    command = [sys.executable, "-m", "app.cli", "watch", JOB, "--url", server.url]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 30
        while len(server.seen("GET", URL)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Jobs go on" in told
    assert "Traceback" not in told
    assert server.seen("POST", ".*") == []


def test_download_of_a_student_that_is_not_there_says_so(server: ScriptedServer, tmp_path: Path) -> None:
    done = muka("download", "stu-1", str(tmp_path), "--url", server.url)
    assert done.returncode == 3
    assert "no /students/stu-1/files" in done.stderr


TOGETHER = {"id": JOB, "status": "succeeded", "student_id": None}
ROWS = b'{"row": 0, "text": "x", "label": "refund"}\n{"row": 1, "text": "\xe2\x80\xa8", "label": "late"}\n'


def _check_texts(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["texts.jsonl"]
    lines = (folder / "texts.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["label"] for line in lines[:-1]] == ["refund", "late"]


def test_of_a_job_without_a_student_its_texts_are_downloaded(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET", URL, Reply.of(TOGETHER))
    server.on("GET", f"{URL}/texts", Reply(body=ROWS))
    done = muka("download", JOB, str(tmp_path / "here"), "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert f"is in {tmp_path / 'here' / 'texts.jsonl'}" in done.stderr
    _check_texts(tmp_path / "here")


def test_submitting_such_a_job_ends_with_its_id_and_where_the_answers_are(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.on("POST", "/amalgamations", Reply.of({"id": JOB, "status": "queued"}, status=202))
    server.on("GET", URL, Reply.of(TOGETHER))
    server.on("GET", f"{URL}/texts", Reply(body=ROWS))
    command = ("submit", "a/b", "c/d", "--corpus", "cor-" + "0" * 32, "--method", "ensemble")
    done = muka(*command, "--download", str(tmp_path / "here"), "--url", server.url)
    assert (done.returncode, done.stdout) == (0, f"{JOB}\n"), done.stderr
    assert f"muka texts {JOB}" in done.stderr
    assert json.loads(server.seen("POST", "/amalgamations")[0].body)["method"] == {"name": "ensemble"}
    _check_texts(tmp_path / "here")


def test_a_download_of_texts_that_breaks_off_leaves_no_file_of_that_name(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.on("GET", URL, Reply.of(TOGETHER))
    server.on("GET", f"{URL}/texts", Reply(body=ROWS + b"no row\n"))
    done = muka("download", JOB, str(tmp_path), "--url", server.url)
    assert done.returncode == 3
    assert not (tmp_path / "texts.jsonl").exists()


def test_one_teacher_is_refused_before_anything_is_sent(server: ScriptedServer) -> None:
    done = muka("submit", "a/b", "--corpus", "cor-1", "--url", server.url)
    assert done.returncode == 3
    assert "at least two teachers" in done.stderr
    assert server.requests == []


PLAN = {
    "would_be_accepted": False,
    "problems": [{"pointer": "/training/epochs", "code": "x", "detail": "must be at least 1"}],
    "labels": {"union": ["refund", "late"], "shared": {"refund": [0, 1]}, "similar": [["Late", "late"]]},
    "teachers": [
        {"reference": "a/b", "parameters": 1000, "facts": {"layers": 2, "can_be_sampled": False}},
        {"reference": "c/d"},
    ],
    "corpus": {"texts": 100, "tokens": 2000, "truncated_share": 0.05},
    "estimates": {"scoring_passes": 200, "time": {"seconds": None, "reason": "no job has finished"}},
}


def test_a_dry_run_shows_the_plan_and_ends_as_submitting_would(server: ScriptedServer) -> None:
    server.on("POST", "/amalgamations/plan", Reply.of(PLAN), Reply.of(PLAN | {"would_be_accepted": True}))
    command = ("submit", "a/b", "c/d", "--corpus", "cor-" + "0" * 32, "--dry-run", "--url", server.url)
    refused, accepted = muka(*command), muka(*command, "--json")
    assert (refused.returncode, accepted.returncode) == (3, 0)
    for told in (
        "1,000 parameters, 2 layers, no dropout, so it cannot be sampled",
        "c/d  not found",
        "refund is shared by the teachers 0, 1",
        "5.0% truncated (estimated)",
        "not estimated: no job has finished",
        "/training/epochs: must be at least 1",
        "It would be refused.",
    ):
        assert told in refused.stdout
    assert accepted.stdout.startswith('{"would_be_accepted":true')
    assert not server.seen("POST", "/amalgamations")


def test_a_dry_run_says_when_no_student_would_be_trained(server: ScriptedServer) -> None:
    estimates = {"scoring_passes": 200, "training_texts": 0, "memory": {"training_bytes": 0}}
    server.on("POST", "/amalgamations/plan", Reply.of(PLAN | {"estimates": estimates}))
    done = muka("submit", "a/b", "c/d", "--corpus", "cor-" + "0" * 32, "--dry-run", "--url", server.url)
    assert "passes    200 texts through teachers, no student is trained" in done.stdout
    assert "to train" not in done.stdout


def test_a_dry_run_uploads_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "inbox.txt").write_text("a text")
    corpus = ("--corpus", str(tmp_path / "inbox.txt"))
    done = muka("submit", "a/b", "c/d", *corpus, "--dry-run", "--url", server.url)
    assert done.returncode == 3
    assert "a dry run uploads nothing" in done.stderr
    assert server.requests == []


REPORT = {
    "teachers": [{"name": "acme/bank", "labels": ["refund", None], "passes_per_text": 3.25}, {"name": "b"}],
    "choice": {"chosen_share": [0.75, 0.25], "mean_weight": [0.7, 0.3], "mean_score": [0.5, 0.4]},
    "agreement": {"top1": 0.987},
    "orphans": {"texts": 33, "share": 0.02, "certainty_below": 0.5},
    "evaluation": {"texts": 40, "student": {"accuracy": 0.9125, "macro_f1": 0.9, "calibration_error": 0.05}},
}


def test_report_shows_teachers_figures_and_orphans(server: ScriptedServer) -> None:
    row = {
        "row": 17,
        "text": "where do I\npark?",
        "certainty": [0.21, 0.2],
        "label": "refund",
        "orphan": True,
    }
    server.on("GET", f"{URL}/report", Reply.of(REPORT))
    server.on("GET", f"{URL}/texts", Reply(body=json.dumps(row).encode() + b"\n"))
    shown, as_json = (
        muka("report", JOB, "--url", server.url),
        muka("report", JOB, "--json", "--url", server.url),
    )
    assert shown.returncode == 0
    words = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for told in (
        "acme/bank 1 3.2 75.0% 0.70 0.50",
        "the student 91.2% 0.900 0.050",
        "The student agrees with what it was taught on 98.7% of the corpus.",
        "No teacher is sure (certainty by entropy below 0.5) of 33 texts (2.0%).",
        "17 refund: where do I park?",
        f"… `muka texts {JOB} --orphans` has all",
    ):
        assert told in words
    assert json.loads(as_json.stdout) == REPORT


def test_report_of_a_job_without_a_student_shows_the_others(server: ScriptedServer) -> None:
    figures = {"accuracy": 0.5, "macro_f1": 0.4, "calibration_error": 0.1}
    evaluation = {"texts": 40, "ensemble": figures, "naive_ensemble": figures, "teachers": [figures] * 2}
    told = {key: value for key, value in REPORT.items() if key != "agreement"}
    server.on("GET", f"{URL}/report", Reply.of(told | {"orphans": {"texts": 0}, "evaluation": evaluation}))
    shown = muka("report", JOB, "--url", server.url)
    assert shown.returncode == 0, shown.stderr
    assert "all teachers, by certainty" in shown.stdout
    assert "chosen for" in shown.stdout
    assert "student" not in shown.stdout


def test_report_of_a_method_that_chooses_nobody_does_not_say_that_it_did(server: ScriptedServer) -> None:
    choice = REPORT["choice"] | {"decides": False}
    server.on("GET", f"{URL}/report", Reply.of(REPORT | {"choice": choice, "orphans": {"texts": 0}}))
    shown = muka("report", JOB, "--url", server.url)
    assert "most certain on" in shown.stdout
    assert "chosen for" not in shown.stdout


def test_texts_prints_json_lines(server: ScriptedServer) -> None:
    server.on("GET", f"{URL}/texts", Reply(body=b'{"row": 3, "text": "x"}\n'))
    done = muka("texts", JOB, "--orphans", "--url", server.url)
    assert json.loads(done.stdout)["row"] == 3
    assert server.requests[0].query == "after=-1&orphans=true"
