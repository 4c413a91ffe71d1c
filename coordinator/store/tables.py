"""The tables and their indexes, in one place. Owns the schema; holds no statements.

A change here needs a new file in `migrations/versions` and a new last entry in `schema.REVISIONS`;
a test compares what the migrations build with what stands here.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from adw_modules.catalogue.changes import ChangeKind
from adw_modules.health import HealthKind
from adw_modules.money.quotes import PriceSource
from adw_modules.tasks.model import FailureClass, Outcome, TaskState, UsageSource
from coordinator.store.records import OutboxKind, OutboxState, SyncResult
from coordinator.store.types import (
    CleanText,
    CommentText,
    DecimalText,
    EnumText,
    FailedText,
    JsonText,
    LabelText,
    OverrideText,
    PriorityNumber,
    RowId,
    UtcTime,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row per issue, for ever: see docs/decisions/0002-one-row-per-issue.md.
tasks = Table(
    "tasks",
    metadata,
    Column("task_id", RowId, primary_key=True),
    Column("name", CleanText, nullable=False),
    Column("repo", CleanText, nullable=False),
    Column("repo_id", BigInteger, nullable=False),
    Column("issue_number", BigInteger, nullable=False),
    Column("title", CleanText, nullable=False),
    Column("snapshot_title", CleanText, nullable=False),
    Column("snapshot_body", CleanText, nullable=False),
    Column("url", CleanText, nullable=False),
    Column("labels", LabelText, nullable=False),
    Column("author", CleanText, nullable=False),
    Column("priority", PriorityNumber, nullable=False),
    Column("trigger_event_id", BigInteger, nullable=False),
    Column("triggered_by", CleanText, nullable=False),
    Column("state", EnumText(TaskState), nullable=False),
    Column("cause", CleanText),
    Column("wake_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("lost", Integer, nullable=False, server_default=text("0")),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("runs", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("token", BigInteger, nullable=False),
    Column("last_outcome", EnumText(Outcome)),
    Column("last_failure_class", EnumText(FailureClass)),
    Column("last_provider", CleanText),
    Column("last_model", CleanText),
    Column("comment_id", BigInteger),
    Column("pr_number", BigInteger),
    Column("pr_url", CleanText),
    Column("listed", Boolean, nullable=False),
    Column("issue_updated_at", UtcTime, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("failed_on", FailedText, nullable=False, server_default=text("'[]'")),
    Column("overrides", OverrideText, nullable=False, server_default=text("'[]'")),
    Column("labelled_at", UtcTime),
    Column("snapshot_comments", CommentText, nullable=False, server_default=text("'[]'")),
    Column("text_sha", CleanText, nullable=False, server_default=text("''")),
    Column("seen_sha", CleanText, nullable=False, server_default=text("''")),
    Column("held", CleanText),
    Column("told_wake_at", UtcTime),
    Column("author_id", BigInteger, nullable=False, server_default=text("0")),
    Column("labeller_id", BigInteger, nullable=False, server_default=text("0")),
    Column("claimed_at", UtcTime),
    Column("claimed_event", BigInteger),
    UniqueConstraint("repo_id", "issue_number"),
    CheckConstraint("attempts >= 0", name="attempts_not_negative"),
)
Index("ix_tasks_dispatch_order", tasks.c.state, tasks.c.priority, tasks.c.created_at, tasks.c.task_id)
Index("ix_tasks_wake", tasks.c.state, tasks.c.wake_at)
Index("ix_tasks_repository_state", tasks.c.repo_id, tasks.c.state)
Index("ix_tasks_repository_listed", tasks.c.repo_id, tasks.c.listed)

runs = Table(
    "runs",
    metadata,
    Column("run_id", RowId, primary_key=True),
    Column("task_id", RowId, ForeignKey("tasks.task_id"), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("provider", CleanText, nullable=False),
    Column("model", CleanText, nullable=False),
    Column("rule", CleanText),
    Column("config_version", CleanText, nullable=False),
    Column("run_dir", CleanText, nullable=False),
    Column("claimed_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("stop_reason", CleanText),
    Column("stop_outcome", EnumText(Outcome)),
    Column("outcome", EnumText(Outcome)),
    Column("failure_class", EnumText(FailureClass)),
    Column("detail", CleanText),
    Column("exit_code", Integer),
    Column("exit_signal", Integer),
    Column("stream_offset", BigInteger, nullable=False),
    Column("shim_pid", Integer),  # for people and `doctor`; liveness is the lock in the run directory
    Column("child_pid", Integer),
    Column("usage_source", EnumText(UsageSource)),
    Column("reported_cost_usd", DecimalText),
    Column("cost_usd", DecimalText),
    Column("priced_by", CleanText),
    Column("price_source", EnumText(PriceSource)),
    Column("price_version", CleanText),
    Column("reserved_usd", DecimalText),
    Column("reserved_tokens", BigInteger),
    Column("stop_until", UtcTime),
    Column("spent_usd", DecimalText),  # what budgets count: so far, and in the end
    Column("spent_tokens", BigInteger),
    UniqueConstraint("task_id", "token"),
)
# The database itself refuses a second live run of a task.
Index(
    "uq_runs_live",
    runs.c.task_id,
    unique=True,
    sqlite_where=text("finished_at IS NULL"),
)
Index("ix_runs_finished_at", runs.c.finished_at)
Index("ix_runs_provider_model_finished_at", runs.c.provider, runs.c.model, runs.c.finished_at)

# Provider, model, rule and configuration of the decision stand in the run it led to.
routing_decisions = Table(
    "routing_decisions",
    metadata,
    Column("run_id", RowId, ForeignKey("runs.run_id"), primary_key=True, autoincrement=False),
    Column("reason", CleanText, nullable=False),
    Column("trace", JsonText, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("run_id", RowId, ForeignKey("runs.run_id"), primary_key=True, autoincrement=False),
    Column("model", CleanText, primary_key=True),
    Column("input", BigInteger, nullable=False),
    Column("cache_read", BigInteger, nullable=False),
    Column("cache_write_5m", BigInteger, nullable=False),
    Column("cache_write_1h", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("cost_usd", DecimalText),
    Column("price_source", EnumText(PriceSource)),
    Column("price_version", CleanText),
)

# One row per task and kind, used again and again: `version` only rises, so a late "done" hides no newer news.
outbox = Table(
    "outbox",
    metadata,
    Column("item_id", RowId, primary_key=True),
    Column("task_id", RowId, ForeignKey("tasks.task_id"), nullable=False),
    Column("kind", EnumText(OutboxKind), nullable=False),
    Column("state", EnumText(OutboxState), nullable=False),
    Column("version", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("not_before", UtcTime, nullable=False),
    Column("queued_at", UtcTime, nullable=False),
    Column("error", CleanText),
    UniqueConstraint("task_id", "kind"),
)
Index("ix_outbox_send_order", outbox.c.state, outbox.c.kind, outbox.c.queued_at, outbox.c.item_id)

events = Table(
    "events",
    metadata,
    Column("event_id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("task_id", RowId, ForeignKey("tasks.task_id")),
    Column("run_id", RowId, ForeignKey("runs.run_id")),
    Column("kind", CleanText, nullable=False),
    Column("text", CleanText, nullable=False),
)
Index("ix_events_task", events.c.task_id, events.c.event_id)

# Who was let in or not, and why: append-only. `details` is for whoever decides something further.
decisions = Table(
    "audit",
    metadata,
    Column("audit_id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("task_id", RowId, ForeignKey("tasks.task_id")),
    Column("decision", CleanText, nullable=False),
    Column("reason", CleanText, nullable=False),
    Column("actor", CleanText, nullable=False),
    Column("actor_id", BigInteger, nullable=False),
    Column("actor_kind", CleanText, nullable=False),
    Column("by_app", Boolean, nullable=False),
    Column("permission", CleanText, nullable=False),
    Column("role", CleanText, nullable=False),
    Column("label_event_id", BigInteger),
    Column("snapshot", CleanText),
    Column("config_version", CleanText, nullable=False),
    Column("details", JsonText, nullable=False),
)
Index("ix_audit_task", decisions.c.task_id, decisions.c.audit_id)

# The circuit of each provider and model that anything was ever heard of; model "" is the provider as a whole.
provider_health = Table(
    "provider_health",
    metadata,
    Column("provider", CleanText, primary_key=True),
    Column("model", CleanText, primary_key=True),
    Column("is_open", Boolean, nullable=False),
    Column("kind", EnumText(HealthKind), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("openings", Integer, nullable=False),
    Column("until", UtcTime),
    Column("fingerprint", CleanText),
    Column("paused", Boolean, nullable=False),
    Column("detail", CleanText, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

operator_requests = Table(
    "operator_requests",
    metadata,
    Column("request_id", RowId, primary_key=True),
    Column("verb", CleanText, nullable=False),
    Column("task_id", RowId, ForeignKey("tasks.task_id")),
    Column("argument", CleanText),
    Column("created_at", UtcTime, nullable=False),
    Column("answer", CleanText),
)
Index(
    "ix_operator_requests_pending",
    operator_requests.c.request_id,
    sqlite_where=text("answer IS NULL"),
)

budget_allowances = Table(
    "budget_allowances",
    metadata,
    Column("allowance_id", RowId, primary_key=True),
    Column("budget", CleanText, nullable=False),
    Column("usd", DecimalText),
    Column("tokens", BigInteger),
    Column("at", UtcTime, nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("reason", CleanText, nullable=False),
    Column("pot", CleanText, nullable=False, server_default=text("''")),
)

# The largest share of each pot that was warned of in its current period.
budget_warnings = Table(
    "budget_warnings",
    metadata,
    Column("pot", CleanText, primary_key=True),
    Column("period", CleanText, nullable=False),
    Column("share", Float, nullable=False),
)

daemon_state = Table(
    "daemon_state",
    metadata,
    Column("key", CleanText, primary_key=True),
    Column("value", CleanText, nullable=False),
)

# The catalogue. One row per sync that was tried; a model's row stays when it is gone, with the time.
catalog_syncs = Table(
    "catalog_syncs",
    metadata,
    Column("sync_id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("result", EnumText(SyncResult), nullable=False),
    Column("etag", CleanText),
    Column("models", Integer),
    Column("left_out", Integer),
    Column("problem", CleanText),
)

catalog_models = Table(
    "catalog_models",
    metadata,
    Column("model_id", CleanText, primary_key=True),
    Column("canonical_slug", CleanText),
    Column("name", CleanText, nullable=False),
    Column("family", CleanText),
    Column("created_at", UtcTime),
    Column("expires_on", CleanText),
    Column("tokenizer", CleanText),
    Column("context_limit", BigInteger),
    Column("max_output", BigInteger),
    Column("capabilities", LabelText, nullable=False),
    Column("benchmarks", JsonText, nullable=False),
    Column("first_seen_at", UtcTime, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
    Column("gone_at", UtcTime),
)

# `valid_to` is the last sync that saw these terms, `ended_at` the first that did not.
catalog_prices = Table(
    "catalog_prices",
    metadata,
    Column("price_id", RowId, primary_key=True),
    Column("model_id", CleanText, ForeignKey("catalog_models.model_id"), nullable=False),
    Column("sync_id", RowId, ForeignKey("catalog_syncs.sync_id"), nullable=False),
    Column("valid_from", UtcTime, nullable=False),
    Column("valid_to", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("alias_target", CleanText),
    Column("terms", JsonText, nullable=False),
)
Index("ix_catalog_prices_model", catalog_prices.c.model_id, catalog_prices.c.valid_from)

catalog_changes = Table(
    "catalog_changes",
    metadata,
    Column("change_id", RowId, primary_key=True),
    Column("sync_id", RowId, ForeignKey("catalog_syncs.sync_id"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("kind", EnumText(ChangeKind), nullable=False),
    Column("model_id", CleanText, nullable=False),
    Column("before", CleanText),
    Column("after", CleanText),
)
Index("ix_catalog_changes_sync_id", catalog_changes.c.sync_id)
Index("ix_catalog_changes_at", catalog_changes.c.at)

catalog_research = Table(
    "catalog_research",
    metadata,
    Column("research_id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("problem", CleanText),
    Column("data", JsonText, nullable=False),
)
Index("ix_catalog_research_at", catalog_research.c.at)

catalog_alerts = Table(
    "catalog_alerts",
    metadata,
    Column("alert_id", RowId, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("model_id", CleanText, nullable=False),
    Column("text", CleanText, nullable=False),
    Column("told_at", UtcTime),
    Column("error", CleanText),
)
Index("ix_catalog_alerts_told_at", catalog_alerts.c.told_at)
