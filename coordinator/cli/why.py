"""`coordinator why`: one sentence about why a task is not running, and when it is looked at again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from adw_modules.tasks.model import Run, Task
    from coordinator.store import DecidedRecord


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(issue: IssueArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Say in one sentence why a task is (not) running, and when it will be looked at again."""
    from adw_modules.security.sanitise import issue_text
    from adw_modules.tasks.planning import is_urgent
    from coordinator.cli.common import daemon_status, find_task, print_json, reading, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.logs import printable
    from coordinator.store import PAUSED

    loaded = settings_in_force(config).loaded
    daemon = daemon_status(loaded)
    with reading(loaded) as store:
        try:
            task = find_task(store, issue)
        except CoordinatorError as error:
            raise CoordinatorError(f"{error}{_closed(daemon)}") from error
        runs = store.runs_of(task.task_id)
        live, coordinator = store.open_runs(), loaded.settings.coordinator
        circumstances = Circumstances(
            daemon=daemon,
            is_paused=store.get_state(PAUSED) is not None,
            busy=len(live),
            busy_with_others=sum(not is_urgent(other) for other, _ in live),
            slots=coordinator.max_concurrent_workers,
            kept=0 if is_urgent(task) else coordinator.reserved_high_priority_workers,
            now=utc_now(),
        )
        decision = store.decision_of(runs[-1].run_id) if runs else None
        decided = store.decisions_of(task.task_id, limit=MOST_DECISIONS)
    sentence = printable(explain(task, runs[-1] if runs else None, circumstances))
    hidden = issue_text(task.snapshot_title, task.snapshot_body).hidden
    if as_json:
        print_json(
            {
                "task": task.name,
                "state": task.state.value,
                "why": sentence,
                "cause": task.cause,
                "wake_at": task.wake_at,
                "rule": decision.rule if decision else None,
                "rules": decision.rules if decision else [],
                "hidden": hidden,
                "decisions": [asdict(each) for each in decided],
            }
        )
    else:
        typer.echo(sentence + (f" Taken out of the text that the agent sees: {hidden}." if hidden else ""))
        for each in decided:
            typer.echo(printable(_decided(each, utc_now())))


MOST_DECISIONS = 5  # about who may start it, the newest ones


def _closed(daemon: dict[str, Any] | None) -> str:
    """What else may be the reason why an issue was never taken up."""
    found = [each["closed"] for each in (daemon or {}).get("repositories", {}).values() if each.get("closed")]
    return "".join(f" {each}." for each in found)


