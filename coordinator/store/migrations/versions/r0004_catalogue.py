"""The catalogue of models: syncs, models, prices with their dates, changes, research, alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
_WORD = sa.String(32)


def upgrade() -> None:
    _syncs()
    _models()
    _prices()
    _changes()
    _research()
    _alerts()


def _syncs() -> None:
    op.create_table(
        "catalog_syncs",
        sa.Column("sync_id", _ROW_ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("result", _WORD, nullable=False),
        sa.Column("etag", sa.Text()),
        sa.Column("models", sa.Integer()),
        sa.Column("left_out", sa.Integer()),
        sa.Column("problem", sa.Text()),
        sa.PrimaryKeyConstraint("sync_id", name="pk_catalog_syncs"),
    )


def _models() -> None:
    op.create_table(
        "catalog_models",
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("canonical_slug", sa.Text()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text()),
        sa.Column("created_at", _TIME),
        sa.Column("expires_on", sa.Text()),
        sa.Column("tokenizer", sa.Text()),
        sa.Column("context_limit", sa.BigInteger()),
        sa.Column("max_output", sa.BigInteger()),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("benchmarks", sa.Text(), nullable=False),
        sa.Column("first_seen_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("gone_at", _TIME),
        sa.PrimaryKeyConstraint("model_id", name="pk_catalog_models"),
    )


def _prices() -> None:
    op.create_table(
        "catalog_prices",
        sa.Column("price_id", _ROW_ID, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("sync_id", _ROW_ID, nullable=False),
        sa.Column("valid_from", _TIME, nullable=False),
        sa.Column("valid_to", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("alias_target", sa.Text()),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["catalog_models.model_id"], name="fk_catalog_prices_model_id"),
        sa.ForeignKeyConstraint(["sync_id"], ["catalog_syncs.sync_id"], name="fk_catalog_prices_sync_id"),
        sa.PrimaryKeyConstraint("price_id", name="pk_catalog_prices"),
    )
    op.create_index("ix_catalog_prices_model", "catalog_prices", ["model_id", "valid_from"])


def _changes() -> None:
    op.create_table(
        "catalog_changes",
        sa.Column("change_id", _ROW_ID, nullable=False),
        sa.Column("sync_id", _ROW_ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.ForeignKeyConstraint(["sync_id"], ["catalog_syncs.sync_id"], name="fk_catalog_changes_sync_id"),
        sa.PrimaryKeyConstraint("change_id", name="pk_catalog_changes"),
    )
    op.create_index("ix_catalog_changes_sync_id", "catalog_changes", ["sync_id"])
    op.create_index("ix_catalog_changes_at", "catalog_changes", ["at"])


def _research() -> None:
    op.create_table(
        "catalog_research",
        sa.Column("research_id", _ROW_ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("research_id", name="pk_catalog_research"),
    )
    op.create_index("ix_catalog_research_at", "catalog_research", ["at"])


def _alerts() -> None:
    op.create_table(
        "catalog_alerts",
        sa.Column("alert_id", _ROW_ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("told_at", _TIME),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("alert_id", name="pk_catalog_alerts"),
    )
    op.create_index("ix_catalog_alerts_told_at", "catalog_alerts", ["told_at"])
