"""`coordinator why`: one sentence about why a task is not running, and when it is looked at again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from adw_modules.tasks.model import Run, Task


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(issue: IssueArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Say in one sentence why a task is (not) running, and when it will be looked at again."""
    from coordinator.cli.common import daemon_status, find_task, print_json, reading, settings_source
    from coordinator.clock import utc_now
    from coordinator.store import PAUSED

    source = settings_source(config)
    daemon = daemon_status(source.current)
    with reading(source.current) as store:
        task = find_task(store, issue)
        runs = store.runs_of(task.task_id)
        paused = store.get_state(PAUSED) is not None
        limit = source.current.settings.coordinator.max_concurrent_workers
        running = len(store.open_runs())
        decision = store.decision_of(runs[-1].run_id) if runs else None
    sentence = explain(
        task, runs[-1] if runs else None, daemon=daemon, paused=paused, slots=(running, limit), now=utc_now()
    )
    if as_json:
        trace = [] if decision is None else decision.trace
        print_json(
            {
                "task": task.name,
                "state": task.state.value,
                "why": sentence,
                "wake_at": task.wake_at,
                "rules": trace,
            }
        )
    else:
        typer.echo(sentence)


def explain(
    task: Task,
    run: Run | None,
    *,
    daemon: dict[str, Any] | None,
    paused: bool,
    slots: tuple[int, int],
    now: datetime,
) -> str:
    """The sentence. `slots` is (in use, limit); `daemon` is None when none runs."""
    from adw_modules.tasks.intake import is_refused
    from adw_modules.tasks.model import TaskState
    from coordinator.cli.common import when

    poll = _next_poll(task, daemon, now)
    match task.state:
        case TaskState.RUNNING:
            target = (
                f"{run.provider}/{run.model} (rule {run.rule or 'default'}, attempt {run.attempt})"
                if run
                else "?"
            )
            return f"{task.name} is running on {target}."
        case TaskState.SUCCEEDED:
            where = f": {task.pr_url}" if task.pr_url else "; its pull request is being opened"
            return f"{task.name} is done{where}. It runs again when the label is removed and applied again."
        case TaskState.FAILED | TaskState.CANCELLED:
            cause = f" because {task.cause}" if task.cause else ""
            return (
                f"{task.name} {'failed' if task.state is TaskState.FAILED else 'was cancelled'}{cause}. It runs again "
                f"after `coordinator retry {task.issue_number}` or when the label is removed and applied again."
            )
        case TaskState.RETRY_WAIT:
            return f"{task.name} waits for its next attempt {when(task.wake_at, now)}: {task.cause}."
        case TaskState.BLOCKED if is_refused(task):
            return f"{task.name} was {task.cause}. {poll}"
        case TaskState.BLOCKED:
            return f"{task.name} is blocked: {task.cause}. Looked at again {when(task.wake_at, now)}."
        case TaskState.QUEUED:
            return f"{task.name} is queued: {_why_queued(daemon, paused, slots)}."


def _why_queued(daemon: dict[str, Any] | None, paused: bool, slots: tuple[int, int]) -> str:
    if daemon is None:
        return "no daemon runs; it starts with `coordinator run`"
    if paused:
        return "Coordinator is paused; it starts after `coordinator resume`"
    used, limit = slots
    if used >= limit:
        return f"all {limit} worker slots are busy; it starts when one is free"
    return "it is about to start, or its provider's slots are busy"


def _next_poll(task: Task, daemon: dict[str, Any] | None, now: datetime) -> str:
    from coordinator.cli.common import when

    repository = (daemon or {}).get("repositories", {}).get(task.repo)
    if not repository or not repository["next_poll_at"]:
        return "It is looked at again when the daemon polls."
    return f"It is looked at again {when(datetime.fromisoformat(repository['next_poll_at']), now)} if the label changes."
