"""MukaClient against the real API over real HTTP, on SQLite with a real broker."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.client import (
    ConflictError,
    Corpus,
    InvalidRequestError,
    JobCancelledError,
    Model,
    MukaClient,
    NotFoundError,
    UnauthorizedError,
)
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_student
from tests.live_service import live_service
from tests.servers import wait_until
from tests.tiny_models import TEXTS, make_teacher


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str, redis_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path, store_dir=tmp_path / "store", database_url=sqlite_url, broker_url=redis_url
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[MukaClient]:
    near = settings.model_copy(update={"webhook_allowed_networks": (ip_network("127.0.0.0/8"),)})
    with live_service(near) as service, MukaClient(str(service.base_url)) as opened:
        yield opened


@pytest.fixture
def teachers(client: MukaClient, tmp_path: Path) -> list[Model]:
    labels = (("refund", "invoice"), ("late", "lost"))
    folders = [make_teacher(tmp_path / f"t{seed}", names, seed=seed) for seed, names in enumerate(labels)]
    return [client.models.upload(folder) for folder in folders]


@pytest.fixture
def corpus(client: MukaClient) -> Corpus:
    return client.corpora.upload(TEXTS)


def test_a_folder_becomes_a_model_with_its_labels(client: MukaClient, teachers: list[Model]) -> None:
    assert [model.labels for model in teachers] == [["refund", "invoice"], ["late", "lost"]]
    assert client.models.get(teachers[0].id) == Model.model_validate(
        teachers[0].model_dump(exclude={"ignored_files"})
    )
    assert [model.id for model in client.models.list(order="asc", page_size=1)] == [m.id for m in teachers]
    client.models.delete(teachers[0].id)
    with pytest.raises(NotFoundError):
        client.models.get(teachers[0].id)


def test_the_same_folder_twice_is_one_model(
    client: MukaClient, teachers: list[Model], tmp_path: Path
) -> None:
    assert client.models.upload(tmp_path / "t0").id == teachers[0].id


def test_texts_become_a_corpus(client: MukaClient, corpus: Corpus) -> None:
    assert corpus.texts == len(TEXTS)
    assert [row["text"] for row in client.corpora.preview(corpus.id, limit=2)] == list(TEXTS[:2])
    assert [found.id for found in client.corpora.list()] == [corpus.id]
    client.corpora.delete(corpus.id)
    with pytest.raises(NotFoundError):
        client.corpora.get(corpus.id)


def test_labels_of_a_file_are_read_for_evaluations(client: MukaClient, tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text("body,intent\nwhere is it,lost\nmoney back,refund\n")
    assert client.corpora.upload(path, text_column="body", label_column="intent").labelled


def test_a_broken_file_names_the_places(client: MukaClient, tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(InvalidRequestError, match="line 2"):
        client.corpora.upload(path)
    assert list(client.corpora.list()) == []


def test_a_job_is_made_listed_and_cancelled(
    client: MukaClient, teachers: list[Model], corpus: Corpus
) -> None:
    made = [
        client.amalgamations.create(
            teachers=teachers, corpus=corpus, training={"epochs": epochs}, metadata={"epochs": str(epochs)}
        )
        for epochs in (1, 2, 3)
    ]
    assert [job.id for job in client.amalgamations.list(page_size=2)] == [job.id for job in reversed(made)]
    (second,) = client.amalgamations.list(metadata={"epochs": "2"})
    assert second.id == made[1].id

    assert second.cancel().status == "cancelled"
    with pytest.raises(JobCancelledError):
        second.wait()
    assert [event.data["status"] for event in second.events()] == ["queued", "cancelled"]
    assert [event.data["status"] for event in second.events(after=1)] == ["cancelled"]
    assert [job.id for job in client.amalgamations.list(status="cancelled")] == [second.id]
    with pytest.raises(ConflictError):
        client.corpora.delete(corpus.id)  # the two other jobs need it


def test_the_same_idempotency_key_never_makes_two_jobs(
    client: MukaClient, teachers: list[Model], corpus: Corpus
) -> None:
    ids = {
        client.amalgamations.create(teachers=teachers, corpus=corpus, idempotency_key="once").id
        for _ in range(2)
    }
    assert len(ids) == 1 == len(list(client.amalgamations.list()))


def test_all_faults_of_a_job_come_at_once(client: MukaClient, teachers: list[Model]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.amalgamations.create(teachers=teachers[:1], corpus="cor-none", training={"epochs": 0})
    assert {fault.pointer for fault in caught.value.errors} >= {"/teachers", "/training/epochs"}


def test_a_plan_takes_what_create_takes(client: MukaClient, teachers: list[Model], corpus: Corpus) -> None:
    plan = client.amalgamations.plan(
        teachers=teachers, corpus=corpus, training={"epochs": 2}, evaluation=corpus, name="router"
    )
    assert plan.labels["union"] == ["refund", "invoice", "late", "lost"]
    assert plan.estimates["training_texts"] == 2 * len(TEXTS)
    assert [problem.code for problem in plan.problems] == ["corpus_without_labels"]
    assert list(client.amalgamations.list()) == []


def test_a_student_arrives_whole_and_resumes(client: MukaClient, settings: Settings, tmp_path: Path) -> None:
    weights = bytes(range(256)) * 4000
    backend = Backend.from_settings(settings)
    student_id = add_student(backend, {"config.json": b"{}", "model.safetensors": weights})
    backend.close()
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "model.safetensors.part").write_bytes(weights[:500_000])
    told: list[int] = []
    client.students.download(student_id, folder, on_progress=lambda now: told.append(now.received_bytes))
    assert (folder / "model.safetensors").read_bytes() == weights
    assert min(count for count in told if count > 2) > 500_000  # the part was not sent again
    assert [student.id for student in client.students.list()] == [student_id]


def test_a_wrong_key_is_told(settings: Settings) -> None:
    locked = settings.model_copy(update={"api_key": "right"})
    locked = Settings.model_validate(locked.model_dump())
    with live_service(locked) as service:
        with MukaClient(str(service.base_url), api_key="wrong") as client, pytest.raises(UnauthorizedError):
            next(client.corpora.list())
        with MukaClient(str(service.base_url), api_key="right") as client:
            assert list(client.corpora.list()) == []


def test_a_webhook_is_made_tested_rotated_and_removed(client: MukaClient) -> None:
    made = client.webhooks.create("http://127.0.0.1:9/", events=["amalgamation.failed"])
    assert made.secret is not None
    assert [each.id for each in client.webhooks.list()] == [made.id]
    rotated = client.webhooks.rotate(made.id)
    assert rotated.secret not in {None, made.secret}
    assert client.webhooks.get(made.id).secret is None
    sent = client.webhooks.test(made.id)
    wait_until(lambda: [each.id for each in client.webhooks.deliveries(made.id)] == [sent.id], "it is listed")
    client.webhooks.delete(made.id)
    with pytest.raises(NotFoundError):
        client.webhooks.get(made.id)
    with pytest.raises(InvalidRequestError, match="public addresses"):
        client.webhooks.create("https://10.0.0.1/")
