"""What bounds a task beside its attempts: lost runs, daemons that ended while handling it, tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TOKENS_SO_FAR = sa.text(
    "UPDATE tasks SET tokens = (SELECT COALESCE(SUM(usage.input + usage.cache_read + usage.cache_write_5m "
    "+ usage.cache_write_1h + usage.output), 0) FROM usage JOIN runs ON runs.run_id = usage.run_id "
    "WHERE runs.task_id = tasks.task_id AND runs.finished_at IS NOT NULL)"
)


def upgrade() -> None:
    for name, kind in (("lost", sa.Integer()), ("crashes", sa.Integer()), ("tokens", sa.BigInteger())):
        op.add_column("tasks", sa.Column(name, kind, nullable=False, server_default=sa.text("0")))
    op.execute(_TOKENS_SO_FAR)
