"""Which time of the next look a comment shows; what an operator allows for a single pot of a budget."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("told_wake_at", sa.DateTime(timezone=True)))
    op.add_column("budget_allowances", sa.Column("pot", sa.Text(), nullable=False, server_default=""))
