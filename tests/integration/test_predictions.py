"""Predictions over HTTP, with Postgres, Redis and a prediction worker in a process of its own."""

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from transformers import pipeline

from app.client import MukaClient
from app.domain.status import Status
from app.services.backend import Backend
from app.settings import Settings
from app.task_queue import QUEUE
from tests.api_objects import add_student
from tests.e2e.service import ROOT, Muka
from tests.jobs import add_job, job_of
from tests.live_service import live_service
from tests.prediction_worker import LABELS, keys_left, prediction_worker, publish
from tests.servers import wait_until
from tests.tiny_models import TEXTS


@dataclass(frozen=True)
class Site:
    """A service with one prediction worker and one student."""

    backend: Backend
    http: httpx.Client
    student: str
    folder: Path

    def ask(self, texts: Any, student: str | None = None, **more: Any) -> httpx.Response:
        url = f"/students/{student or self.student}/predictions"
        # By hand: httpx would not send what is no character.
        return self.http.post(
            url, content=json.dumps({"texts": texts, **more}), headers={"Content-Type": "application/json"}
        )

    def answers(self, texts: Any, student: str | None = None, **more: Any) -> list[dict[str, Any]]:
        answer = self.ask(texts, student, **more)
        assert answer.status_code == 200, answer.text
        data: list[dict[str, Any]] = answer.json()["data"]
        return data


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, migrated_postgres_url: Callable[[], str], redis_server_url: str
) -> Settings:
    folder = tmp_path_factory.mktemp("site")
    return Settings(
        data_dir=folder,
        store_dir=folder / "store",
        database_url=migrated_postgres_url(),
        broker_url=redis_server_url,
        caretaker_seconds=1000,
    )


@pytest.fixture(scope="module")
def worker(settings: Settings) -> Iterator[Muka]:
    with prediction_worker(settings, settings.data_dir) as running:
        yield running


@pytest.fixture(scope="module")
def site(settings: Settings, worker: Muka) -> Iterator[Site]:
    backend = Backend.from_settings(settings)
    with live_service(settings) as http:
        student = publish(backend, settings.data_dir / "student")
        yield Site(backend, http, student, settings.data_dir)
    backend.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(settings: Settings) -> Iterator[None]:
    yield
    wait_until(lambda: not keys_left(str(settings.broker_url)), "nothing of predictions is left in Redis")


def _downloaded(site: Site, folder: Path) -> Path:
    archive = site.http.get(f"/students/{site.student}/download").content
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder / site.student


class TestAnswers:
    def test_are_the_pipeline_s_on_the_downloaded_folder(self, site: Site, tmp_path: Path) -> None:
        texts = [*TEXTS, "it costs 5 € \N{PARTY POPPER}", "a\nb", " hello ", "flight " * 300]
        classify = pipeline("text-classification", str(_downloaded(site, tmp_path)), device="cpu")
        expected = classify(texts, top_k=None, truncation=True)
        answers = site.answers(texts, top_k=None)
        for answer, wanted in zip(answers, expected, strict=True):
            told = {each["label"]: each["probability"] for each in answer["top"]}
            assert told == pytest.approx({each["label"]: each["score"] for each in wanted}, abs=1e-5)
            assert set(told) == set(LABELS)
            assert (answer["label"], answer["probability"]) == next(iter(told.items()))
            assert list(told.values()) == sorted(told.values(), reverse=True)

    def test_name_the_student_and_hold_to_the_contract(self, site: Site) -> None:
        from app.api.schemas_predictions import Predictions  # noqa: PLC0415

        body = site.ask(["hello"]).json()
        assert Predictions.model_validate(body, strict=True, extra="forbid").model_dump() == body
        assert body["student_id"] == site.student
        assert body["digest"] == site.http.get(f"/students/{site.student}").json()["digest"]

    def test_tell_as_many_labels_as_are_wanted(self, site: Site) -> None:
        assert [len(site.answers(["hello"], **wanted)[0]["top"]) for wanted in ({}, {"top_k": 1})] == [5, 1]
        assert len(site.answers(["hello"], top_k=500)[0]["top"]) == len(LABELS)

    def test_tell_which_texts_are_cut_off(self, site: Site) -> None:
        """The student reads 64 tokens: 62 words between two specials."""
        texts = ["hello", "flight " * 62, "flight " * 63]
        assert [answer["truncated"] for answer in site.answers(texts)] == [False, False, True]

    def test_come_in_the_order_of_the_texts(self, site: Site) -> None:
        """Though the longest are read first, and equal ones together."""
        texts = [f"{TEXTS[i % len(TEXTS)]} {'is ' * (i % 50)}" for i in range(256)]
        singly = {text: site.answers([text])[0] for text in texts[100:110]}
        together = site.answers(texts)
        for text, alone in singly.items():
            among = together[texts.index(text)]
            assert among["probability"] == pytest.approx(alone["probability"], abs=1e-5)
            assert [each["label"] for each in among["top"]] == [each["label"] for each in alone["top"]]

    def test_reach_the_one_who_asked(self, site: Site) -> None:
        other = publish(site.backend, site.folder / "other", ("yes", "no"), seed=7)
        asked = [(student, text) for text in TEXTS for student in (site.student, other)]
        expected = [site.answers([text], student) for student, text in asked]
        with ThreadPoolExecutor(12) as clients:
            got = list(clients.map(lambda each: site.answers([each[1]], each[0]), asked * 3))
        for answer, wanted in zip(got, expected * 3, strict=True):
            assert answer[0]["label"] == wanted[0]["label"]
            assert answer[0]["probability"] == pytest.approx(wanted[0]["probability"], abs=1e-5)


