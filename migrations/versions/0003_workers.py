"""Rows of the worker processes, and of the parts of a job that they share."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text

from app.persistence.time import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _optional(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def upgrade() -> None:
    op.create_table(
        "workers",
        _required("id", sa.String(40)),
        _required("name", sa.String(200)),
        _required("host", Text()),
        _required("pid", sa.Integer()),
        _required("version", sa.String(40)),
        _required("started_at", UtcDateTime()),
        _required("seen_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "shards",
        _required("amalgamation_id", sa.String(40)),
        _required("teacher", sa.Integer()),
        _required("shard", sa.Integer()),
        _required("attempt", sa.Integer()),
        _required("precision", sa.String(20)),
        _required("software", Text()),
        _required("status", sa.String(20)),
        _required("claims", sa.Integer()),
        _optional("worker", sa.String(200)),
        _optional("lease_until", UtcDateTime()),
        sa.ForeignKeyConstraint(
            ["amalgamation_id"],
            ["amalgamations.id"],
            name=op.f("fk_shards_amalgamation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("amalgamation_id", "teacher", "shard", name=op.f("pk_shards")),
    )
    op.create_index(op.f("ix_shards_worker"), "shards", ["worker"])


def downgrade() -> None:
    op.drop_table("shards")
    op.drop_table("workers")
