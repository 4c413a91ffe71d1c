"""From a snapshot of facts to a list of actions. Pure: no clock, no I/O, no surprises.

The plan never exceeds free slots, never starts a task that already runs, and parks what cannot run
with a cause and a time to look again. The shell (`coordinator.apply`) does what the plan says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from adw_modules.routing import NoRoute, RoutingDecision
from adw_modules.tasks.intake import REFUSED_PREFIX, is_refused
from adw_modules.tasks.lifecycle import Event
from adw_modules.tasks.model import Snapshot, Task, TaskState

NO_ROUTE_RECHECK = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Start a run of `task` on the decided target."""

    task: Task
    decision: RoutingDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """Take `task` out of the queue until `wake_at`; None means until a human acts."""

    task: Task
    cause: str
    wake_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Put a waiting `task` back into the queue: its time has come."""

    task: Task
    event: Event


Action = Dispatch | Park | Requeue

Route = Callable[[Mapping[str, Any], Callable[[str, str], str | None]], RoutingDecision | NoRoute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a plan. `per_provider` holds only providers with a limit of their own."""

    max_concurrent: int
    max_runs_per_issue: int
    max_tokens_per_issue: int
    per_provider: Mapping[str, int]
    own_label_prefix: str = ""  # labels we write ourselves; rules never see them


def plan(snapshot: Snapshot, *, limits: Limits, route: Route) -> list[Action]:
    """The actions that follow from `snapshot`, in the order to apply them."""
    actions: list[Action] = [Requeue(task=task, event=_wake_event(task)) for task in snapshot.due]
    if snapshot.paused:
        return actions
    busy = {task.task_id for task, _ in snapshot.running}
    load = Counter(run.provider for _, run in snapshot.running)
    free = limits.max_concurrent - len(snapshot.running)
    for task in snapshot.ready:
        if free <= 0:
            break
        if task.task_id in busy:
            continue
        action = _place(task, load, limits=limits, route=route, now=snapshot.now)
        if isinstance(action, Dispatch):
            free -= 1
            load[action.decision.provider] += 1
        if action is not None:
            actions.append(action)
    return actions


def _place(
    task: Task, load: Counter[str], *, limits: Limits, route: Route, now: datetime
) -> Dispatch | Park | None:
    """Dispatch, park, or None: leave it in the queue because only a busy provider keeps it waiting."""
    if is_refused(task):  # whatever put it into the queue: there is no approved text to work on
        return Park(
            task=task, cause=f"{REFUSED_PREFIX}nobody with write access applied the label", wake_at=None
        )
    if task.runs >= limits.max_runs_per_issue:
        cause = f"has used all its {limits.max_runs_per_issue} runs (coordinator.max_runs_per_issue)"
        return Park(task=task, cause=cause, wake_at=None)
    if task.tokens >= limits.max_tokens_per_issue:
        return Park(task=task, cause=tokens_used_up(task.tokens, limits.max_tokens_per_issue), wake_at=None)
    waits_for_slot = False

    def slot_free(provider: str, _model: str) -> str | None:
        nonlocal waits_for_slot
        limit = limits.per_provider.get(provider)
        if limit is None or load[provider] < limit:
            return None
        waits_for_slot = True
        return f"all {limit} slots of {provider} are busy"

    decision = route(attributes(task, limits.own_label_prefix), slot_free)
    if isinstance(decision, RoutingDecision):
        return Dispatch(task=task, decision=decision)
    if waits_for_slot:
        return None
    return Park(
        task=task, cause=f"no provider can take it: {decision.reason}", wake_at=now + NO_ROUTE_RECHECK
    )


def tokens_used_up(tokens: int, limit: int) -> str:
    """The sentence for an issue that has used all the tokens it may use in its life."""
    return f"has used {tokens:,} of its {limit:,} tokens (coordinator.max_tokens_per_issue)"


def attributes(task: Task, own_label_prefix: str = "") -> dict[str, Any]:
    """What routing rules may ask about a task. The first three are what the log line shows."""
    return {
        "priority": task.priority.word,
        "labels": list(task.labels_of_others(own_label_prefix)),
        "retry_count": task.retry_count,
        "repo": task.repo,
        "author": task.author,
        "failure_class": task.last_failure_class.value if task.last_failure_class else None,
        "task": {"id": task.name, "number": task.issue_number},
    }


def _wake_event(task: Task) -> Event:
    return Event.RETRY_DUE if task.state is TaskState.RETRY_WAIT else Event.UNBLOCKED
