"""POST /amalgamations: what is accepted, and what every kind of bad body gets."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.domain.access import DEFAULT_CALLER
from app.domain.errors import ConflictError, InvalidRequestError
from app.domain.recipe import Recipe
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation, Corpus, Event, IdempotencyKey
from app.persistence.time import now
from app.services import students, submission, submission_checks
from app.services.backend import Backend
from app.services.jobs import Job
from app.services.submission import Submission
from app.settings import Settings
from tests.api_objects import OWNER, add_corpus, add_model, add_student, bert_config, model_files
from tests.hub_server import Hub
from tests.servers import wait_until

# What these tests say does not depend on the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}


def _faults(api: TestClient, body: Json, status: int = 422) -> dict[str, str]:
    """Pointer to code, of a request that must be refused."""
    answer = api.post("/amalgamations", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert all(fault["detail"] for fault in answer.json()["errors"])
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


def _count(backend: Backend, table: type[Any]) -> int:
    with backend.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


class TestAccepted:
    def test_answers_202_with_place_and_whole_object(self, api: TestClient, body: Json) -> None:
        answer = api.post("/amalgamations", json=body | {"name": "router", "metadata": {"team": "support"}})
        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/amalgamations/{job['id']}"
        assert answer.headers["retry-after"] == "2"
        assert job == api.get(answer.headers["location"]).json()
        assert job["labels"] == ["refund", "invoice", "late", "lost"]
        assert (job["status"], job["stage"], job["queue_position"], job["attempt"]) == ("queued", None, 0, 0)
        assert [each["status"] for each in job["transitions"]] == ["queued"]
        assert job["created_at"].endswith("Z")
        assert job["transitions"][0]["at"].endswith("Z")

    def test_the_stored_recipe_is_complete_and_can_be_sent_again(self, api: TestClient, body: Json) -> None:
        recipe = api.post("/amalgamations", json=body).json()["recipe"]
        assert recipe["training"]["epochs"] == 3
        assert api.post("/amalgamations", json=recipe).json()["recipe"] == recipe

    def test_an_id_is_sent_to_the_broker_after_the_commit(
        self, api: TestClient, body: Json, backend: Backend, redis_url: str
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]

        def is_noted() -> bool:
            with backend.database.read() as session:
                job = amalgamations.find(session, job_id)
            assert job is not None
            return job.dispatched_at is not None

        wait_until(is_noted, "the job is sent")
        with redis.Redis.from_url(redis_url) as broker:
            messages = [json.loads(message) for message in broker.lrange("amalgamations", 0, -1)]
        assert job_id in str([message["headers"]["argsrepr"] for message in messages])

    def test_a_silent_broker_is_not_the_users_problem(
        self, settings: Settings, backend: Backend, body: Json
    ) -> None:
        from app.main import create_app  # noqa: PLC0415

        broken = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
        with TestClient(create_app(broken)) as api:
            answer = api.post("/amalgamations", json=body)
        assert answer.status_code == 202
        with backend.database.read() as session:
            job = amalgamations.find(session, answer.json()["id"])
        assert job is not None
        assert job.dispatched_at is None, "the dispatcher will send it"

    def test_a_student_of_an_earlier_job_teaches_and_starts_the_student(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        student = add_student(backend, labels=("a", "b"))
        body = body | {"teachers": [body["teachers"][0], student], "student": {"init_from": student}}
        answer = api.post("/amalgamations", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["teachers"][1]["source"] == "student"
        with backend.database.read() as session:
            row = amalgamations.find(session, answer.json()["id"])
        assert row is not None
        assert row.resolved["student"]["storage_prefix"] == f"students/{student}/attempt-1"

    def test_labels_are_renamed_dropped_and_united(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        first = add_model(backend, ("LABEL_0", "LABEL_1", "other"))
        second = add_model(backend, ("invoice", "late"))
        mapping = {"LABEL_0": "refund", "LABEL_1": "invoice", "other": None}
        job = api.post(
            "/amalgamations", json=body | {"teachers": [{"model": first, "labels": mapping}, second]}
        ).json()
        assert job["labels"] == ["refund", "invoice", "late"]
        assert job["teachers"][0]["labels"] == ["refund", "invoice", None]

    def test_a_method_that_trains_no_student_takes_what_it_leaves_unused(
        self, api: TestClient, body: Json
    ) -> None:
        unused = {
            "student": {"init_from": "teachers/0", "layers": None},
            "checkpoints": {"every": None, "keep": 1},
            "training": {"epochs": 9, "max_length": 64},
        }
        answer = api.post("/amalgamations", json=body | unused | {"method": {"name": "ensemble"}})
        assert answer.status_code == 202, answer.text
        recipe = answer.json()["recipe"]
        assert (recipe["method"]["mc_samples"], recipe["training"]["max_length"]) == (16, 64)
        assert api.post("/amalgamations", json=recipe).json()["recipe"] == recipe

    def test_two_teachers_with_the_same_labels_are_an_ensemble(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        teachers = [add_model(backend, ("a", "b"), weights) for weights in ("one", "two")]
        assert api.post("/amalgamations", json=body | {"teachers": teachers}).json()["labels"] == ["a", "b"]


@on_sqlite
class TestInlineTexts:
    def test_become_a_corpus_and_the_recipe_names_it(self, api: TestClient, body: Json) -> None:
        inline = body | {"corpus": {"texts": ["where is my money", "the parcel is late", "hello"]}}
        job = api.post("/amalgamations", json=inline)
        assert job.status_code == 202, job.text
        corpus = job.json()["corpus_id"]
        assert job.json()["recipe"]["corpus"] == corpus
        assert api.get(f"/corpora/{corpus}").json()["texts"] == 3
        again = api.post("/amalgamations", json=inline | {"name": "again"}).json()
        assert again["corpus_id"] == corpus, "the same texts are one corpus"

    def test_that_cannot_be_used_are_named_by_pointer(
        self, settings: Settings, body: Json, backend: Backend
    ) -> None:
        from app.main import create_app  # noqa: PLC0415

        short = settings.model_copy(update={"max_text_chars": 10})
        with TestClient(create_app(short)) as api:
            faults = _faults(api, body | {"corpus": {"texts": ["fits", "is longer than that"]}})
            assert set(faults) == {"/corpus/texts/1"}
            answer = api.post("/amalgamations", json=body | {"corpus": {"texts": ["", " "]}})
            assert answer.status_code == 422
        assert _count(backend, Amalgamation) == 0


class TestAllFaultsAtOnce:
    def test_of_form_database_and_settings(self, api: TestClient, body: Json, backend: Backend) -> None:
        gone = "cor-" + "0" * 32
        faults = _faults(
            api,
            {
                "teachers": [
                    body["teachers"][0],
                    "mdl-" + "0" * 32,
                    {"model": body["teachers"][0]},
                    {"labels": {}},
                ],
                "corpus": gone,
                "student": {"init_from": "teachers/9"},
                "training": {"epochs": 0, "learning_rate": "fast"},
                "method": {"name": "muka", "mc_samples": 10_000},
                "evaluation": {"corpus": add_corpus(backend)},
                "colour": "red",
            },
        )
        assert faults == {
            "/teachers/3/model": "missing",
            "/training/epochs": "greater_than_equal",
            "/training/learning_rate": "float_type",
            "/method/mc_samples": "less_than_equal",
            "/colour": "extra_forbidden",
            "/teachers/1/model": "teacher_not_found",
            "/teachers/2/model": "same_teacher",
            "/student/init_from": "teacher_out_of_range",
            "/corpus": "corpus_not_found",
            "/evaluation/corpus": "corpus_without_labels",
        }
        assert _count(backend, Amalgamation) == 0
        assert _count(backend, Event) == 0

    def test_a_student_that_the_method_does_not_train(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        wishes = {
            "method": {"name": "ensemble"},
            "student": {"init_from": body["teachers"][1], "layers": 1},
            "checkpoints": {"every": "epoch", "keep": 3},
            "evaluation": {"corpus": add_corpus(backend)},
        }
        answer = api.post("/amalgamations", json=body | wishes)
        assert {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]} == {
            "/student/init_from": "no_student",
            "/student/layers": "no_student",
            "/checkpoints/every": "no_student",
            "/checkpoints/keep": "no_student",
            "/evaluation/corpus": "corpus_without_labels",
        }
        assert answer.json()["errors"][1]["detail"] == (
            "is 1, but the method ensemble trains no student; leave student out, or choose a method that "
            "trains one"
        )
        planned = api.post("/amalgamations/plan", json=body | wishes).json()
        assert [fault["code"] for fault in planned["problems"]].count("no_student") == 4

    def test_fewer_than_two_teachers_and_an_unknown_corpus(self, api: TestClient, body: Json) -> None:
        faults = _faults(api, {"teachers": body["teachers"][:1], "corpus": "cor-x"})
        assert faults == {"/teachers": "too_short", "/corpus": "corpus_not_found"}

    def test_a_malformed_corpus_and_an_unknown_teacher(self, api: TestClient, body: Json) -> None:
        faults = _faults(api, {"teachers": [body["teachers"][0], "stu-1"], "corpus": {"texts": []}})
        assert faults == {"/corpus/texts": "too_short", "/teachers/1/model": "teacher_not_found"}

    def test_inline_texts_are_not_stored_when_anything_else_is_wrong(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        before = _count(backend, Corpus)
        _faults(api, body | {"corpus": {"texts": ["a", "b"]}, "student": {"init_from": "teachers/2"}})
        assert _count(backend, Corpus) == before


@on_sqlite
class TestRefused:
    def test_a_method_that_nobody_knows(self, api: TestClient, body: Json) -> None:
        assert set(_faults(api, body | {"method": {"name": "magic"}})) == {"/method/name"}

    ONE_FAULT = (
        ({"training": {"epochs": 0}}, "/training/epochs", "greater_than_equal"),
        ({"training": {"learning_rate": float("nan")}}, "/training/learning_rate", "finite_number"),
        ({"training": {"learning_rate": float("inf")}}, "/training/learning_rate", "finite_number"),
        ({"method": {"name": "muka", "mc_samples": 10_000}}, "/method/mc_samples", "less_than_equal"),
        ({"unknown": 1}, "/unknown", "extra_forbidden"),
        ({"training": {"epoch": 1}}, "/training/epoch", "extra_forbidden"),
        ({"a/b~c": 1}, "/a~1b~0c", "extra_forbidden"),
        ({"teachers": "both"}, "/teachers", "list_type"),
        ({"teachers": []}, "/teachers", "too_short"),
        ({"corpus": 7}, "/corpus", "string_type"),
        ({"corpus": {}}, "/corpus/texts", "missing"),
        ({"corpus": {"texts": ["a", 3]}}, "/corpus/texts/1", "string_type"),
        ({"corpus": {"texts": ["x"] * 1001}}, "/corpus/texts", "too_long"),
        ({"corpus": {"dataset": "a", "columns": 1}}, "/corpus/columns", "extra_forbidden"),
        ({"metadata": {"a": 1}}, "/metadata/a", "string_type"),
        ({"name": "a\0b"}, "/name", "nul_character"),
        ({"metadata": {"a": "\0"}}, "/metadata", "nul_character"),
        ({"student": {"layers": 3}}, "/student/layers", "too_many_layers"),
        ({"student": {"init_from": "teachers/x"}}, "/student/init_from", "teacher_out_of_range"),
        ({"student": {"init_from": "mdl-1"}}, "/student/init_from", "teacher_not_found"),
        ({"max_runtime_seconds": 0}, "/max_runtime_seconds", "greater_than_equal"),
    )

    def test_one_fault_is_named_by_its_pointer(
        self, api: TestClient, body: Json, subtests: pytest.Subtests
    ) -> None:
        for change, pointer, code in self.ONE_FAULT:
            with subtests.test(str(change)[:80]):
                answer = api.post("/amalgamations", content=json.dumps(body | change), headers=JSON)
                assert answer.status_code == 422, answer.text
                assert [(f["pointer"], f["code"]) for f in answer.json()["errors"]] == [(pointer, code)]

    def test_the_same_teacher_twice_whatever_its_id(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        twins = [add_model(backend, ("a", "b"), "same"), add_model(backend, ("c", "d"), "same")]
        assert _faults(api, body | {"teachers": twins}) == {"/teachers/1/model": "same_teacher"}

    def test_a_teacher_whose_files_are_gone_is_a_503_where_they_are_needed(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        """A job needs none of them to be queued: its worker says what is missing before it begins."""
        backend.store.delete(f"models/{body['teachers'][0]}")
        needed = body | {"student": {"layers": 1}}
        for answer in (api.post("/amalgamations", json=needed), api.post("/amalgamations/plan", json=body)):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
        assert api.post("/amalgamations", json=body).status_code == 202

    def test_a_flood_of_faults_is_cut_off_but_counted(self, api: TestClient, body: Json) -> None:
        answer = api.post("/amalgamations", json=body | {"teachers": [7] * 5000})
        assert answer.status_code == 422
        assert "5001 faults" in answer.json()["detail"]
        assert len(answer.json()["errors"]) == 1000

    def test_too_many_teachers(self, settings: Settings, backend: Backend, body: Json) -> None:
        from app.main import create_app  # noqa: PLC0415

        few = settings.model_copy(update={"max_teachers": 2})
        with TestClient(create_app(few)) as api:
            faults = _faults(api, body | {"teachers": [*body["teachers"], add_model(backend, ("x", "y"))]})
        assert faults == {"/teachers": "too_many_teachers"}

    def test_placeholder_labels_say_which_and_how_to_map(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        nameless = add_model(backend, ("LABEL_0", "LABEL_1"))
        answer = api.post("/amalgamations", json=body | {"teachers": [body["teachers"][0], nameless]})
        (fault,) = answer.json()["errors"]
        assert fault["pointer"] == "/teachers/1/labels"
        assert fault["code"] == "placeholder_labels"
        assert nameless in fault["detail"]
        assert '"labels": {"LABEL_0": "…", "LABEL_1": "…"}' in fault["detail"]

    def test_a_mapping_of_labels_that_are_not_there(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        teacher = {"model": add_model(backend, ("a", "b")), "labels": {"x/y": "z"}}
        faults = _faults(api, body | {"teachers": [body["teachers"][0], teacher]})
        assert faults == {"/teachers/1/labels/x~1y": "label_unknown"}

    def test_fewer_than_two_labels_left(self, api: TestClient, body: Json, backend: Backend) -> None:
        teacher = {"model": add_model(backend, ("a", "b")), "labels": {"a": None}}
        faults = _faults(api, body | {"teachers": [body["teachers"][0], teacher]})
        assert faults == {"/teachers/1/labels": "too_few_labels"}

    def test_objects_of_another_owner_do_not_exist(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        foreign = {
            "teachers": [body["teachers"][0], add_model(backend, ("p", "q"), owner="other")],
            "corpus": add_corpus(backend, owner="other"),
        }
        assert set(_faults(api, foreign)) == {"/teachers/1/model", "/corpus"}

    def test_json_that_cannot_be_parsed(self, api: TestClient) -> None:
        answer = api.post("/amalgamations", content=b'{"teachers": [,]}', headers=JSON)
        assert answer.status_code == 422
        assert "character 14" in answer.json()["errors"][0]["detail"]

    def test_bodies_that_are_no_recipe_at_all(self, api: TestClient, subtests: pytest.Subtests) -> None:
        unreadable = (b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}")
        surrogates = (b'{"\\ud800": 1}', b'{"name": "\\ud800", "teachers": [], "corpus": ""}')
        for content in (*unreadable, *surrogates, b"", b"null", b"[]", b'"text"', b"3", b"NaN"):
            with subtests.test(repr(content[:40])):
                answer = api.post("/amalgamations", content=content, headers=JSON)
                assert answer.status_code in (400, 422)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["errors"] or answer.status_code == 400


class TestRaces:
    def test_what_a_job_needs_is_not_deleted_while_it_is_created(self, backend: Backend, body: Json) -> None:
        student = add_student(backend, labels=("a", "b"))
        recipe = Recipe.model_validate(body | {"teachers": [body["teachers"][0], student]})
        held, deleted = threading.Event(), threading.Event()

        def render(_job: Job) -> Json:
            held.set()  # the inputs are held, and the job is not committed yet
            assert not deleted.wait(0.5)
            return {}

        def delete() -> None:
            held.wait(10)
            try:
                students.delete(backend, OWNER, student)
            finally:
                deleted.set()

        with ThreadPoolExecutor(1) as pool:
            deletion = pool.submit(delete)
            submission.submit(backend, Submission(DEFAULT_CALLER, recipe, (), None, render))
            with pytest.raises(ConflictError):
                deletion.result()

    def test_what_was_deleted_while_the_request_was_checked_is_a_fault(
        self, backend: Backend, body: Json, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        student = add_student(backend, labels=("a", "b"))
        recipe = Recipe.model_validate(body | {"teachers": [body["teachers"][0], student]})
        check = submission_checks.check

        def check_then_delete(*arguments: Any, **named: Any) -> Any:
            findings = check(*arguments, **named)
            students.delete(backend, OWNER, student)
            return findings

        monkeypatch.setattr(submission_checks, "check", check_then_delete)
        with pytest.raises(InvalidRequestError) as refused:
            submission.submit(backend, Submission(DEFAULT_CALLER, recipe, (), None, lambda _: {}))
        assert [(f.pointer, f.code) for f in refused.value.faults] == [("/teachers/1/model", "deleted")]
        assert _count(backend, Amalgamation) == 0


@on_sqlite
class TestHubTeachers:
    def _post(self, api: TestClient, body: Json, *teachers: Any) -> Any:
        return api.post("/amalgamations", json=body | {"teachers": list(teachers)})

    def test_are_resolved_to_a_commit(self, api: TestClient, body: Json, hub: Hub) -> None:
        old = hub.add("acme/intents", model_files(("old", "older")), ref="v1")
        new = hub.add("acme/intents", model_files(("a", "b")))
        job = self._post(api, body, "acme/intents", "acme/intents@v1").json()
        assert [teacher["commit"] for teacher in job["teachers"]] == [new, old]
        assert job["labels"] == ["a", "b", "old", "older"]
        assert job["recipe"]["teachers"][0]["model"] == "acme/intents"

    def test_a_commit_is_a_revision_too(self, api: TestClient, body: Json, hub: Hub) -> None:
        old = hub.add("acme/intents", model_files(("old", "older")))
        hub.add("acme/intents", model_files(("a", "b")))
        job = self._post(api, body, f"acme/intents@{old}", body["teachers"][0]).json()
        assert job["teachers"][0]["commit"] == old

    CANNOT_TEACH = (
        ({"config.json": bert_config("ab"), "pytorch_model.bin": b"pickle"}, "teacher_unsafe_format"),
        ({"config.json": bert_config("ab")}, "teacher_not_found"),
        ({"model.safetensors": b"w"}, "teacher_not_classifier"),
        (model_files("ab") | {"config.json": b"not json"}, "teacher_not_classifier"),
        (model_files("ab", architectures=["BertModel"]), "not_sequence_classification"),
        (model_files("a"), "regression_head"),
        (model_files("ab", problem_type="regression"), "wrong_problem_type"),
        (model_files("ab", problem_type="multi_label_classification"), "wrong_problem_type"),
        (model_files("ab", auto_map={"AutoConfig": "x.Y"}), "custom_code"),
    )

    def test_that_cannot_teach_are_refused(
        self, api: TestClient, body: Json, hub: Hub, subtests: pytest.Subtests
    ) -> None:
        for files, code in self.CANNOT_TEACH:
            with subtests.test(code):
                hub.add("acme/odd", files)
                answer = self._post(api, body, body["teachers"][0], "acme/odd")
                assert answer.status_code == 422
                (fault,) = answer.json()["errors"]
                assert (fault["pointer"], fault["code"]) == ("/teachers/1/model", code)
                assert "acme/odd" in fault["detail"]

    def test_that_are_missing_or_gated_are_told_apart(self, api: TestClient, body: Json, hub: Hub) -> None:
        hub.add("acme/gated", model_files("ab"), gated=True)
        hub.add("acme/there", model_files("cd"))
        faults = _faults(api, body | {"teachers": ["acme/gone", "acme/gated", "acme/there@v9"]})
        assert faults == {
            "/teachers/0/model": "teacher_not_found",
            "/teachers/1/model": "teacher_gated",
            "/teachers/2/model": "teacher_not_found",
        }

    def test_with_names_that_no_hub_has(self, api: TestClient, body: Json, hub: Hub) -> None:
        names = ["?", "a/b/c", "../etc", "a b", "-a/b", "a/b@", "a/b@x y", "acme/x\0"]
        faults = _faults(api, body | {"teachers": [body["teachers"][0], *names]})
        assert faults == {f"/teachers/{i}/model": "reference_invalid" for i in range(1, len(names) + 1)}
        assert hub.requests == []

    def test_a_copy_under_another_name_is_the_same_teacher(
        self, api: TestClient, body: Json, hub: Hub, backend: Backend
    ) -> None:
        files = model_files(("a", "b"))
        hub.add("acme/one", files)
        hub.add("acme/copy", files | {"README.md": b"mine"})
        upload = add_model(backend, ("a", "b"))
        faults = _faults(api, body | {"teachers": ["acme/one", "acme/copy", upload]})
        assert faults == {"/teachers/1/model": "same_teacher", "/teachers/2/model": "same_teacher"}

    def test_a_hub_in_trouble_is_a_502_that_may_be_tried_again(
        self, api: TestClient, body: Json, hub: Hub, backend: Backend
    ) -> None:
        hub.status = 503
        answer = self._post(api, body, "acme/a", "acme/b")
        assert (answer.status_code, answer.json()["code"]) == (502, "hub_unavailable")
        assert "retry-after" in answer.headers
        assert _count(backend, Amalgamation) == 0

    def test_a_hub_that_hangs_does_not_hang_us(
        self, api: TestClient, body: Json, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.hub.TIMEOUT_SECONDS", 0.3)
        hub.stalled.clear()
        answer = self._post(api, body, "acme/a", "acme/b")
        assert (answer.status_code, answer.json()["code"]) == (502, "hub_unavailable")

    def test_a_hub_that_is_not_there_is_a_502(
        self, api: TestClient, body: Json, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants  # noqa: PLC0415

        assert hub.url == constants.ENDPOINT
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
        assert self._post(api, body, "acme/a", "acme/b").status_code == 502

    def test_a_base_model_of_the_hub_starts_the_student(
        self, api: TestClient, body: Json, hub: Hub, backend: Backend
    ) -> None:
        files = model_files("ab", architectures=["BertModel"], id2label=None)
        commit = hub.add("acme/base", files)
        answer = api.post("/amalgamations", json=body | {"student": {"init_from": "acme/base", "layers": 2}})
        assert answer.status_code == 202, answer.text
        with backend.database.read() as session:
            row = amalgamations.find(session, answer.json()["id"])
        assert row is not None
        assert (row.resolved["student"]["repo_id"], row.resolved["student"]["commit"]) == (
            "acme/base",
            commit,
        )

    def test_offline_the_local_cache_stands_for_the_hub(
        self,
        api: TestClient,
        body: Json,
        hub: Hub,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        import huggingface_hub  # noqa: PLC0415

        cache = tmp_path_factory.mktemp("hf")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        commit = hub.add("acme/cached", model_files(("a", "b")))
        online = self._post(api, body, "acme/cached", body["teachers"][0]).json()
        huggingface_hub.snapshot_download("acme/cached", cache_dir=cache)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        hub.requests.clear()
        offline = self._post(api, body, "acme/cached", body["teachers"][0]).json()
        assert offline["teachers"] == online["teachers"]
        assert offline["teachers"][0]["commit"] == commit
        assert _faults(api, body | {"teachers": ["acme/other", body["teachers"][0]]}) == {
            "/teachers/0/model": "teacher_not_found"
        }
        assert hub.requests == []


class TestIdempotencyKey:
    KEY = {"Idempotency-Key": "2f1c"}  # noqa: RUF012

    def test_the_same_body_gets_the_stored_answer_and_no_second_job(
        self, api: TestClient, body: Json, backend: Backend
    ) -> None:
        first = api.post("/amalgamations", json=body, headers=self.KEY)
        api.post(f"/amalgamations/{first.json()['id']}/cancel")
        again = api.post("/amalgamations", json=body, headers=self.KEY)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        assert (again.status_code, again.json()) == (202, first.json())
        assert _count(backend, Amalgamation) == 1

    def test_another_body_is_refused(self, api: TestClient, body: Json, backend: Backend) -> None:
        api.post("/amalgamations", json=body, headers=self.KEY)
        answer = api.post("/amalgamations", json=body | {"name": "other"}, headers=self.KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert _count(backend, Amalgamation) == 1

    def test_many_at_once_make_one_job(self, api: TestClient, body: Json, backend: Backend) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: api.post("/amalgamations", json=body, headers=self.KEY), range(8))
            )
        made = [answer for answer in answers if answer.status_code == 202]
        assert len({answer.json()["id"] for answer in made}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
        for answer in answers:
            if answer not in made:
                assert (answer.status_code, answer.json()["code"]) == (409, "request_in_flight")
                assert int(answer.headers["retry-after"]) > 0
        assert api.post("/amalgamations", json=body, headers=self.KEY).json() == made[0].json()
        assert _count(backend, Amalgamation) == 1

    def test_a_refused_request_does_not_use_the_key_up(self, api: TestClient, body: Json) -> None:
        api.post("/amalgamations", json=body | {"corpus": "cor-x"}, headers=self.KEY)
        assert api.post("/amalgamations", json=body, headers=self.KEY).status_code == 202

    def test_after_24_hours_a_key_is_new(self, api: TestClient, body: Json, backend: Backend) -> None:
        first = api.post("/amalgamations", json=body, headers=self.KEY).json()["id"]
        old = timedelta(hours=24, seconds=1).total_seconds()
        with backend.database.write() as session:
            session.execute(update(IdempotencyKey).values(created_at=now(-old)))
        second = api.post("/amalgamations", json=body, headers=self.KEY)
        assert second.status_code == 202, second.text
        assert second.json()["id"] != first

    def test_an_impossible_key_is_refused(self, api: TestClient, body: Json) -> None:
        for key in ("", "a" * 256, "tab\there"):
            answer = api.post("/amalgamations", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == "header Idempotency-Key"
