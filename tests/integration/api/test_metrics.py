"""`GET /metrics`, read as Prometheus reads it."""

import re
import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from app.domain.access import Scope
from app.domain.status import Status
from app.main import create_app
from app.persistence import amalgamations, stored_outputs
from app.persistence.database import Database
from app.persistence.losses import settle_loss
from app.persistence.tables import Amalgamation
from app.persistence.time import now
from app.services import keys, metrics
from app.services.backend import Backend
from app.services.caretaker import dispatch, reap
from app.services.live import LiveJobs
from app.services.metrics import Metrics
from app.settings import Settings
from tests.api_objects import add_student, add_webhook
from tests.jobs import add_job
from tests.servers import wait_until


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scrape asks the database."""
    monkeypatch.setattr(metrics, "KEPT_SECONDS", -1.0)


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, sample_name: str, **labels: str) -> float:
    """Of the one sample with these labels; 0 when a counter has not begun."""
    samples = [sample for family in families(text).values() for sample in family.samples]
    found = [each.value for each in samples if each.name == sample_name and each.labels == labels]
    assert len(found) <= 1
    return found[0] if found else 0.0


def scrape(api: TestClient) -> str:
    answer = api.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


def claim(backend: Backend, job_id: str, seconds: float = 60, **values: Any) -> None:
    with backend.database.write() as session:
        job = amalgamations.claim(session, job_id, worker="w", lease_seconds=seconds)
        assert job is not None
        amalgamations.write_fenced(session, job_id, job.attempt, {"attempt": job.attempt, **values})


class TestJobs:
    def test_are_counted_by_status_and_stage(self, backend: Backend) -> None:
        told = Metrics(backend, LiveJobs(backend))
        for _ in range(3):
            add_job(backend.database)
        claim(backend, add_job(backend.database), stage="training")
        text = told.text().decode()
        assert {status: value(text, "muka_jobs", status=status) for status in Status} == {
            **dict.fromkeys(Status, 0),
            "queued": 3,
            "running": 1,
        }
        assert value(text, "muka_jobs_in_stage", stage="training") == 1
        assert value(text, "muka_queue_depth") == 3
        assert value(text, "muka_attempts_running") == 1

    def test_the_oldest_that_waits_tells_how_long(self, backend: Backend) -> None:
        told = Metrics(backend, LiveJobs(backend))
        assert value(told.text().decode(), "muka_queue_oldest_seconds") == 0
        add_job(backend.database)
        with backend.database.write() as session:
            session.execute(update(Amalgamation).values(created_at=now(-3600)))
        add_job(backend.database)
        assert 3600 <= value(told.text().decode(), "muka_queue_oldest_seconds") < 3700

    def test_losses_are_counted_for_all_processes_and_reaps_for_this_one(self, backend: Backend) -> None:
        told = Metrics(backend, LiveJobs(backend))
        before = told.text().decode()
        silent, dead = add_job(backend.database), add_job(backend.database)
        claim(backend, silent, seconds=-1)
        claim(backend, dead)
        assert reap(backend) == 1
        with backend.database.write() as session:  # as the worker's parent does
            assert settle_loss(session, dead, 1, "killed", max_attempts=3)
        assert dispatch(backend) == 2
        after = told.text().decode()
        for name, more in [
            ("muka_attempts_lost_total", 2),
            ("muka_leases_reaped_total", 1),
            ("muka_jobs_dispatched_total", 2),
        ]:
            assert value(after, name) - value(before, name) == more, name

    def test_two_processes_tell_the_same(self, backend: Backend, settings: Settings) -> None:
        add_job(backend.database)
        database = Database(str(settings.database_url))
        other = Backend(settings=settings, database=database, store=backend.store, queue=backend.queue)
        texts = [Metrics(each, LiveJobs(each)).text().decode() for each in (backend, other)]
        names = ("muka_jobs", "muka_queue_depth", "muka_webhook_deliveries", "muka_stored_outputs")
        one, two = ([families(text)[name].samples for name in names] for text in texts)
        assert one == two
        database.close()


class TestWebhooksAndOutputs:
    def test_deliveries_are_counted_by_status(self, backend: Backend) -> None:
        add_webhook(backend)
        claim(backend, add_job(backend.database))
        text = Metrics(backend, LiveJobs(backend)).text().decode()
        assert value(text, "muka_webhook_deliveries", status="pending") == 1
        assert value(text, "muka_webhook_deliveries", status="failed") == 0

    def test_shards_that_were_reused_are_told(self, backend: Backend) -> None:
        with backend.database.write() as session:
            stored_outputs.count(session, stored_outputs.REUSED, 7)
        text = Metrics(backend, LiveJobs(backend)).text().decode()
        assert value(text, "muka_scoring_shards_total", outputs="reused") == 7
        assert value(text, "muka_stored_outputs") == 0
        assert value(text, "muka_stored_outputs_limit_bytes") == backend.settings.scores_max_bytes


class TestHttp:
    def test_requests_are_counted_by_route_and_never_by_id(self, sqlite_api: TestClient) -> None:
        route = {"method": "GET", "route": "/amalgamations/{job_id}"}
        before = scrape(sqlite_api)
        for number in range(3):
            sqlite_api.get(f"/amalgamations/amg-{number:032x}")
        after = scrape(sqlite_api)
        counted = [value(text, "muka_http_requests_total", **route, status="404") for text in (before, after)]
        assert counted[1] - counted[0] == 3
        timed = [value(text, "muka_http_request_duration_seconds_count", **route) for text in (before, after)]
        assert timed[1] - timed[0] == 3

    def test_what_clients_invent_makes_no_label(self, sqlite_api: TestClient) -> None:
        for word in ("secret-1", "secret-2"):
            sqlite_api.get(f"/{word}")
            sqlite_api.request(word.upper(), "/amalgamations")
            sqlite_api.get(f"/amalgamations/amg-1?name={word}")
        text = scrape(sqlite_api)
        assert "secret" not in text.lower()
        assert value(text, "muka_http_requests_total", method="GET", route="other", status="404") >= 2

    def test_every_label_is_one_of_few(self, api: TestClient, backend: Backend) -> None:
        job_id = add_job(backend.database)
        api.get(f"/amalgamations/{job_id}")
        api.get(f"/students/{add_student(backend)}/files/config.json")
        text = scrape(api)
        allowed = {"method", "route", "status", "stage", "state", "outcome", "outputs", "le", "quantile"}
        for family in families(text).values():
            if family.name.startswith("muka_"):
                assert family.documentation, family.name
                for sample in family.samples:
                    assert sample.labels.keys() <= allowed, sample
                    assert not any(re.search(r"[0-9a-f]{32}", each) for each in sample.labels.values())
        assert "/students/{student_id}/files/{path:path}" in text

    def test_a_listener_is_told_while_it_listens(self, api: TestClient, backend: Backend) -> None:
        job_id = add_job(backend.database)
        waiting = threading.Thread(target=api.get, args=(f"/amalgamations/{job_id}?wait=30",))
        waiting.start()
        wait_until(lambda: value(scrape(api), "muka_event_listeners") == 1, "the listener is told")
        with backend.database.write() as session:
            sources = (Status.QUEUED,)
            assert amalgamations.change_status(session, job_id, Status.CANCELLED, "x", only_from=sources)
        waiting.join()
        wait_until(lambda: value(scrape(api), "muka_event_listeners") == 0, "and not any more")

    def test_the_process_tells_of_itself(self, sqlite_api: TestClient) -> None:
        text = scrape(sqlite_api)
        assert value(text, "process_resident_memory_bytes") > 1_000_000
        assert value(text, "muka_database_up") == 1


class TestAccess:
    def test_only_an_admin_s_key_opens_it(self, backend: Backend, settings: Settings) -> None:
        made = {scope: keys.create(backend.database, "ops", [scope])[1] for scope in Scope}
        with TestClient(create_app(settings)) as api:
            answers = {
                scope: api.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code
                for scope, key in made.items()
            }
            assert answers == {Scope.READ: 403, Scope.WRITE: 403, Scope.ADMIN: 200}
            assert api.get("/metrics").status_code == 401


class TestOutage:
    def test_a_database_that_is_gone_is_told_and_the_rest_stays(self, backend: Backend) -> None:
        gone = Database("postgresql://nobody@127.0.0.1:1/x")
        there = Backend(settings=backend.settings, database=gone, store=backend.store, queue=backend.queue)
        text = Metrics(there, LiveJobs(there)).text().decode()
        assert value(text, "muka_database_up") == 0
        assert "muka_jobs{" not in text, "no figure is better than a wrong one"
        assert "process_resident_memory_bytes" in text
        gone.close()

    def test_many_scrapes_are_one_look(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "KEPT_SECONDS", 60.0)
        told = Metrics(backend, LiveJobs(backend))
        first = told.text().decode()
        add_job(backend.database)
        assert value(first, "muka_queue_depth") == value(told.text().decode(), "muka_queue_depth") == 0
