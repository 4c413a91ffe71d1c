"""Where the price of a run and of each of its models came from. Settled runs keep what they said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("usage", sa.Column("cost_usd", sa.Text()))
    for table in ("usage", "runs"):
        op.add_column(table, sa.Column("price_source", sa.String(32)))
        op.add_column(table, sa.Column("price_version", sa.Text()))
