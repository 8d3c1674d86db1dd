"""The tables. Every column that needs it has one sentence beneath it."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.persistence.time import UtcDateTime, now

Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """All tables of muka; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        list[dict[str, Any]]: Json,
        list[str]: Json,
    }


class Owned:
    """What every object of a user has."""

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    """Who may see it; objects of others do not exist for a caller."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    expires_at: Mapped[datetime | None]
    """When the sweeper may remove it; null: kept."""


class Corpus(Owned, Base):
    """Normalised texts."""

    __tablename__ = "corpora"
    __table_args__ = (UniqueConstraint("owner", "content_sha256"), Index(None, "owner", "id"))

    name: Mapped[str | None] = mapped_column(Text)
    """The uploaded file's name."""
    content_sha256: Mapped[str] = mapped_column(String(64))
    """Over the normalised texts and labels: the same content twice is one corpus."""
    storage_key: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the normalised Parquet file."""
    texts: Mapped[int] = mapped_column(BigInteger)
    labelled: Mapped[bool]
    """True when it has gold labels, which only an evaluation reads."""
    statistics: Mapped[dict[str, Any]]
    """Length distribution, dropped empty texts and duplicates, gold label counts."""


class Model(Owned, Base):
    """An uploaded teacher."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("owner", "digest"), Index(None, "owner", "id"))

    name: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 over the manifest: the same archive content twice is one model."""
    storage_prefix: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[list[dict[str, Any]]]
    """The manifest: path, sha256 and size_bytes of every file."""
    architecture: Mapped[str] = mapped_column(String(200))
    model_type: Mapped[str] = mapped_column(String(100))
    labels: Mapped[list[str]]
    parameters: Mapped[int] = mapped_column(BigInteger)


class Amalgamation(Owned, Base):
    """A job. The row is the truth, and the outbox; broker messages only say *look at it*."""

    __tablename__ = "amalgamations"
    __table_args__ = (
        Index(None, "owner", "id"),
        Index(None, "status", "id"),
        Index(None, "owner", "status", "id"),
        # For lists filtered by a tag that few of many jobs have. SQLite has no such index, and a plain one
        # helps nobody there; but it costs little, and both engines have one schema.
        Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    )

    name: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(20))
    stage: Mapped[str | None] = mapped_column(String(20))
    recipe: Mapped[dict[str, Any]]
    """`app.domain.recipe.Recipe`, complete with its defaults."""
    resolved: Mapped[dict[str, Any]]
    """`app.domain.recipe.Resolved`: what the recipe's names stood for."""
    user_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    """The user's own keys and values."""
    transitions: Mapped[list[dict[str, Any]]]
    """Every status it had: `{"status", "at", "attempt"}`."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of claims; the fencing token of every later write."""
    losses: Mapped[int] = mapped_column(default=0)
    """Attempts whose worker died; a warm stop does not count."""
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    """When it was last sent to the broker; empty: not yet."""
    started_at: Mapped[datetime | None]
    """First claim."""
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any]]
    """fraction, stage_fraction, step, total_steps, eta_seconds, updated_at."""
    events: Mapped[int] = mapped_column(default=0)
    """Sequence number of its newest event."""
    failure: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None]
    """What the job found out, once it has succeeded."""
    student_id: Mapped[str | None] = mapped_column(String(40))
    text_table: Mapped[str | None] = mapped_column(Text)
    """Key of the table of its texts, where its method makes no student; a student has it in its folder."""
    keep_best: Mapped[bool] = mapped_column(default=False)
    """When it is cancelled, its newest checkpoint becomes its student."""


class Event(Base):
    """One thing that happened to a job; numbered per job without gaps."""

    __tablename__ = "events"

    amalgamation_id: Mapped[str] = mapped_column(
        ForeignKey("amalgamations.id", ondelete="CASCADE"), primary_key=True
    )
    sequence: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(40))
    """`status`, `stage`, `metric`, `checkpoint`, `warning`."""
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now())


