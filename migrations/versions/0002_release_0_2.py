"""Release 0.2: API keys with owners, and what stays of an expired object."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB

from app.persistence.time import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Json = sa.JSON().with_variant(JSONB(), "postgresql")


def _required(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _optional(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _upgrade_keys() -> None:
    op.create_table(
        "api_keys",
        _required("id", sa.String(40)),
        _required("owner", sa.String(100)),
        _optional("name", Text()),
        _required("prefix", sa.String(20)),
        _required("digest", sa.String(64)),
        _required("scopes", Json),
        _required("created_at", UtcDateTime()),
        _optional("last_used_at", UtcDateTime()),
        _optional("revoked_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_table(
        "expired_objects",
        _required("id", sa.String(40)),
        _required("owner", sa.String(100)),
        _required("expired_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expired_objects")),
    )
    # The one owner of 0.1, `default`, is also the id of the key in MUKA_API_KEY.
    with op.batch_alter_table("idempotency_keys") as table:
        table.alter_column("owner", new_column_name="api_key_id")
        table.add_column(sa.Column("status", sa.Integer(), nullable=False, server_default="202"))


def _downgrade_keys() -> None:
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_column("status")
        table.alter_column("api_key_id", new_column_name="owner")
    op.drop_table("expired_objects")
    op.drop_table("api_keys")


def _upgrade_webhooks() -> None:
    op.create_table(
        "webhooks",
        _required("id", sa.String(40)),
        _required("owner", sa.String(100)),
        _required("created_at", UtcDateTime()),
        _optional("expires_at", UtcDateTime()),
        _required("url", Text()),
        _optional("description", Text()),
        _required("events", Json),
        _required("secret", Text()),
        _optional("previous_secret", Text()),
        _optional("previous_secret_until", UtcDateTime()),
        _optional("disabled_at", UtcDateTime()),
        _optional("disabled_reason", Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_owner_id"), "webhooks", ["owner", "id"])
    op.create_table(
        "webhook_deliveries",
        _required("id", sa.String(40)),
        _required("webhook_id", sa.String(40)),
        _optional("amalgamation_id", sa.String(40)),
        _required("event", sa.String(40)),
        _required("body", Text()),
        _required("status", sa.String(20)),
        _required("attempt", sa.Integer()),
        _required("attempts", Json),
        _optional("next_attempt_at", UtcDateTime()),
        _required("created_at", UtcDateTime()),
        _optional("finished_at", UtcDateTime()),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    for columns in (["webhook_id", "id"], ["status", "next_attempt_at"]):
        name = f"ix_webhook_deliveries_{'_'.join(columns)}"
        op.create_index(op.f(name), "webhook_deliveries", columns)


def _downgrade_webhooks() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")


def _upgrade_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        _required("amalgamation_id", sa.String(40)),
        _required("step", sa.Integer()),
        _required("total_steps", sa.Integer()),
        _required("epoch", sa.Double()),
        _required("loss", sa.Double()),
        _required("attempt", sa.Integer()),
        _required("created_at", UtcDateTime()),
        _required("storage_prefix", Text()),
        _required("size_bytes", sa.BigInteger()),
        _required("files", Json),
        _required("digest", sa.String(64)),
        _required("architecture", sa.String(200)),
        _required("labels", Json),
        _required("parameters", sa.BigInteger()),
        sa.PrimaryKeyConstraint("amalgamation_id", "step", name=op.f("pk_checkpoints")),
        sa.ForeignKeyConstraint(
            ["amalgamation_id"],
            ["amalgamations.id"],
            name=op.f("fk_checkpoints_amalgamation_id"),
            ondelete="CASCADE",
        ),
    )
    # Not in batch mode: on SQLite that makes the table anew, and would take the events of all jobs with it.
    op.add_column(
        "amalgamations", sa.Column("keep_best", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def _downgrade_checkpoints() -> None:
    op.drop_column("amalgamations", "keep_best")
    op.drop_table("checkpoints")


def _upgrade_stored_outputs() -> None:
    op.create_table(
        "stored_outputs",
        _required("key", sa.String(100)),
        _required("size_bytes", sa.BigInteger()),
        _required("precision", sa.String(20)),
        _required("software", Text()),
        _required("created_at", UtcDateTime()),
        _required("last_used_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_stored_outputs")),
    )
    op.create_index(op.f("ix_stored_outputs_last_used_at"), "stored_outputs", ["last_used_at"])
    op.create_table(
        "needed_outputs",
        _required("amalgamation_id", sa.String(40)),
        _required("key", sa.String(100)),
        sa.ForeignKeyConstraint(
            ["amalgamation_id"],
            ["amalgamations.id"],
            name=op.f("fk_needed_outputs_amalgamation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("amalgamation_id", "key", name=op.f("pk_needed_outputs")),
    )
    op.create_index(op.f("ix_needed_outputs_key"), "needed_outputs", ["key"])
    op.create_table(
        "counters",
        _required("name", sa.String(100)),
        _required("value", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )


def _downgrade_stored_outputs() -> None:
    op.drop_table("counters")
    op.drop_table("needed_outputs")
    op.drop_table("stored_outputs")


def _upgrade_metadata() -> None:
    # A list filtered by a tag that few of a million jobs have reads them all without it: seconds.
    op.create_index(
        op.f("ix_amalgamations_metadata"),
        "amalgamations",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )


def _downgrade_metadata() -> None:
    op.drop_index(op.f("ix_amalgamations_metadata"), "amalgamations")


def upgrade() -> None:
    _upgrade_keys()
    _upgrade_webhooks()
    _upgrade_stored_outputs()
    _upgrade_checkpoints()
    _upgrade_metadata()


def downgrade() -> None:
    _downgrade_metadata()
    _downgrade_checkpoints()
    _downgrade_stored_outputs()
    _downgrade_webhooks()
    _downgrade_keys()