class TestRefusals:
    def test_every_faulty_text_is_named(self, site: Site) -> None:
        answer = site.ask(["fine", " \n\t", "x" * 20_001, "a\0b", "\ud800"])
        assert answer.status_code == 422
        faults = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
        assert faults == [
            ("/texts/1", "empty_text"),
            ("/texts/2", "text_too_long"),
            ("/texts/3", "not_text"),
            ("/texts/4", "not_utf8"),
        ]

    @pytest.mark.parametrize(
        "body",
        [
            {"texts": []},
            {"texts": ["a"] * 257},
            {"texts": "a"},
            {"texts": ["a"], "top_k": 0},
            {"texts": ["a"], "inputs": ["a"]},
            {},
        ],
    )
    def test_a_body_that_breaks_the_contract(self, site: Site, body: dict[str, Any]) -> None:
        answer = site.http.post(f"/students/{site.student}/predictions", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["errors"]

    def test_a_student_that_is_deleted_unknown_or_another_owner_s(self, site: Site) -> None:
        deleted = publish(site.backend, site.folder / "deleted")
        site.answers(["it is warm now"], deleted)
        assert site.http.delete(f"/students/{deleted}").status_code == 204
        foreign = add_student(site.backend, owner="somebody else")
        for student in (deleted, foreign, "stu-" + "0" * 32, "amg-" + "0" * 32, "x"):
            answer = site.ask(["hello"], student)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_a_student_that_cannot_be_loaded_is_a_problem_of_its_own(self, site: Site) -> None:
        broken = add_student(site.backend, {"config.json": b"{}"})
        answer = site.ask(["hello"], broken)
        assert (answer.status_code, answer.json()["code"]) == (503, "prediction_failed")
        assert answer.headers["retry-after"]
        assert str(site.folder) not in answer.text
        site.answers(["the worker goes on"])

    def test_a_student_whose_files_are_gone(self, site: Site) -> None:
        gone = add_student(site.backend, {"config.json": b"{}"})
        site.backend.store.delete(f"students/{gone}")
        answer = site.ask(["hello"], gone)
        assert (answer.status_code, answer.json()["code"]) == (503, "prediction_failed")
        assert str(site.folder) not in answer.text


class TestClient:
    def test_asks_by_student_and_by_id(self, site: Site) -> None:
        with MukaClient(str(site.http.base_url)) as client:
            student = client.students.get(site.student)
            said = client.students.predict(student, TEXTS, top_k=2)
            assert client.students.predict(student.id, TEXTS, top_k=2) == said
        assert (said.student_id, len(said.data)) == (student.id, len(TEXTS))
        best, second = said.data[0].top
        assert (best.label, best.probability) == (said.data[0].label, said.data[0].probability)
        assert best.probability >= second.probability
        assert not said.data[0].truncated

    def _muka(self, site: Site, *arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "app.cli", "predict", site.student, *arguments]
        command += ["--url", str(site.http.base_url)]
        return subprocess.run(
            command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def test_the_command_shows_a_line_for_each_text(self, site: Site) -> None:
        lines = self._muka(site, "hello", "flight " * 99).splitlines()
        label = site.answers(["hello"])[0]["label"]
        assert re.fullmatch(rf"{label} \d+\.\d %\thello", lines[0])
        assert lines[1].endswith("(its end was not read)")

    def test_the_command_reads_any_number_of_lines(self, site: Site) -> None:
        texts = [f"{text} {number}" for number in range(25) for text in TEXTS]
        told = self._muka(site, "--json", "--top-k", "3", stdin="\n\n".join(texts))
        answers = [json.loads(line) for line in told.splitlines()]
        assert [answer["text"] for answer in answers] == texts
        assert {len(answer["top"]) for answer in answers} == {3}


class TestWorker:
    def test_leaves_jobs_alone(self, site: Site) -> None:
        job = add_job(site.backend.database)
        site.backend.queue.enqueue(job)
        site.answers(["hello"])
        with redis.Redis.from_url(str(site.backend.settings.broker_url)) as client:
            assert client.llen(QUEUE) == 1
            client.delete(QUEUE)
        assert job_of(site.backend.database, job).status == Status.QUEUED
        with site.backend.database.write() as session:
            session.delete(job_of(site.backend.database, job))
