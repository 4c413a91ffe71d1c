"""Plain values for the store's tests, and the few steps every history is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from adw_modules.tasks.model import (
    Cost,
    IssueSnapshot,
    ModelUsage,
    Outcome,
    Priority,
    Refused,
    Run,
    RunOutcome,
    Task,
    TaskRequest,
    TaskState,
    Trigger,
    Usage,
    UsageSource,
)
from coordinator.store import Settlement, Store

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
REPO_ID = 7_000_000_001  # larger than 32 bits, as GitHub's are becoming


@dataclass(frozen=True)
class Because:
    """A routing decision as far as the store looks at one."""

    provider: str = "claude-cli"
    model: str = "claude-sonnet-4-5"
    rule: str | None = "bugs"
    reason: str = "labels contain 'bug'"
    trace: Any = ({"rule": "bugs", "matched": True},)


def an_issue(number: int = 12, **changes: Any) -> IssueSnapshot:
    values = {
        "repo": "acme/widgets",
        "repo_id": REPO_ID,
        "number": number,
        "title": "The lamp flickers",
        "body": "Please mend it.",
        "labels": ("rpi-auto", "bug"),
        "author": "ada",
        "author_id": 1,
        "state": "open",
        "url": f"https://github.com/acme/widgets/issues/{number}",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return IssueSnapshot(**(values | changes))


def a_trigger(event_id: int = 100, actor: str = "grace") -> Trigger:
    return Trigger(event_id=event_id, actor=actor, actor_id=2, labelled_at=NOW)


def a_request(number: int = 12, *, event_id: int = 100, priority: Priority = Priority.NORMAL, **changes: Any):
    return TaskRequest(issue=an_issue(number, **changes), priority=priority, trigger=a_trigger(event_id))


def a_refusal(
    number: int = 12, *, reason: str = "mallory may not write", event_id: int = 100, **changes: Any
):
    return Refused(issue=an_issue(number, **changes), reason=reason, trigger=a_trigger(event_id, "mallory"))


def some_usage(tokens: int = 10, model: str = "claude-sonnet-4-5") -> Usage:
    counts = ModelUsage(
        input=tokens, cache_read=2, cache_write_5m=3, cache_write_1h=4, output=tokens * 2, reasoning=1
    )
    return Usage(source=UsageSource.REPORTED, by_model={model: counts}, reported_cost_usd=Decimal("0.0123"))


def a_settlement(state: TaskState = TaskState.SUCCEEDED, *, attempts: int = 1, **changes: Any) -> Settlement:
    values = {"cause": None, "wake_at": None, "outbox": ("report",)}
    return Settlement(state=state, attempts=attempts, **(values | changes))


def queue(store: Store, number: int = 12, *, now: datetime = NOW, **changes: Any) -> Task:
    return store.upsert_task(a_request(number, **changes), name=f"gh-{number}", now=now).task


def start(store: Store, task_id: int, *, decision: Because | None = None, now: datetime = NOW):
    """Claim a task; None when it is not queued."""
    return store.claim(
        task_id,
        decision=decision or Because(),
        config_version="abc123",
        run_dir_of=lambda task, token: f"/state/runs/{task.name}.{token}",
        now=now,
    )


def end(store: Store, run: Run, settlement: Settlement | None = None, **changes: Any) -> bool:
    """Finish a run, well unless told otherwise."""
    values = {
        "outcome": RunOutcome(outcome=Outcome.SUCCEEDED, detail="pushed one commit", exit_code=0),
        "usage": some_usage(),
        "cost": Cost(usd=Decimal("0.10"), priced_by="config"),
        "now": LATER,
    }
    return store.finish(run, settlement=settlement or a_settlement(), **(values | changes))


def drain(store: Store) -> None:
    """Pretend that all that is due was written to GitHub."""
    for item in store.due_outbox(LATER, 1000):
        store.outbox_done(item.item_id, item.version)
