"""What budgets reserve for a run and count for it, and what operators allow beyond them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_SPENT_SO_FAR = sa.text(
    "UPDATE runs SET spent_usd = cost_usd, spent_tokens = (SELECT SUM(usage.input + usage.cache_read "
    "+ usage.cache_write_5m + usage.cache_write_1h + usage.output) FROM usage "
    "WHERE usage.run_id = runs.run_id) WHERE finished_at IS NOT NULL"
)
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for name, kind in (
        ("reserved_usd", sa.Text()),
        ("reserved_tokens", sa.BigInteger()),
        ("stop_until", sa.DateTime(timezone=True)),
        ("spent_usd", sa.Text()),
        ("spent_tokens", sa.BigInteger()),
    ):
        op.add_column("runs", sa.Column(name, kind))
    op.execute(_SPENT_SO_FAR)
    op.create_index("ix_runs_provider_model_finished_at", "runs", ["provider", "model", "finished_at"])
    op.create_table(
        "budget_allowances",
        sa.Column("allowance_id", _ROW_ID, nullable=False),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("usd", sa.Text()),
        sa.Column("tokens", sa.BigInteger()),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("allowance_id", name="pk_budget_allowances"),
    )
    op.create_table(
        "budget_warnings",
        sa.Column("pot", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("pot", name="pk_budget_warnings"),
    )