def _decided(found: DecidedRecord, now: datetime) -> str:
    """`  14:03:10 refused: … (ada, id 12, write; event 7; text 1f2e…; configuration ab12)`"""
    from coordinator.cli.common import time_of_day

    record, standing = found.record, found.record.standing
    facts = []
    if standing is not None and not standing.actor.is_gone:
        kind = f"{standing.actor.kind}, " if standing.actor.kind != "User" else ""
        facts.append(f"{standing.actor.login}, {kind}id {standing.actor.user_id}, {standing.role}")
    if record.event_id:
        facts.append(f"event {record.event_id}")
    facts += [f"text {record.snapshot[:12]}"] if record.snapshot else []
    facts.append(f"configuration {record.config_version}")
    reason = " ".join(record.reason.split())
    return f"  {time_of_day(found.at, now)} {record.decision}: {reason} ({'; '.join(facts)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else decides whether a task starts. `daemon` is None when none runs.

    `kept`: slots for more urgent tasks; `busy_with_others`: those that tasks have which may not take these.
    """

    daemon: dict[str, Any] | None
    is_paused: bool
    busy: int
    busy_with_others: int
    slots: int
    kept: int
    now: datetime


def explain(task: Task, run: Run | None, around: Circumstances) -> str:
    """The sentence: what holds the task, and when or by what that changes."""
    from adw_modules.tasks.model import TaskState

    match task.state:
        case TaskState.RUNNING:
            return f"{task.name} is running{_where(run, around.now)}."
        case TaskState.SUCCEEDED:
            result = (
                f"its draft pull request is {task.pr_url}"
                if task.pr_url
                else "its pull request is being opened"
            )
            return f"{task.name} is done, {result}; {_again(task)}."
        case TaskState.FAILED:
            return f"{task.name} failed{_because(task)}; {_again(task)}."
        case TaskState.CANCELLED:
            return f"{task.name} was cancelled{_because(task)}; {_again(task)}."
        case TaskState.RETRY_WAIT:
            return f"{task.name} waits for its next attempt{_because(task)}; {_next_look(task, around)}."
        case TaskState.BLOCKED:
            return _why_blocked(task, around)
        case TaskState.QUEUED:
            return f"{task.name} is queued: {_why_queued(around)}."


def _where(run: Run | None, now: datetime) -> str:
    if run is None:
        return ""
    since = f", for {int((now - run.started_at).total_seconds())} s" if run.started_at else ", starting"
    return f" on {run.provider}/{run.model} (rule {run.rule or 'default'}, attempt {run.attempt}{since})"


def _because(task: Task) -> str:
    cause = " ".join((task.cause or "").split()).rstrip(".")
    return f": {cause}" if cause else ""


def _again(task: Task) -> str:
    from adw_modules.tasks.intake import is_refused
    from adw_modules.tasks.report import argument

    if is_refused(task):
        return "it never ran, and only the label from a person with write access starts it"
    retry = f"`coordinator retry {argument(task)}`"
    return f"it runs again after {retry} or when the label is removed and applied again"


def _next_look(task: Task, around: Circumstances) -> str:
    from adw_modules.tasks.report import argument
    from coordinator.cli.common import when

    if task.held is not None:
        return "it is not looked at again before the label is put on anew"
    if task.wake_at is None:
        return f"it is not looked at again before `coordinator retry {argument(task)}` or a new label"
    if around.daemon is None:
        at = when(task.wake_at, around.now)
        return f"it is looked at again {at}, but no daemon runs now: start `coordinator run`"
    paused = ", but Coordinator is paused until `coordinator resume`" if around.is_paused else ""
    return f"it is looked at again {when(task.wake_at, around.now)}{paused}"


def _why_blocked(task: Task, around: Circumstances) -> str:
    from adw_modules.tasks.intake import is_refused

    if not is_refused(task):
        return f"{task.name} is blocked{_because(task)}; {_next_look(task, around)}."
    cause = " ".join((task.cause or "").split()).rstrip(".")
    return f"{task.name} was {cause}; {_next_poll(task, around)}."


def _next_poll(task: Task, around: Circumstances) -> str:
    from coordinator.cli.common import when

    if around.daemon is None:
        return "it is looked at again at the first poll of the next `coordinator run`"
    repository = around.daemon.get("repositories", {}).get(task.repo)
    at = repository["next_poll_at"] if repository else None
    soon = when(datetime.fromisoformat(at), around.now) if at else "now"
    return f"it is looked at again at the next poll, {soon}"


def _why_queued(around: Circumstances) -> str:
    if around.daemon is None:
        return "no daemon runs, it starts with `coordinator run`"
    if around.is_paused:
        return "Coordinator is paused, it starts after `coordinator resume`"
    if around.daemon.get("draining"):
        return "the daemon is being drained, it starts with the next `coordinator run`"
    if around.busy >= around.slots:
        slots = f"all {around.slots} worker slots are" if around.slots > 1 else "the only worker slot is"
        return f"{slots} busy, it starts when one is free and nothing more urgent waits"
    if around.kept and around.busy_with_others >= around.slots - around.kept:
        kept = f"{around.kept} of the {around.slots} worker slots {'is' if around.kept == 1 else 'are'} kept"
        return (
            f"{kept} for critical and high priority (coordinator.reserved_high_priority_workers), "
            "it starts when one of the others is free"
        )
    return "it is about to start, or waits for a free slot of its provider"
