"""Which time of the next look the comment of a waiting task shows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("told_wake_at", sa.DateTime(timezone=True)))
