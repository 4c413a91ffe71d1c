"""Values that go into and come out of the store beyond the shared nouns. Frozen, no behaviour, no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from adw_modules.catalogue.changes import Change
from adw_modules.security.admission import AuditRecord
from adw_modules.tasks.model import FailedTarget, ModelUsage, Task, TaskState

DAEMON = "daemon"  # key in the daemon state: "running", and "ended" once it has ended in order
PAUSED = "paused"  # key in the daemon state; any value means: start no new runs


class TaskChange(StrEnum):
    """What `Store.upsert_task` did."""

    CREATED = "created"
    REFRESHED = "refreshed"  # known task; something people or rules can see has changed
    REOPENED = "reopened"  # finished or blocked task, queued again by a newer trigger
    UNCHANGED = "unchanged"  # nothing was written


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """A task as it is now, and what the call changed."""

    task: Task
    change: TaskChange
    is_news: bool = True  # the decision about it was not the last one once more


class Decision(Protocol):
    """What `claim` needs of a routing decision. `trace` is any value JSON can hold (dataclasses included)."""

    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def rule(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def trace(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """Why a run went where it went, as stored with it. `trace` is plain JSON data.

    That is a table of `rules`, `targets` and `attrs`; in the first versions it was the list of rules alone.
    """

    run_id: int
    provider: str
    model: str
    rule: str | None
    reason: str
    trace: Any
    config_version: str
    decided_at: datetime

    @property
    def rules(self) -> list[dict[str, Any]]:
        """Each rule that was tried: `rule`, `matched`, `why`."""
        return list(self.trace["rules"] if isinstance(self.trace, dict) else self.trace or ())

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Each target that was considered: `target`, `eligible`, `why`."""
        return list(self.trace["targets"]) if isinstance(self.trace, dict) else []

    @property
    def selected(self) -> list[dict[str, Any]]:
        """Each selection that was worked out: `select`, `targets`, `why`."""
        return list(self.trace.get("selected", ())) if isinstance(self.trace, dict) else []

    @property
    def workflow(self) -> dict[str, Any] | None:
        """The one that a label asked for: `name`, `stage`, `prompt`, `left_out` and more."""
        found: dict[str, Any] | None = self.trace.get("workflow") if isinstance(self.trace, dict) else None
        return found

    @property
    def attrs(self) -> dict[str, Any] | None:
        """All that the decision saw of the task; None where it was not kept."""
        return dict(self.trace["attrs"]) if isinstance(self.trace, dict) else None


class OutboxKind(StrEnum):
    """What is to be written to GitHub. The order of the spellings is the order of sending."""

    PULL_REQUEST = "pull_request"
    REPORT = "report"  # sticky comment and status labels


class OutboxState(StrEnum):
    """Where an outbox row is."""

    PENDING = "pending"
    DONE = "done"
    DEAD = "dead"  # GitHub refuses it for good; a newer version makes it pending again


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """One thing to write to GitHub. `version` rises each time newer news arrives for the same row."""

    item_id: int
    task_id: int
    kind: OutboxKind
    version: int
    tries: int
    not_before: datetime
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Where a task goes when its run has ended, as planning decided it."""

    state: TaskState
    cause: str | None
    wake_at: datetime | None
    attempts: int
    lost: int = 0
    crashes: int = 0
    failed_on: tuple[FailedTarget, ...] = ()
    outbox: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRequest:
    """What an operator asked the running daemon to do (`retry`, `cancel`, `pause` …), not answered yet."""

    request_id: int
    verb: str
    task_id: int | None
    argument: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One line of the audit trail."""

    event_id: int
    at: datetime
    task_id: int | None
    run_id: int | None
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedRecord:
    """One decision about who may start work, and when it was made."""

    at: datetime
    record: AuditRecord


class SyncResult(StrEnum):
    """What came of asking for the catalogue."""

    SYNCED = "synced"
    UNCHANGED = "unchanged"  # OpenRouter said that it is the one we have
    FAILED = "failed"  # the last one stays in force


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRecord:
    """One attempt to read the catalogue. `models` and `left_out` count rows; None when there was no list."""

    sync_id: int
    at: datetime
    result: SyncResult
    etag: str | None
    models: int | None
    left_out: int | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord:
    """A change of the catalogue with the sync that saw it."""

    sync_id: int
    at: datetime
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class ResearchRecord:
    """One answer of the weekly research. `data` is plain JSON data; `problem` says why there is none."""

    at: datetime
    source: str
    problem: str | None
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRecord:
    """A model that appeared, not told on GitHub yet."""

    alert_id: int
    at: datetime
    model_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """Where a run that has ended left its files. `is_newest`: no later one of its task was begun."""

    task: str
    run_dir: str
    finished_at: datetime
    is_newest: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the runs that ended in a period used. `cost_usd` is the sum of all that is known."""

    runs: int
    tokens: ModelUsage
    cost_usd: Decimal
    runs_of_unknown_cost: int  # where at least a part is
    runs_on_subscription: int = 0
