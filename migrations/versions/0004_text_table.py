"""Where the table of texts is of a job that makes no student."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("amalgamations", sa.Column("text_table", Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("amalgamations", "text_table")
