"""Corpora, models, students and webhooks for tests, put into database and store as the service does."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.identifiers import Prefix, new_id, student_of
from app.domain.revisions import checkpoint_id
from app.domain.webhook import WebhookEvent, new_secret
from app.persistence.tables import Checkpoint, Corpus, Model, Student, Webhook
from app.services.backend import Backend

OWNER = "default"


def bert_config(labels: Sequence[str], **changes: Any) -> bytes:
    """`config.json` of a two-layer BERT classifier."""
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "num_hidden_layers": 2,
        "id2label": {str(index): label for index, label in enumerate(labels)},
    }
    return json.dumps({key: value for key, value in (config | changes).items() if value is not None}).encode()


def model_files(labels: Sequence[str], weights: str = "", **changes: Any) -> dict[str, bytes]:
    """A model's folder; other `weights` are another model."""
    content = weights or "/".join(labels)
    return {
        "config.json": bert_config(labels, **changes),
        "model.safetensors": b"weights of " + content.encode(),
        "tokenizer.json": b"{}",
    }


def add_corpus(backend: Backend, *, labelled: bool = False, owner: str = OWNER) -> str:
    """A corpus row; answers its id. The API never opens its file."""
    corpus_id = new_id(Prefix.CORPUS)
    corpus = Corpus(
        id=corpus_id,
        owner=owner,
        content_sha256=hashlib.sha256(corpus_id.encode()).hexdigest(),
        storage_key=f"corpora/{corpus_id}.parquet",
        size_bytes=1000,
        texts=100,
        labelled=labelled,
        statistics={},
    )
    with backend.database.write() as session:
        session.add(corpus)
    return corpus_id


def add_model(
    backend: Backend, labels: Sequence[str] = ("refund", "invoice"), weights: str = "", owner: str = OWNER
) -> str:
    """An uploaded model; answers its id."""
    model_id = new_id(Prefix.MODEL)
    files = model_files(labels, weights)
    manifest = put_folder(backend, f"models/{model_id}", files)
    model = Model(
        id=model_id,
        owner=owner,
        digest=hashlib.sha256(f"{model_id}{weights}".encode()).hexdigest(),
        storage_prefix=f"models/{model_id}",
        size_bytes=sum(map(len, files.values())),
        files=manifest,
        architecture="BertForSequenceClassification",
        model_type="bert",
        labels=list(labels),
        parameters=1000,
    )
    with backend.database.write() as session:
        session.add(model)
    return model_id


def add_student(
    backend: Backend,
    files: Mapping[str, bytes] | None = None,
    *,
    labels: Sequence[str] = ("refund", "invoice", "late"),
    owner: str = OWNER,
    job_id: str | None = None,
) -> str:
    """A published student, of a job that was deleted unless one is given; answers its id."""
    student_id = student_of(job_id) if job_id else new_id(Prefix.STUDENT)
    folder = files if files is not None else model_files(labels, student_id)
    prefix = f"students/{student_id}/attempt-1"
    student = Student(
        id=student_id,
        owner=owner,
        amalgamation_id=f"{Prefix.AMALGAMATION}-{student_id[4:]}",
        storage_prefix=prefix,
        size_bytes=sum(map(len, folder.values())),
        files=put_folder(backend, prefix, folder),
        digest=hashlib.sha256(student_id.encode()).hexdigest(),
        architecture="BertForSequenceClassification",
        labels=list(labels),
        parameters=1000,
    )
    with backend.database.write() as session:
        session.add(student)
    return student_id


def add_webhook(
    backend: Backend,
    url: str = "https://example.com/muka",
    *,
    events: Sequence[WebhookEvent] = tuple(WebhookEvent),
    owner: str = OWNER,
) -> Webhook:
    """A webhook as it is made; its URL is not checked."""
    webhook = Webhook(
        id=new_id(Prefix.WEBHOOK), owner=owner, url=url, events=list(events), secret=new_secret()
    )
    with backend.database.write() as session:
        session.add(webhook)
    return webhook


def add_checkpoint(
    backend: Backend, job_id: str, step: int, *, labels: Sequence[str] = ("refund", "invoice", "late")
) -> str:
    """A checkpoint of a job's training, as its first attempt saves it; answers its id."""
    files = model_files(labels, f"{job_id} at step {step}")
    prefix = f"jobs/{job_id}/attempt-1/checkpoints/{step}"
    manifest = put_folder(backend, prefix, {**files, "state.json": b"{}", "optimizer.safetensors": b"12345"})
    checkpoint = Checkpoint(
        amalgamation_id=job_id,
        step=step,
        total_steps=900,
        epoch=step / 300,
        loss=0.5,
        attempt=1,
        storage_prefix=prefix,
        size_bytes=sum(map(len, files.values())),
        files=[entry for entry in manifest if entry["path"] in files],
        digest=hashlib.sha256(prefix.encode()).hexdigest(),
        architecture="BertForSequenceClassification",
        labels=list(labels),
        parameters=1000,
    )
    with backend.database.write() as session:
        session.add(checkpoint)
    return checkpoint_id(job_id, step)


def put_folder(backend: Backend, prefix: str, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Store the files; answers their manifest."""
    with backend.store.staging() as staged:
        for path, content in files.items():
            target = staged / "folder" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        backend.store.put_folder(prefix, staged / "folder")
    return [
        {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in files.items()
    ]
