"""Whose runs are counted each day, and when an issue began last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0010"


def upgrade() -> None:
    for column in (
        sa.Column("author_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("labeller_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("claimed_event", sa.BigInteger()),
    ):
        op.add_column("tasks", column)
