"""Rows of the worker processes."""

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


def downgrade() -> None:
    op.drop_table("workers")
