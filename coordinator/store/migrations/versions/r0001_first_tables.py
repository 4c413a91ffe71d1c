"""First tables: tasks, runs with decisions and usage, outbox, audit, operator requests, daemon state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
_WORD = sa.String(32)
_LIVE = sa.text("finished_at IS NULL")
_UNANSWERED = sa.text("answer IS NULL")


def upgrade() -> None:
    _tasks()
    _runs()
    _routing_decisions()
    _usage()
    _outbox()
    _events()
    _operator_requests()
    _daemon_state()


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("task_id", _ROW_ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("repo", sa.Text(), nullable=False),
        sa.Column("repo_id", sa.BigInteger(), nullable=False),
        sa.Column("issue_number", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("snapshot_title", sa.Text(), nullable=False),
        sa.Column("snapshot_body", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("trigger_event_id", sa.BigInteger(), nullable=False),
        sa.Column("triggered_by", sa.Text(), nullable=False),
        sa.Column("state", _WORD, nullable=False),
        sa.Column("cause", sa.Text()),
        sa.Column("wake_at", _TIME),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("last_outcome", _WORD),
        sa.Column("last_failure_class", _WORD),
        sa.Column("last_provider", sa.Text()),
        sa.Column("last_model", sa.Text()),
        sa.Column("comment_id", sa.BigInteger()),
        sa.Column("pr_number", sa.BigInteger()),
        sa.Column("pr_url", sa.Text()),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("issue_updated_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_tasks_attempts_not_negative")),
        sa.PrimaryKeyConstraint("task_id", name="pk_tasks"),
        sa.UniqueConstraint("repo_id", "issue_number", name="uq_tasks_repo_id_issue_number"),
    )
    op.create_index("ix_tasks_dispatch_order", "tasks", ["state", "priority", "created_at", "task_id"])
    op.create_index("ix_tasks_repository_listed", "tasks", ["repo_id", "listed"])
    op.create_index("ix_tasks_repository_state", "tasks", ["repo_id", "state"])
    op.create_index("ix_tasks_wake", "tasks", ["state", "wake_at"])


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", _ROW_ID, nullable=False),
        sa.Column("task_id", _ROW_ID, nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text()),
        sa.Column("config_version", sa.Text(), nullable=False),
        sa.Column("run_dir", sa.Text(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.Column("stop_reason", sa.Text()),
        sa.Column("stop_outcome", _WORD),
        sa.Column("outcome", _WORD),
        sa.Column("failure_class", _WORD),
        sa.Column("detail", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("exit_signal", sa.Integer()),
        sa.Column("stream_offset", sa.BigInteger(), nullable=False),
        sa.Column("shim_pid", sa.Integer()),
        sa.Column("child_pid", sa.Integer()),
        sa.Column("usage_source", _WORD),
        sa.Column("reported_cost_usd", sa.Text()),
        sa.Column("cost_usd", sa.Text()),
        sa.Column("priced_by", sa.Text()),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_runs_task_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
        sa.UniqueConstraint("task_id", "token", name="uq_runs_task_id_token"),
    )
    op.create_index("ix_runs_finished_at", "runs", ["finished_at"])
    op.create_index(
        "uq_runs_live", "runs", ["task_id"], unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE
    )


def _routing_decisions() -> None:
    op.create_table(
        "routing_decisions",
        sa.Column("run_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_routing_decisions_run_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_routing_decisions"),
    )


def _usage() -> None:
    op.create_table(
        "usage",
        sa.Column("run_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input", sa.BigInteger(), nullable=False),
        sa.Column("cache_read", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("reasoning", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_usage_run_id"),
        sa.PrimaryKeyConstraint("run_id", "model", name="pk_usage"),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("item_id", _ROW_ID, nullable=False),
        sa.Column("task_id", _ROW_ID, nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("state", _WORD, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("queued_at", _TIME, nullable=False),
        sa.Column("error", sa.Text()),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_outbox_task_id"),
        sa.PrimaryKeyConstraint("item_id", name="pk_outbox"),
        sa.UniqueConstraint("task_id", "kind", name="uq_outbox_task_id_kind"),
    )
    op.create_index("ix_outbox_send_order", "outbox", ["state", "kind", "queued_at", "item_id"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", _ROW_ID, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("task_id", _ROW_ID),
        sa.Column("run_id", _ROW_ID),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_events_run_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_events_task_id"),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
    )
    op.create_index("ix_events_task", "events", ["task_id", "event_id"])


def _operator_requests() -> None:
    op.create_table(
        "operator_requests",
        sa.Column("request_id", _ROW_ID, nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("task_id", _ROW_ID),
        sa.Column("argument", sa.Text()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("answer", sa.Text()),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name="fk_operator_requests_task_id"),
        sa.PrimaryKeyConstraint("request_id", name="pk_operator_requests"),
    )
    op.create_index(
        "ix_operator_requests_pending",
        "operator_requests",
        ["request_id"],
        sqlite_where=_UNANSWERED,
        postgresql_where=_UNANSWERED,
    )


def _daemon_state() -> None:
    op.create_table(
        "daemon_state",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_daemon_state"),
    )
