"""The first tables: corpora, models, jobs with their events, students, idempotency keys."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from app.persistence.time import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Json = sa.JSON().with_variant(JSONB(), "postgresql")


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _optional(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _create_owned(table: str, *parts: sa.schema.SchemaItem) -> None:
    op.create_table(
        table,
        _required("id", sa.String(40)),
        _required("owner", sa.String(100)),
        _required("created_at", UtcDateTime()),
        _optional("expires_at", UtcDateTime()),
        *parts,
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
    op.create_index(op.f(f"ix_{table}_owner_id"), table, ["owner", "id"])


def upgrade() -> None:
    _create_owned(
        "corpora",
        _optional("name", Text()),
        _required("content_sha256", sa.String(64)),
        _required("storage_key", Text()),
        _required("size_bytes", sa.BigInteger()),
        _required("texts", sa.BigInteger()),
        _required("labelled", sa.Boolean()),
        _required("statistics", Json),
        sa.UniqueConstraint("owner", "content_sha256", name=op.f("uq_corpora_owner_content_sha256")),
    )
    _create_owned(
        "models",
        _optional("name", Text()),
        _required("digest", sa.String(64)),
        _required("storage_prefix", Text()),
        _required("size_bytes", sa.BigInteger()),
        _required("files", Json),
        _required("architecture", sa.String(200)),
        _required("model_type", sa.String(100)),
        _required("labels", Json),
        _required("parameters", sa.BigInteger()),
        sa.UniqueConstraint("owner", "digest", name=op.f("uq_models_owner_digest")),
    )
    _create_owned(
        "amalgamations",
        _optional("name", Text()),
        _required("status", sa.String(20)),
        _optional("stage", sa.String(20)),
        _required("recipe", Json),
        _required("resolved", Json),
        _required("metadata", Json),
        _required("transitions", Json),
        _required("attempt", sa.Integer()),
        _required("losses", sa.Integer()),
        _optional("lease_owner", sa.String(200)),
        _optional("lease_until", UtcDateTime()),
        _optional("heartbeat_at", UtcDateTime()),
        _optional("dispatched_at", UtcDateTime()),
        _optional("started_at", UtcDateTime()),
        _optional("finished_at", UtcDateTime()),
        _required("progress", Json),
        _required("events", sa.Integer()),
        _optional("failure", Json),
        _optional("report", Json),
        _optional("student_id", sa.String(40)),
    )
    op.create_index(op.f("ix_amalgamations_status_id"), "amalgamations", ["status", "id"])
    op.create_index(op.f("ix_amalgamations_owner_status_id"), "amalgamations", ["owner", "status", "id"])
    op.create_table(
        "events",
        _required("amalgamation_id", sa.String(40)),
        _required("sequence", sa.Integer()),
        _required("type", sa.String(40)),
        _required("message", Text()),
        _required("data", Json),
        _required("created_at", UtcDateTime()),
        sa.ForeignKeyConstraint(
            ["amalgamation_id"],
            ["amalgamations.id"],
            name=op.f("fk_events_amalgamation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("amalgamation_id", "sequence", name=op.f("pk_events")),
    )
    _create_owned(
        "students",
        _required("amalgamation_id", sa.String(40)),
        _optional("name", Text()),
        _required("storage_prefix", Text()),
        _required("size_bytes", sa.BigInteger()),
        _required("files", Json),
        _required("digest", sa.String(64)),
        _required("architecture", sa.String(200)),
        _required("labels", Json),
        _required("parameters", sa.BigInteger()),
    )
    op.create_table(
        "idempotency_keys",
        _required("owner", sa.String(100)),
        _required("key", sa.String(255)),
        _required("route", sa.String(100)),
        _required("fingerprint", sa.String(64)),
        _required("resource_id", sa.String(40)),
        _required("response", Json),
        _required("created_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("owner", "key", "route", name=op.f("pk_idempotency_keys")),
    )


def downgrade() -> None:
    for table in ("idempotency_keys", "students", "events", "amalgamations", "models", "corpora"):
        op.drop_table(table)
