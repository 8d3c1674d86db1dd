"""A whole installation to send generated requests to, as in production, with objects of every kind."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.client import MukaClient
from app.domain.access import Scope
from app.persistence.database import Database
from app.services import jobs, keys
from app.services.backend import Backend
from app.settings import Settings
from app.storage import open_store
from app.task_queue import TaskQueue
from tests.api_objects import OWNER, add_model, add_student, add_webhook
from tests.e2e.service import Muka, muka
from tests.hub_server import hub_server
from tests.jobs import add_job
from tests.servers import PATIENCE_SECONDS
from tests.tiny_models import TEXTS, make_teacher

NEAR = "http://127.0.0.1:9/hook"
"""Where webhooks point: nobody listens there, and nothing leaves the machine."""
EXPENDABLE = 20
"""Objects of each kind for those requests that delete them."""
LABELS = (("refund", "invoice"), ("late", "lost", "other"))


@dataclass(frozen=True)
class Stock:
    """Objects of the first owner, by the name of the path parameter that takes their ids."""

    kept: dict[str, list[str]]
    expendable: dict[str, list[str]]
    """For requests that delete."""
    near: str = NEAR


@dataclass(frozen=True)
class Installation:
    """A service that runs, and what the generated requests need to know of it."""

    url: str
    keys: tuple[str, str]
    """Of two owners, who have all scopes and must not see each other's objects."""
    stock: Stock
    api: Muka


@contextmanager
def installation(settings: Settings, folder: Path) -> Iterator[Installation]:
    """API, worker and prediction worker as processes of their own; they all must end warmly."""
    with ExitStack() as stack:
        hub = stack.enter_context(hub_server())
        hub.add("acme/intents", make_teacher(folder / "hub", ("card", "loan"), seed=3))
        own, database = os.urandom(16).hex(), Database(settings.resolved_database_url())
        stack.callback(database.close)
        environment = _environment(settings, folder) | {"MUKA_API_KEY": own, "HF_ENDPOINT": hub.url}
        commands = (("serve", "--port", "0"), ("worker",), ("worker", "--queue", "predictions"))
        api, *_ = [stack.enter_context(muka(each, folder, environment)) for each in commands]
        _, other = keys.create(database, "other", list(Scope))
        queue = TaskQueue(settings.broker_url)
        stack.callback(queue.close)
        store = open_store(settings.resolved_store_dir())
        backend = Backend(settings=settings, database=database, store=store, queue=queue)
        with MukaClient(api.url, own) as client:
            stock = _stock(client, backend, folder)
        yield Installation(api.url, (own, other), stock, api)


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    return {
        "MUKA_DATABASE_URL": settings.resolved_database_url(),
        "MUKA_BROKER_URL": str(settings.broker_url),
        "MUKA_STORE_DIR": str(settings.resolved_store_dir()),
        "MUKA_DATA_DIR": str(folder / "unused"),
        "MUKA_SCRATCH_DIR": str(folder / "scratch"),
        "MUKA_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf"),
    }


def _stock(client: MukaClient, backend: Backend, folder: Path) -> Stock:
    """A student with checkpoints, jobs that ended in each way, and plenty to delete."""
    models = [
        client.models.upload(make_teacher(folder / str(seed), labels, seed=seed)).id
        for seed, labels in enumerate(LABELS)
    ]
    rows = "".join(json.dumps({"text": text, "label": "late"}) + "\n" for text in TEXTS)
    labelled = io.BytesIO(rows.encode())
    corpus = client.corpora.upload(labelled, name="labelled.jsonl", label_column="label").id
    recipe = {
        "teachers": models,
        "corpus": corpus,
        "evaluation": {"corpus": corpus},
        "method": {"name": "muka", "mc_samples": 2},
        "training": {"epochs": 3, "batch_size": 4},
        "checkpoints": {"every": "epoch", "keep": 3},
    }
    succeeded = client.amalgamations.submit(recipe).wait(timeout=3 * PATIENCE_SECONDS)
    inputs = {name: recipe[name] for name in ("teachers", "corpus", "evaluation")}
    together = client.amalgamations.submit(inputs | {"method": {"name": "ensemble", "mc_samples": 2}})
    together.wait(timeout=PATIENCE_SECONDS)
    without_weights = [models[0], add_model(backend, ("a", "b"))]
    failed = client.amalgamations.submit(recipe | {"teachers": without_weights})
    cancelled = client.amalgamations.submit(recipe)
    cancelled.cancel()
    kept = {
        "corpus_id": [corpus],
        "model_id": models,
        "job_id": [succeeded.id, succeeded.id, together.id, failed.id, cancelled.id],
        "trained_job_id": [succeeded.id],
        "student_id": [succeeded.student().id],
        "checkpoint": [checkpoint.revision for checkpoint in succeeded.checkpoints()],
        "path": ["config.json", "model.safetensors"],
        "webhook_id": [client.webhooks.create(NEAR).id for _ in range(2)],
    }
    files = {path.name: path.read_bytes() for path in (folder / "0").iterdir()}
    many = range(EXPENDABLE)
    expendable = {
        "corpus_id": [client.corpora.upload([f"text {number}", "another text"]).id for number in many],
        "model_id": [add_model(backend) for _ in many],
        "student_id": [add_student(backend, files, labels=LABELS[0]) for _ in many],
        "webhook_id": [add_webhook(backend, NEAR).id for _ in range(10)],
        "job_id": [_ended_job(backend) for _ in many],
    }
    return Stock(kept, expendable)


def _ended_job(backend: Backend) -> str:
    job_id = add_job(backend.database)
    jobs.cancel(backend, OWNER, job_id)
    return job_id
