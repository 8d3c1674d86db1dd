"""What becomes of jobs is told: signed, once if all goes well, again if not, and never lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from app.domain.status import Status
from app.domain.webhook import WebhookEvent
from app.persistence import amalgamations, deliveries, outbox, webhooks
from app.persistence.tables import Webhook, WebhookDelivery
from app.services import webhooks as use_cases
from app.services.backend import Backend
from app.services.deliverer import AT_ONCE_PER_WEBHOOK, Deliverer
from app.services.sweeper import sweep
from app.settings import Settings
from tests.api_objects import OWNER, add_webhook
from tests.jobs import add_job
from tests.servers import wait_until
from tests.unit.app.client.scripted_server import Reply, Request, ScriptedServer, running

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allowed_networks": LOOPBACK})


@contextmanager
def delivering(backend: Backend, processes: int = 1) -> Iterator[None]:
    """So many deliverers at work, as in so many API processes; impatient."""
    with ExitStack() as stack:
        for _ in range(processes):
            deliverer = Deliverer(backend, every_seconds=0.02)
            deliverer.start()
            stack.callback(deliverer.stop)
        yield


def claim(backend: Backend, job_id: str) -> int:
    with backend.database.write() as session:
        job = amalgamations.claim(session, job_id, worker="w", lease_seconds=60)
    assert job is not None
    return job.attempt


def change(backend: Backend, job_id: str, to: Status, **values: Any) -> None:
    with backend.database.write() as session:
        sources = tuple(Status)
        assert amalgamations.change_status(session, job_id, to, f"{to}", only_from=sources, values=values)


def run(backend: Backend, to: Status, **values: Any) -> str:
    """A job that is claimed and ends."""
    job_id = add_job(backend.database)
    claim(backend, job_id)
    change(backend, job_id, to, **values)
    return job_id


def log_of(backend: Backend, webhook: Webhook) -> list[WebhookDelivery]:
    with backend.database.read() as session:
        query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
        return list(session.scalars(query.order_by(WebhookDelivery.id)))


def settled(backend: Backend, webhook: Webhook) -> list[WebhookDelivery]:
    """The log, once nothing is pending any more."""

    def look() -> list[WebhookDelivery]:
        rows = log_of(backend, webhook)
        return rows if all(row.status != "pending" for row in rows) else []

    return wait_until(look, "every delivery is settled")


def attempted(backend: Backend, webhook: Webhook, times: int) -> WebhookDelivery:
    """The one delivery, once it was tried so often."""

    def look() -> WebhookDelivery | None:
        (row,) = log_of(backend, webhook)
        return row if len(row.attempts) >= times else None

    return wait_until(look, f"{times} attempts")


def set_all(backend: Backend, **values: Any) -> None:
    """Time travel."""
    with backend.database.write() as session:
        session.execute(update(WebhookDelivery).values(values))


PAST = datetime(2020, 1, 1, tzinfo=UTC)


class TestMessages:
    def test_a_job_s_start_and_end_are_told_and_verified(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, f"{receiver.url}/muka")
        facts = {"name": "router", "user_metadata": {"team": "support"}, "student_id": "stu-1"}
        job_id = run(backend, Status.SUCCEEDED, **facts)
        with delivering(backend):
            started, succeeded = settled(backend, webhook)
        told = {request.headers["webhook-id"]: request for request in receiver.requests}
        assert told.keys() == {started.id, succeeded.id}
        for delivery in (started, succeeded):
            request = told[delivery.id]
            message = Receiver(webhook.secret).verify(request.body, dict(request.headers))
            assert message["type"] == delivery.event
            assert message["data"]["id"] == delivery.amalgamation_id == job_id
            assert request.headers["Content-Type"] == "application/json"
        assert [started.event, succeeded.event] == ["amalgamation.started", "amalgamation.succeeded"]
        data = json.loads(succeeded.body)["data"]
        assert (data["status"], data["student_id"], data["name"]) == ("succeeded", "stu-1", "router")
        assert data["metadata"] == {"team": "support"}
        assert data["finished_at"].endswith("Z")

    @pytest.mark.parametrize("to", [Status.FAILED, Status.CANCELLED])
    def test_every_other_end_is_told(self, backend: Backend, receiver: ScriptedServer, to: Status) -> None:
        event = WebhookEvent(f"amalgamation.{to}")
        webhook = add_webhook(backend, receiver.url, events=[event])
        failure = {"code": "diverged", "message": "the loss is not finite"}
        run(backend, to, failure=failure if to == Status.FAILED else None)
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
        assert delivery.event == event
        told = json.loads(receiver.requests[0].body)["data"]
        assert told["failure"] == (failure if to == Status.FAILED else None)

    def test_a_forged_or_changed_message_is_no_message(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        run(backend, Status.SUCCEEDED)
        with delivering(backend):
            settled(backend, webhook)
        (request,) = receiver.requests
        headers = dict(request.headers)
        Receiver(webhook.secret).verify(request.body, headers)
        for body, changed in [
            (request.body.replace(b"succeeded", b"failed"), headers),
            (request.body, headers | {"webhook-id": "dlv-0"}),
            (request.body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
        ]:
            with pytest.raises(WebhookVerificationError):
                Receiver(webhook.secret).verify(body, changed)

    def test_only_what_is_wanted_is_told_and_only_to_its_owner(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        wanting = add_webhook(backend, receiver.url, events=[WebhookEvent.FAILED])
        foreign = add_webhook(backend, receiver.url, owner="somebody else")
        run(backend, Status.SUCCEEDED)
        assert log_of(backend, wanting) == log_of(backend, foreign) == []

    def test_another_attempt_after_a_loss_is_no_start(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url)
        job_id = add_job(backend.database)
        claim(backend, job_id)
        change(backend, job_id, Status.QUEUED)
        claim(backend, job_id)
        assert [row.event for row in log_of(backend, webhook)] == ["amalgamation.started"]

    def test_during_a_rotation_both_secrets_verify(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        use_cases.rotate(backend, OWNER, webhook.id, once=None, render=lambda _: {})
        rotated = use_cases.get(backend, OWNER, webhook.id)
        assert rotated.secret != webhook.secret
        run(backend, Status.SUCCEEDED)
        with delivering(backend):
            settled(backend, webhook)
            with backend.database.write() as session:
                session.execute(update(Webhook).values(previous_secret_until=PAST))
            run(backend, Status.SUCCEEDED)
            settled(backend, webhook)
        during, after = receiver.requests
        for secret in (webhook.secret, rotated.secret):
            Receiver(secret).verify(during.body, dict(during.headers))
        Receiver(rotated.secret).verify(after.body, dict(after.headers))
        with pytest.raises(WebhookVerificationError):
            Receiver(webhook.secret).verify(after.body, dict(after.headers))


class TestOutbox:
    def test_what_is_rolled_back_is_not_told(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url)
        job_id = add_job(backend.database)
        with suppress(InterruptedError), backend.database.write() as session:
            assert amalgamations.claim(session, job_id, worker="w", lease_seconds=60)
            raise InterruptedError
        assert log_of(backend, webhook) == []

    def test_what_is_committed_is_told_though_the_process_dies_at_once(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.STARTED])
        job_id = add_job(backend.database)
        code = f"""
