"""Circuits of providers; where a task has failed since its trigger, and who asked for a target by label."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for name in ("failed_on", "overrides"):
        op.add_column("tasks", sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.create_table(
        "provider_health",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("openings", sa.Integer(), nullable=False),
        sa.Column("until", _TIME),
        sa.Column("fingerprint", sa.Text()),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("provider", "model", name="pk_provider_health"),
    )