class Checkpoint(Base):
    """A state of a training, complete as a model, published by this row: the revision `step-N`."""

    __tablename__ = "checkpoints"

    amalgamation_id: Mapped[str] = mapped_column(
        ForeignKey("amalgamations.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    total_steps: Mapped[int]
    epoch: Mapped[float]
    """Passes over the corpus so far."""
    loss: Mapped[float]
    """Mean of the present epoch's steps so far."""
    attempt: Mapped[int]
    """Which wrote it."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    storage_prefix: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the model's files, without the optimizer's state beside them."""
    files: Mapped[list[dict[str, Any]]]
    """The manifest: path, sha256 and size_bytes of every file."""
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 over the manifest."""
    architecture: Mapped[str] = mapped_column(String(200))
    labels: Mapped[list[str]]
    parameters: Mapped[int] = mapped_column(BigInteger)


class Student(Owned, Base):
    """What a job made: published by this one row, which names the files of one attempt."""

    __tablename__ = "students"
    __table_args__ = (Index(None, "owner", "id"),)

    amalgamation_id: Mapped[str] = mapped_column(String(40))
    """Not a foreign key: a student outlives its job's deletion."""
    name: Mapped[str | None] = mapped_column(Text)
    storage_prefix: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[list[dict[str, Any]]]
    """The manifest: path, sha256 and size_bytes of every file."""
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 over the manifest: names the content when it is a teacher again."""
    architecture: Mapped[str] = mapped_column(String(200))
    labels: Mapped[list[str]]
    parameters: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """A POST that was answered, in the transaction of the row that it created; or that is being carried out.

    `app.persistence.idempotency` has the statements.
    """

    __tablename__ = "idempotency_keys"

    api_key_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Whose request it was: no other key, not even of the same owner, gets its answer."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str] = mapped_column(String(100), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """sha256 of the body: another body under the same key is refused."""
    resource_id: Mapped[str] = mapped_column(String(40))
    """What was created; until then the claim of the request that is at it."""
    response: Mapped[dict[str, Any]]
    """The answer to the first request, replayed to the others."""
    status: Mapped[int] = mapped_column(server_default="202")
    """Of that answer; 0 while there is none."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    """Also when the request that is at it last showed itself."""


class ApiKey(Base):
    """Who may come in. The key itself is nowhere but with its holder."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    """Whose objects it opens; several keys may have one owner."""
    name: Mapped[str | None] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(String(20))
    """The first characters of the key, by which its holder recognises it."""
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 of the key."""
    scopes: Mapped[list[str]]
    """Of `app.domain.access.Scope`."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    last_used_at: Mapped[datetime | None]
    """To the minute."""
    revoked_at: Mapped[datetime | None]
    """From then on it opens nothing."""


class ExpiredObject(Base):
    """What stays of an object that was removed because its time was over: enough to answer 410."""

    __tablename__ = "expired_objects"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100))
    expired_at: Mapped[datetime]


class Webhook(Owned, Base):
    """Where an owner wants to be told what becomes of jobs."""

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "owner", "id"),)

    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    events: Mapped[list[str]]
    """Of `app.domain.webhook.WebhookEvent`."""
    secret: Mapped[str] = mapped_column(Text)
    """As it was shown: a receiver's key is symmetric, so a digest would not do."""
    previous_secret: Mapped[str | None] = mapped_column(Text)
    previous_secret_until: Mapped[datetime | None]
    """Until then both secrets sign."""
    disabled_at: Mapped[datetime | None]
    """From then on nothing is sent but tests; empty: it is enabled."""
    disabled_reason: Mapped[str | None] = mapped_column(Text)


class WebhookDelivery(Base):
    """One message to one webhook. The row is the outbox: inserted in the transaction of what it tells."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "webhook_id", "id"), Index(None, "status", "next_attempt_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """The header `webhook-id`, the same in every attempt."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    amalgamation_id: Mapped[str | None] = mapped_column(String(40))
    """Not a foreign key: the log outlives the job's deletion."""
    event: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    """JSON, kept as text: every attempt sends the same bytes."""
    status: Mapped[str] = mapped_column(String(20))
    """Of `app.domain.webhook.DeliveryStatus`."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of claims; the fencing token of the process that sends."""
    attempts: Mapped[list[dict[str, Any]]]
    """What came of each: `{"at", "status_code", "error", "duration_seconds", "response"}`."""
    next_attempt_at: Mapped[datetime | None]
    """When it may be claimed; while it is being sent, when the claim runs out; empty: never again."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    finished_at: Mapped[datetime | None]


class StoredOutput(Base):
    """A piece of what a teacher said about one shard of texts: a file of the store, content-addressed."""

    __tablename__ = "stored_outputs"
    __table_args__ = (Index(None, "last_used_at"),)

    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Of the store. Files come and go only while their row is locked."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    precision: Mapped[str] = mapped_column(String(20))
    """Of the matrix products: `float32` or `bfloat16`."""
    software: Mapped[str] = mapped_column(Text)
    """Kind of device and versions of what computed it: other ones compute other numbers."""
    created_at: Mapped[datetime] = mapped_column(default=now())
    last_used_at: Mapped[datetime] = mapped_column(default=now())
    """When a job last asked for it: the longest unused ones are removed first."""


class NeededOutput(Base):
    """A piece that a job asked for, whether or not it is there yet; while the job lives it is not removed."""

    __tablename__ = "needed_outputs"

    amalgamation_id: Mapped[str] = mapped_column(
        ForeignKey("amalgamations.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(100), primary_key=True, index=True)


class Counter(Base):
    """A number that only grows, kept for metrics: what processes counted that have ended since."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Worker(Base):
    """A worker process that takes jobs. What it does stands in the leases that it holds."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Of this process; a successor of the same name has another."""
    name: Mapped[str] = mapped_column(String(200))
    """Under which it holds leases."""
    host: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    version: Mapped[str] = mapped_column(String(40))
    """Of muka."""
    started_at: Mapped[datetime] = mapped_column(default=now())
    seen_at: Mapped[datetime] = mapped_column(default=now())
    """When it last showed itself."""


class Shard(Base):
    """A part of a job's scoring that any worker may compute; lives within one attempt at the job."""

    __tablename__ = "shards"
    __table_args__ = (Index(None, "worker"),)

    amalgamation_id: Mapped[str] = mapped_column(
        ForeignKey("amalgamations.id", ondelete="CASCADE"), primary_key=True
    )
    teacher: Mapped[int] = mapped_column(primary_key=True)
    """Its place in the recipe; -1: all of them together, which adaptive sampling compares."""
    shard: Mapped[int] = mapped_column(primary_key=True)
    """Its number in the corpus."""
    attempt: Mapped[int]
    """At the job, which opened it: the shards of another one are of no use."""
    precision: Mapped[str] = mapped_column(String(20))
    software: Mapped[str] = mapped_column(Text)
    """As in `StoredOutput`: what the holder of the job computes with, and so must everybody."""
    status: Mapped[str] = mapped_column(String(20))
    """Of `app.domain.shards.ShardStatus`."""
    claims: Mapped[int] = mapped_column(default=0)
    """How often it was taken; the fencing token of who has it."""
    worker: Mapped[str | None] = mapped_column(String(200))
    """Who has it, or has done it."""
    lease_until: Mapped[datetime | None]
    """Of a helper. The holder of the job has none but the job's."""