import os, signal
from app.persistence import amalgamations
from app.persistence.database import Database
with Database({backend.database.url!r}).write() as session:
    amalgamations.claim(session, {job_id!r}, worker="w", lease_seconds=60)
os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
        assert [request.headers["webhook-id"] for request in receiver.requests] == [delivery.id]

    def test_a_process_that_is_killed_while_it_sends_leaves_it_to_another(
        self, backend: Backend, settings: Settings, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.STARTED])
        never = threading.Event()
        receiver.on("POST", "/", lambda _: (never.wait(30) and Reply(204)) or Reply(204))
        claim(backend, add_job(backend.database))
        with sending_process(settings) as process:
            wait_until(lambda: receiver.requests, "the receiver is asked")
            process.kill()
        receiver.on("POST", "/", Reply(204))
        never.set()
        (held,) = log_of(backend, webhook)
        assert (held.status, held.attempt, held.attempts) == ("pending", 1, [])
        assert held.next_attempt_at is not None
        assert held.next_attempt_at > datetime.now(UTC), "the claim holds until it runs out"
        set_all(backend, next_attempt_at=PAST)
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
        assert (delivery.status, delivery.attempt) == ("succeeded", 2)
        assert {request.headers["webhook-id"] for request in receiver.requests} == {delivery.id}

    def test_many_processes_send_everything_once(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.STARTED])
        for _ in range(40):
            claim(backend, add_job(backend.database))
        with delivering(backend, processes=4):
            log = settled(backend, webhook)
        assert Counter(request.headers["webhook-id"] for request in receiver.requests) == Counter(
            row.id for row in log
        )
        assert len(log) == 40

    def test_a_webhook_that_is_deleted_meanwhile_does_not_harm_the_job(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        webhook = add_webhook(backend)
        job_id = add_job(backend.database)
        deleting = threading.Thread(target=use_cases.delete, args=(backend, OWNER, webhook.id))
        find = webhooks.enabled_of

        def find_and_be_late(session: Session, owner: str) -> Sequence[Webhook]:
            found = find(session, owner)
            deleting.start()
            deleting.join(0.3)  # it would be through by then, if nothing held the webhook
            return found

        monkeypatch.setattr(webhooks, "enabled_of", find_and_be_late)
        claim(backend, job_id)
        deleting.join()
        assert log_of(backend, webhook) == []
        with backend.database.read() as session:
            assert amalgamations.status_of(session, job_id) == (Status.RUNNING, 1)


@contextmanager
def sending_process(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    code = """
import time
from app.services.backend import Backend
from app.services.deliverer import Deliverer
from app.settings import Settings
Deliverer(Backend.from_settings(Settings())).start()
time.sleep(60)
"""
    environment = {
        "MUKA_DATA_DIR": str(settings.data_dir),
        "MUKA_DATABASE_URL": str(settings.database_url),
        "MUKA_BROKER_URL": str(settings.broker_url),
        "MUKA_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class TestRetries:
    def test_go_on_under_the_same_id_with_the_same_bytes(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        receiver.on("POST", "/", Reply(503, b"restarting"), Reply(302), Reply(200, b"thanks"))
        run(backend, Status.SUCCEEDED)
        with delivering(backend):
            for times in (1, 2):
                waiting = attempted(backend, webhook, times)
                pause = waiting.next_attempt_at - datetime.fromisoformat(waiting.attempts[-1]["at"])  # type: ignore[operator]
                assert timedelta(seconds=4 * 3 ** (times - 1)) <= pause <= timedelta(minutes=1)
                set_all(backend, next_attempt_at=PAST)
            (delivery,) = settled(backend, webhook)
        assert (delivery.status, delivery.next_attempt_at) == ("succeeded", None)
        assert [each["status_code"] for each in delivery.attempts] == [503, 302, 200]
        assert [each["response"] for each in delivery.attempts] == ["restarting", "", "thanks"]
        assert delivery.attempts[0]["error"] == "the receiver answered 503, which is not 2xx"
        assert delivery.attempts[2]["error"] is None
        sent = {(request.headers["webhook-id"], request.body) for request in receiver.requests}
        assert len(receiver.requests) == 3
        assert sent == {(delivery.id, delivery.body.encode())}
        for request in receiver.requests:
            Receiver(webhook.secret).verify(request.body, dict(request.headers))

    def test_end_after_eight_hours(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        receiver.on("POST", "/", Reply(500))
        run(backend, Status.SUCCEEDED)
        with delivering(backend):
            first = attempted(backend, webhook, 1)
            for hours, status in ((7.9, "pending"), (8.1, "failed")):
                long_ago = datetime.now(UTC) - timedelta(hours=hours)
                tries = [{**first.attempts[0], "at": long_ago.isoformat()}]
                set_all(backend, attempts=tries, next_attempt_at=PAST)
                assert attempted(backend, webhook, 2).status == status
        (delivery,) = log_of(backend, webhook)
        assert (delivery.next_attempt_at, len(receiver.requests)) == (None, 3)
        assert delivery.finished_at is not None

    def test_an_address_inside_is_told_as_a_failure_and_not_reached(
        self, backend: Backend, settings: Settings, receiver: ScriptedServer
    ) -> None:
        strict = Backend(
            settings=settings.model_copy(update={"webhook_allowed_networks": ()}),
            database=backend.database,
            store=backend.store,
            queue=backend.queue,
        )
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        run(backend, Status.SUCCEEDED)
        with delivering(strict):
            delivery = attempted(backend, webhook, 1)
        assert delivery.attempts[0]["status_code"] is None
        assert "not to public addresses" in delivery.attempts[0]["error"]
        assert receiver.requests == []

    def test_a_receiver_that_is_gone_is_disabled_until_a_test_succeeds(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        receiver.on("POST", "/", Reply(410))
        run(backend, Status.SUCCEEDED)
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
            assert (delivery.status, len(delivery.attempts)) == ("failed", 1)
            told = use_cases.get(backend, OWNER, webhook.id)
            assert told.disabled_at is not None
            assert told.disabled_reason == "the receiver answered 410 Gone"
            run(backend, Status.SUCCEEDED)
            assert len(log_of(backend, webhook)) == 1, "nothing is told any more"
            receiver.on("POST", "/", Reply(204))
            use_cases.test(backend, OWNER, webhook.id)
            settled(backend, webhook)
            assert use_cases.get(backend, OWNER, webhook.id).disabled_at is None
            run(backend, Status.SUCCEEDED)
            assert [row.status for row in settled(backend, webhook)] == ["failed", "succeeded", "succeeded"]

    def test_what_waits_for_a_disabled_webhook_is_given_up_unsent(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
        run(backend, Status.SUCCEEDED)
        with backend.database.write() as session:
            webhooks.disable(session, webhook.id, "the receiver answered 410 Gone")
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
        assert delivery.status == "failed"
        assert "disabled" in delivery.attempts[0]["error"]
        assert receiver.requests == []

    def test_a_test_message_is_sent_once(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url)
        receiver.on("POST", "/", Reply(500))
        use_cases.test(backend, OWNER, webhook.id)
        with delivering(backend):
            (delivery,) = settled(backend, webhook)
        assert (delivery.event, delivery.status, len(delivery.attempts)) == ("webhook.test", "failed", 1)
        message = Receiver(webhook.secret).verify(
            receiver.requests[0].body, dict(receiver.requests[0].headers)
        )
        assert message["data"] == {"webhook_id": webhook.id}


class TestConcurrency:
    def test_whoever_has_nothing_under_way_is_next_before_many_who_have(self, backend: Backend) -> None:
        crowd = [add_webhook(backend, owner="crowd") for _ in range(3)]
        newcomer = add_webhook(backend, owner="newcomer")
        for webhook in (*crowd, *crowd, newcomer):
            use_cases.test(backend, webhook.owner, webhook.id)
        busy = {webhook.id: 1 for webhook in crowd}
        with backend.database.write() as session:
            (taken,) = deliveries.claim(session, limit=1, per_webhook=4, busy=busy, lease_seconds=60)
            assert taken.webhook.id == newcomer.id

    def test_a_slow_receiver_holds_up_nobody_else(self, backend: Backend, receiver: ScriptedServer) -> None:
        with slow_receiver() as (slow, let_go):
            hanging = add_webhook(backend, slow.url, events=[WebhookEvent.STARTED])
            for _ in range(3 * AT_ONCE_PER_WEBHOOK):
                claim(backend, add_job(backend.database))
            quick = add_webhook(backend, receiver.url, events=[WebhookEvent.SUCCEEDED])
            with delivering(backend):
                wait_until(lambda: len(slow.requests) >= AT_ONCE_PER_WEBHOOK, "the slow one is asked")
                run(backend, Status.SUCCEEDED)
                assert [row.status for row in settled(backend, quick)] == ["succeeded"]
                assert len(slow.requests) == AT_ONCE_PER_WEBHOOK, "and no more at the same time"
                let_go()
                assert len(settled(backend, hanging)) == 3 * AT_ONCE_PER_WEBHOOK + 1

    def test_stopping_waits_for_no_receiver(self, backend: Backend) -> None:
        with slow_receiver() as (slow, _):
            webhook = add_webhook(backend, slow.url, events=[WebhookEvent.STARTED])
            claim(backend, add_job(backend.database))
            with delivering(backend):
                wait_until(lambda: slow.requests, "the receiver is asked")
            assert [row.status for row in log_of(backend, webhook)] == ["pending"]


@contextmanager
def slow_receiver() -> Iterator[tuple[ScriptedServer, Callable[[], None]]]:
    """It answers nobody until it is let go."""
    gate = threading.Event()

    def wait(_: Request) -> Reply:
        gate.wait(30)
        return Reply(204)

    with running() as server:
        server.on("POST", "/.*", wait)
        try:
            yield server, gate.set
        finally:
            gate.set()


class TestLog:
    def test_is_swept_when_its_time_is_over_and_what_is_pending_stays(
        self, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = add_webhook(backend, receiver.url, events=[WebhookEvent.STARTED])
        for _ in range(2):
            claim(backend, add_job(backend.database))
        old, pending = log_of(backend, webhook)
        with backend.database.write() as session:
            values = {"status": "succeeded", "finished_at": PAST, "next_attempt_at": None}
            session.execute(update(WebhookDelivery).where(WebhookDelivery.id == old.id).values(values))
            session.execute(update(WebhookDelivery).values(created_at=PAST))
        swept = {each.name for each in sweep(backend)}
        assert "webhook deliveries" in swept
        assert [row.id for row in log_of(backend, webhook)] == [pending.id]

    def test_goes_with_its_webhook(self, backend: Backend, receiver: ScriptedServer) -> None:
        webhook = add_webhook(backend, receiver.url)
        with backend.database.write() as session:
            found = session.get_one(Webhook, webhook.id)
            outbox.test(session, found)
        use_cases.delete(backend, OWNER, webhook.id)
        assert log_of(backend, webhook) == []
