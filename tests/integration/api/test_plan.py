"""`POST /amalgamations/plan`: everything told, nothing stored."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.domain.status import Status
from app.persistence.tables import Amalgamation, Base, Corpus
from app.services.backend import Backend
from tests.api_objects import add_corpus, add_model, bert_config, model_files, put_folder
from tests.hub_server import Hub
from tests.jobs import add_job

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Json = dict[str, Any]
CONFIG: Json = {
    "hidden_size": 32,
    "max_position_embeddings": 64,
    "vocab_size": 100,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
}


def _plan(api: TestClient, body: Json) -> Json:
    answer = api.post("/amalgamations/plan", json=body)
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    return shown


def _rows(backend: Backend) -> int:
    with backend.database.read() as session:
        counts = [session.scalar(select(func.count()).select_from(t)) for t in Base.metadata.sorted_tables]
    return sum(count or 0 for count in counts)


def _files(backend: Backend) -> list[str]:
    return [key for prefix in ("corpora", "models", "jobs") for key in backend.store.list(prefix)]


def _configure(backend: Backend, model_id: str, labels: tuple[str, ...], **changes: Any) -> None:
    backend.store.delete(f"models/{model_id}")
    files = model_files(labels, model_id) | {"config.json": bert_config(labels, **(CONFIG | changes))}
    put_folder(backend, f"models/{model_id}", files)


def _measure(backend: Backend, corpus_id: str, **lengths: float) -> None:
    with backend.database.write() as session:
        session.get_one(Corpus, corpus_id).statistics = {"characters": lengths}


class TestNothingIsStored:
    def test_neither_for_a_sound_body_nor_for_inline_texts(
        self, api: TestClient, backend: Backend, body: Json
    ) -> None:
        before, files = _rows(backend), _files(backend)
        assert _plan(api, body)["would_be_accepted"] is True
        inline = _plan(api, body | {"corpus": {"texts": ["a text", "a text", " ", "another"]}})
        assert (inline["corpus"]["source"], inline["corpus"]["texts"]) == ("texts", 2)
        assert (_rows(backend), _files(backend)) == (before, files)


@on_sqlite
class TestProblems:
    def test_they_are_those_for_which_the_job_is_refused(self, api: TestClient, body: Json) -> None:
        faulty = body | {
            "teachers": [*body["teachers"], "mdl-" + "0" * 32, body["teachers"][0]],
            "training": {"epochs": 0},
            "student": {"init_from": "teachers/9"},
        }
        planned = _plan(api, faulty)
        refused = api.post("/amalgamations", json=faulty)
        assert planned["would_be_accepted"] is False
        assert planned["problems"] == refused.json()["errors"] != []
        codes = {problem["code"] for problem in planned["problems"]}
        assert codes >= {"teacher_not_found", "same_teacher", "teacher_out_of_range"}
        assert [teacher["source"] for teacher in planned["teachers"]] == ["model", "model", None, "model"]

    @pytest.mark.parametrize("body", [[], "text", 7, None])
    def test_a_body_that_is_nothing_like_a_job_is_refused(self, api: TestClient, body: Any) -> None:
        assert api.post("/amalgamations/plan", json=body).status_code == 422

    def test_an_empty_object_lists_what_is_missing(self, api: TestClient) -> None:
        planned = _plan(api, {})
        assert {problem["pointer"] for problem in planned["problems"]} >= {"/teachers", "/corpus"}
        assert planned["corpus"] is None
        assert planned["estimates"]["scoring_passes"] is None

    def test_objects_of_others_are_not_found(self, api: TestClient, backend: Backend, body: Json) -> None:
        planned = _plan(api, body | {"corpus": add_corpus(backend, owner="other")})
        assert planned["corpus"] is None
        assert [problem["code"] for problem in planned["problems"]] == ["corpus_not_found"]


@on_sqlite
class TestLabels:
    def test_shared_similar_and_nameless_labels_are_told(self, api: TestClient, backend: Backend) -> None:
        labels = (("refund", "late-delivery"), ("refund", "Late Delivery"), ("LABEL_0", "LABEL_1"))
        models = [add_model(backend, each, weights=str(each)) for each in labels]
        told = _plan(api, {"teachers": models, "corpus": add_corpus(backend)})["labels"]
        assert told["union"] == ["refund", "late-delivery", "Late Delivery", "LABEL_0", "LABEL_1"]
        assert told["shared"] == {"refund": [0, 1]}
        assert told["similar"] == [["late-delivery", "Late Delivery"]]
        assert told["placeholders"] == {"2": ["LABEL_0", "LABEL_1"]}

    def test_a_mapping_is_applied(self, api: TestClient, body: Json) -> None:
        first = {"model": body["teachers"][0], "labels": {"refund": "money back", "invoice": None}}
        planned = _plan(api, body | {"teachers": [first, body["teachers"][1]]})
        assert planned["teachers"][0]["labels"] == ["money back", None]
        assert planned["labels"]["union"] == ["money back", "late", "lost"]
        assert [problem["code"] for problem in planned["problems"]] == ["too_few_labels"]


@on_sqlite
class TestTeachers:
    def test_facts_come_from_the_configuration(self, api: TestClient, backend: Backend, body: Json) -> None:
        _configure(backend, body["teachers"][0], ("refund", "invoice"))
        _configure(
            backend,
            body["teachers"][1],
            ("late", "lost"),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0,
            vocab_size="many",
        )
        first, second = _plan(api, body)["teachers"]
        assert first["facts"] == {
            "layers": 2,
            "hidden_size": 32,
            "max_tokens": 64,
            "vocabulary": 100,
            "dropout": 0.2,
            "can_be_sampled": True,
            "tokenizer": "fast",
        }
        assert (first["parameters"], first["architecture"]) == (1000, "BertForSequenceClassification")
        assert (second["facts"]["can_be_sampled"], second["facts"]["vocabulary"]) == (False, None)

    def test_a_teacher_on_the_hub_has_its_commit(self, api: TestClient, body: Json, hub: Hub) -> None:
        commit = hub.add("acme/intents", model_files(("a", "b")))
        planned = _plan(api, body | {"teachers": ["acme/intents", body["teachers"][0]]})
        first = planned["teachers"][0]
        assert (first["source"], first["commit"], first["facts"]["tokenizer"]) == ("hub", commit, "fast")
        assert first["parameters"] is None, "this Hub has not counted them"
        assert planned["estimates"]["memory"]["teachers_bytes"] is None


@on_sqlite
class TestTexts:
    @pytest.mark.parametrize(("max_length", "share"), [(4, 0.95), (127, 0.025), (202, 0.0), (8, 0.5)])
    def test_the_truncated_share_follows_the_lengths(
        self, api: TestClient, backend: Backend, body: Json, max_length: int, share: float
    ) -> None:
        _measure(backend, body["corpus"], min=7, mean=100.0, median=24, p95=200, max=800)
        told = _plan(api, body | {"training": {"max_length": max_length}})["corpus"]
        assert (told["texts"], told["characters"]) == (100, 10_000)
        assert told["truncated_share"] == pytest.approx(share, abs=0.04)

    def test_a_data_set_of_the_hub_is_not_read(self, api: TestClient, body: Json) -> None:
        planned = _plan(api, body | {"corpus": {"dataset": "acme/texts"}})
        assert (planned["corpus"]["source"], planned["corpus"]["texts"]) == ("dataset", None)
        assert "not known" in planned["estimates"]["time"]["reason"]


@on_sqlite
class TestEstimates:
    def test_passes_count_samples_of_teachers_that_can_be_sampled_only(
        self, api: TestClient, backend: Backend, body: Json
    ) -> None:
        _configure(backend, body["teachers"][0], ("refund", "invoice"))
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        _configure(backend, body["teachers"][1], ("late", "lost"), **off)
        told = _plan(api, body | {"method": {"name": "muka", "mc_samples": 8}, "training": {"epochs": 4}})[
            "estimates"
        ]
        assert (told["scoring_passes"], told["training_texts"]) == (100 * (1 + 8 + 1), 400)
        plain = _plan(api, body | {"method": {"name": "vanilla_kd"}})["estimates"]
        assert plain["scoring_passes"] == 200

    def test_memory_is_weights_and_optimizer(self, api: TestClient, body: Json) -> None:
        told = _plan(api, body)["estimates"]["memory"]
        assert told == {"teachers_bytes": 8000, "largest_teacher_bytes": 4000, "training_bytes": 16_000}

    def test_without_a_student_there_is_no_training_in_them(
        self, api: TestClient, backend: Backend, body: Json, advance: Callable[..., None]
    ) -> None:
        speeds = ({"training_texts_per_second": 10.0}, {"training_texts_per_second": None})
        for training, seconds in zip(speeds, ({"evaluating": 7}, {"evaluating": 3}), strict=True):
            report = {"throughput": {"scoring_passes_per_second": 50.0, **training}, "seconds": seconds}
            advance(add_job(backend.database), Status.SUCCEEDED, report=report)
        told = _plan(api, body | {"method": {"name": "ensemble", "mc_samples": 0}})["estimates"]
        assert (told["scoring_passes"], told["training_texts"]) == (200, 0)
        assert told["memory"]["training_bytes"] == 0
        assert told["time"] == {"seconds": 200 / 50 + 5, "from_jobs": 2, "reason": None}
        trained = _plan(api, body)["estimates"]["time"]
        assert trained["from_jobs"] == 1, "one that trained nothing does not tell how fast a training is"

    def test_time_is_null_with_a_reason_until_a_job_has_finished(
        self, api: TestClient, backend: Backend, body: Json, advance: Callable[..., None]
    ) -> None:
        told = _plan(api, body)["estimates"]["time"]
        assert (told["seconds"], told["from_jobs"]) == (None, 0)
        assert "no job of yours" in told["reason"]
        for speed in (50.0, 100.0, 200.0):
            throughput = {"scoring_passes_per_second": speed, "training_texts_per_second": 10.0}
            seconds = {"preparing": 2, "scoring": 99, "training": 99, "publishing": 3}
            report = {"throughput": throughput, "seconds": seconds}
            advance(add_job(backend.database), Status.SUCCEEDED, report=report)
        advance(add_job(backend.database), Status.SUCCEEDED, report={"throughput": {}})
        body |= {"method": {"name": "muka", "mc_samples": 0}, "training": {"epochs": 1}}
        told = _plan(api, body)["estimates"]["time"]
        assert told == {"seconds": 200 / 100 + 100 / 10 + 5, "from_jobs": 3, "reason": None}

    def test_jobs_of_others_tell_nothing(
        self, api: TestClient, backend: Backend, body: Json, advance: Callable[..., None]
    ) -> None:
        job_id = add_job(backend.database)
        throughput = {"scoring_passes_per_second": 1.0, "training_texts_per_second": 1.0}
        advance(job_id, Status.SUCCEEDED, report={"throughput": throughput, "seconds": {}})
        with backend.database.write() as session:
            session.get_one(Amalgamation, job_id).owner = "other"
        assert _plan(api, body)["estimates"]["time"]["seconds"] is None
