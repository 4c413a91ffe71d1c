"""What was approved and by whom: the fingerprint of the text, comments, edits since, and each decision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from adw_modules.security.admission import fingerprint

revision = "0007"
down_revision = "0006"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for column in (
        sa.Column("labelled_at", sa.DateTime(timezone=True)),
        sa.Column("snapshot_comments", sa.Text(), nullable=False, server_default=sa.text("'[]'")),
        sa.Column("text_sha", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("seen_sha", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("held", sa.Text()),
    ):
        op.add_column("tasks", column)
    _fingerprint_known_texts()
    op.create_table(
        "audit",
        sa.Column("audit_id", _ROW_ID, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task_id", _ROW_ID),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("by_app", sa.Boolean(), nullable=False),
        sa.Column("permission", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("label_event_id", sa.BigInteger()),
        sa.Column("snapshot", sa.Text()),
        sa.Column("config_version", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_audit_task_id"),
    )
    op.create_index("ix_audit_task", "audit", ["task_id", "audit_id"])


def _fingerprint_known_texts() -> None:
    """What an older version admitted is approved as well: an edit of it since is to be seen."""
    tasks = sa.table(
        "tasks",
        sa.column("task_id", sa.BigInteger()),
        sa.column("snapshot_title", sa.Text()),
        sa.column("snapshot_body", sa.Text()),
        sa.column("text_sha", sa.Text()),
    )
    conn = op.get_bind()
    for row in conn.execute(sa.select(tasks)).all():
        sha = fingerprint(row.snapshot_title, row.snapshot_body)
        conn.execute(tasks.update().where(tasks.c.task_id == row.task_id).values(text_sha=sha))
