"""From a snapshot of facts to a list of actions. Pure: no clock, no I/O, no surprises.

The plan never exceeds free slots, never starts a task that already runs, and parks what cannot run
with a cause and a time to look again. The shell (`coordinator.apply`) does what the plan says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from adw_modules.money import budget
from adw_modules.routing import Checker, NoRoute, Refusal, RoutingDecision, Target, all_of
from adw_modules.routing.circuits import Circuits, Live, refusal
from adw_modules.routing.failover import ContextWindow, not_failed_here
from adw_modules.routing.overrides import ATTRIBUTE, Prefixes, wanted
from adw_modules.routing.rates import Rates, Window
from adw_modules.tasks import quotas
from adw_modules.tasks.intake import REFUSED_PREFIX, is_refused
from adw_modules.tasks.lifecycle import Event
from adw_modules.tasks.model import Outcome, Priority, Snapshot, Task, TaskState

CLOSED_RECHECK = timedelta(hours=1)  # a poll or a changed configuration that opens it looks sooner
NO_ROUTE_RECHECK = timedelta(seconds=60)
CHARACTERS_PER_TOKEN = 4  # of English text, about
JUST_BEGUN = "the label was put on again just after a run of it had begun (limits.retrigger_minutes)"
OWN_WORDS = 1_000  # tokens of a prompt that are not the issue's


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

Route = Callable[[Mapping[str, Any], Checker], RoutingDecision | NoRoute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a plan. `per_provider` holds only providers with a limit of their own."""

    max_concurrent: int
    max_runs_per_issue: int
    max_tokens_per_issue: int
    per_provider: Mapping[str, int]
    own_label_prefix: str = ""  # labels we write ourselves; rules never see them
    override_labels: Prefixes = field(default_factory=dict)  # what labels begin with that ask for a target
    rates: Mapping[str, Rates] = field(default_factory=dict)  # of providers that have any
    working_context: int = 0  # tokens of context that a task takes beside its prompt, if anybody has said so
    caps: quotas.Caps = field(default_factory=quotas.Caps)
    reserved_high_priority: int = 0  # of `max_concurrent`, for tasks of critical and high priority alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What is known of the targets at this moment, beyond the configuration.

    `checks` are made for each task and asked last; whoever owns a further reason not to run adds one.
    """

    circuits: Circuits = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)  # the last minute of each provider
    context_window: ContextWindow = lambda _target: None
    checks: Sequence[Callable[[Task], Checker]] = ()
    # Why nothing may be started for a task in its repository now; None when something may.
    closed: Callable[[Task], str | None] = lambda _task: None
    # The smallest share left of a task's budgets, 0 to 1, for its rules; None: there are no budgets.
    budget_left: Callable[[Task], float | None] | None = None
    # The tokens that a run is expected to take, by the attributes of its task; None: no rule asks for it.
    estimated_tokens: Callable[[Mapping[str, Any]], int] | None = None
    # The runs of today; None: nothing limits them.
    today: quotas.Day | None = None


def plan(snapshot: Snapshot, *, limits: Limits, route: Route, supply: Supply | None = None) -> list[Action]:
    """The actions that follow from `snapshot`, in the order to apply them."""
    supply = supply or Supply()
    today = supply.today.copy() if supply.today else None
    actions: list[Action] = [Requeue(task=task, event=_wake_event(task)) for task in snapshot.due]
    if snapshot.paused:
        return actions
    busy = {task.task_id for task, _ in snapshot.running}
    live = [Live(run.provider, run.model, run.claimed_at) for _, run in snapshot.running]
    slots = _Slots.of(snapshot, limits)
    for task in snapshot.ready:
        if not slots.has_one_for(task):
            break  # nor for any of those that follow: they are not more urgent
        if task.task_id in busy:
            continue
        action = _too_many(task, today, limits, snapshot.now) or _place(
            task, live, limits=limits, route=route, supply=supply, now=snapshot.now
        )
        if isinstance(action, Dispatch):
            slots.take(task)
            if today is not None:
                today.take(task)
            live.append(Live(action.decision.provider, action.decision.model, snapshot.now, is_planned=True))
        if action is not None:
            actions.append(action)
    return actions


@dataclass(slots=True)
class _Slots:
    """The free worker slots, some of which are kept for urgent tasks."""

    free: int
    free_for_others: int

    @classmethod
    def of(cls, snapshot: Snapshot, limits: Limits) -> _Slots:
        others = sum(not is_urgent(task) for task, _ in snapshot.running)
        return cls(
            free=limits.max_concurrent - len(snapshot.running),
            free_for_others=limits.max_concurrent - limits.reserved_high_priority - others,
        )

    def has_one_for(self, task: Task) -> bool:
        return self.free > 0 and (is_urgent(task) or self.free_for_others > 0)

    def take(self, task: Task) -> None:
        self.free -= 1
        self.free_for_others -= not is_urgent(task)


def is_urgent(task: Task) -> bool:
    """Whether a task may use the workers that are kept for critical and high priority."""
    return task.priority <= Priority.HIGH


def is_full(snapshot: Snapshot, limits: Limits, actions: Sequence[Action]) -> bool:
    """Whether what `actions` start leaves no slot for anything that is not more urgent than what was seen."""
    slots = _Slots.of(snapshot, limits)
    for action in actions:
        if isinstance(action, Dispatch):
            slots.take(action.task)
    return not (snapshot.ready and slots.has_one_for(snapshot.ready[-1]))


def _too_many(task: Task, today: quotas.Day | None, limits: Limits, now: datetime) -> Park | None:
    """Park what has begun too often today, or just now. Nothing of it counts as an attempt."""
    if is_refused(task) or task.held is not None:  # which weighs more, and does not end by itself
        return None
    at = quotas.too_soon(task, limits.caps, now)
    if at is not None:
        return Park(task=task, cause=JUST_BEGUN, wake_at=at)
    full = today.refusal(task, limits.caps) if today is not None else None
    return Park(task=task, cause=full, wake_at=today.ends_at) if today is not None and full else None


def _place(
    task: Task, live: Sequence[Live], *, limits: Limits, route: Route, supply: Supply, now: datetime
) -> Dispatch | Park | None:
    """Dispatch, park, or None: leave it in the queue because only a busy provider keeps it waiting."""
    if is_refused(task):  # whatever put it into the queue: there is no approved text to work on
        return Park(
            task=task, cause=f"{REFUSED_PREFIX}nobody with write access applied the label", wake_at=None
        )
    if task.held is not None:
        return Park(task=task, cause=task.held, wake_at=None)
    closed = supply.closed(task)
    if closed is not None:
        return Park(task=task, cause=closed, wake_at=now + CLOSED_RECHECK)
    if task.runs >= limits.max_runs_per_issue:
        cause = f"has used all its {limits.max_runs_per_issue} runs (coordinator.max_runs_per_issue)"
        return Park(task=task, cause=cause, wake_at=None)
    if task.tokens >= limits.max_tokens_per_issue:
        return Park(task=task, cause=tokens_used_up(task.tokens, limits.max_tokens_per_issue), wake_at=None)
    eligible = eligibility(task, live, limits=limits, supply=supply, now=now)
    asked = attributes(
        task,
        limits.own_label_prefix,
        override_labels=limits.override_labels,
        working_context=limits.working_context,
        now=now,
    )
    if supply.budget_left is not None:
        asked["budget_left"] = supply.budget_left(task)
    if supply.estimated_tokens is not None:
        asked["estimated_tokens"] = supply.estimated_tokens(asked)
    decision = route(asked, eligible)
    if isinstance(decision, RoutingDecision):
        return Dispatch(task=task, decision=decision)
    if decision.is_busy:
        return None
    cause = "; ".join(decision.over_budget) or f"no provider can take it: {decision.reason}"
    return Park(task=task, cause=cause, wake_at=_next_look(decision, now))


def _next_look(no_route: NoRoute, now: datetime) -> datetime:
    """When the first target is known to be free again, or soon where nobody would tell us."""
    soon = now + NO_ROUTE_RECHECK
    if no_route.until is None:
        return soon
    return min(no_route.until, soon) if no_route.may_end else no_route.until


def eligibility(
    task: Task | None, live: Sequence[Live], *, limits: Limits, supply: Supply, now: datetime
) -> Checker:
    """Whether a target may be used now, for a task of ours or (None) for one that is only described.

    What ends by itself at a known time is asked before slots, so that a task is parked until then instead
    of waiting in front of others for a slot that would not help it.
    """
    load = Counter(run.provider for run in live)
    failed_on = task.failed_on if task else ()
    return all_of(
        not_failed_here(failed_on, supply.context_window, now),
        lambda target, _attrs: refusal(supply.circuits, target, live=live, now=now),
        _within_rates(limits.rates, supply.windows, [run for run in live if run.is_planned], now),
        slot_free(load, limits),
        *(make(task) for make in supply.checks if task is not None),
    )


def _within_rates(
    rates: Mapping[str, Rates], windows: Mapping[str, Window], planned: Sequence[Live], now: datetime
) -> Checker:
    starting = Counter(run.provider for run in planned)
    of_model = Counter((run.provider, run.model) for run in planned)

    def check(target: Target, _attrs: Mapping[str, Any]) -> Refusal | None:
        name, limit, window = target.provider, rates.get(target.provider), windows.get(target.provider)
        if window is not None and window.told:
            count = of_model[name, target.model]
            if (found := window.used_up(name, target.model, now, starting=count)) is not None:
                return found
        if limit is None:
            return None
        return (window or Window()).refusal(name, limit, now, starting=starting[name])

    return check


def slot_free(load: Mapping[str, int], limits: Limits) -> Checker:
    """Refuses a provider that takes no further run now. `load`: live runs by provider."""

    def check(target: Target, _attrs: Mapping[str, Any]) -> Refusal | None:
        limit = limits.per_provider.get(target.provider)
        if limit is None or load.get(target.provider, 0) < limit:
            return None
        return Refusal(f"all {limit} slots of {target.provider} are busy", is_busy=True)

    return check


def within_budgets(asked: Callable[[Target], budget.Refusal | None], now: datetime) -> Checker:
    """Refuses what budgets have no room for, until they begin again. `asked`: what they say of a target."""

    def check(target: Target, _attrs: Mapping[str, Any]) -> Refusal | None:
        found = asked(target)
        if found is None:
            return None
        until = found.until or now + budget.RECHECK_WITHOUT_PERIOD
        return Refusal(found.reason, until, is_busy=found.waits, is_over_budget=True)

    return check


def tokens_used_up(tokens: int, limit: int) -> str:
    """The sentence for an issue that has used all the tokens it may use in its life."""
    return f"has used {tokens:,} of its {limit:,} tokens (coordinator.max_tokens_per_issue)"


def attributes(
    task: Task,
    own_label_prefix: str = "",
    *,
    override_labels: Prefixes | None = None,
    working_context: int = 0,
    now: datetime | None = None,
) -> dict[str, Any]:
    """What routing rules may ask about a task. The first three are what the log line shows.

    Title and text are those that the trigger admitted: an edit since then does not change the way.
    The hour, the day of the week and how providers are come from the router; without `now` there is no age.
    """
    labels = task.labels_of_others(own_label_prefix)
    override = wanted(task.overrides, labels, override_labels or {})
    return {
        "priority": task.priority.word,
        "labels": list(labels),
        "retry_count": task.retry_count,
        "repo": task.repo,
        "author": task.author,
        "title": task.snapshot_title,
        "title_length": len(task.snapshot_title),
        "body_length": len(task.snapshot_body),
        "context_needed": context_of(task) + working_context,
        "created_age_hours": None if now is None else _hours(now - task.created_at),
        "failure_class": _why_it_failed(task),
        "last_provider": task.last_provider,
        "last_model": task.last_model,
        "task": _task_fields(task),
        **({ATTRIBUTE: override} if override else {}),
    }


def context_of(task: Task) -> int:
    """Tokens that the first prompt of a task takes, about: a token is four characters."""
    characters = len(task.snapshot_title) + len(task.snapshot_body)
    characters += sum(len(comment.body) for comment in task.snapshot_comments)
    return OWN_WORDS + -(-characters // CHARACTERS_PER_TOKEN)


def _hours(age: timedelta) -> float:
    """Two decimals, so that what is shown is what was compared; a clock that was set back makes no age."""
    return max(0.0, round(age / timedelta(hours=1), 2))


def _why_it_failed(task: Task) -> str | None:
    if task.last_failure_class is not None:
        return task.last_failure_class.value
    is_bad = task.last_outcome not in {None, Outcome.SUCCEEDED, Outcome.FAILED}
    return task.last_outcome.value if task.last_outcome and is_bad else None


def _task_fields(task: Task) -> dict[str, Any]:
    return {
        "id": task.name,
        "name": task.name,
        "repo": task.repo,
        "repo_id": task.repo_id,
        "number": task.issue_number,
        "title": task.snapshot_title,
        "author": task.author,
        "triggered_by": task.triggered_by,
        "branch": task.branch,
        "attempts": task.attempts,
        "runs": task.runs,
        "lost": task.lost,
        "tokens": task.tokens,
        "last_outcome": task.last_outcome.value if task.last_outcome else None,
        "pr_number": task.pr_number,
    }


def _wake_event(task: Task) -> Event:
    return Event.RETRY_DUE if task.state is TaskState.RETRY_WAIT else Event.UNBLOCKED
