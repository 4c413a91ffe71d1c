"""`coordinator status`: what the daemon is doing, in one screen."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings
    from coordinator.store import Store


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(help="How many tasks to list.", min=1)] = 20,
) -> None:
    """Show the daemon, its tasks and what they have used."""
    from coordinator.cli.common import print_json, settings_source
    from coordinator.clock import utc_now

    source = settings_source(config)
    facts = collect(source.current, utc_now(), limit)
    if as_json:
        print_json(facts)
    else:
        _show(facts, utc_now())


def collect(loaded: LoadedSettings, now: datetime, limit: int) -> dict[str, Any]:
    """Everything the screen shows, as plain data."""
    from coordinator.cli.common import daemon_status, reading
    from coordinator.store import PAUSED

    daemon = daemon_status(loaded)
    with reading(loaded) as store:
        totals = store.totals(now - timedelta(days=1))
        return {
            "daemon": {"running": daemon is not None, **(daemon or {})},
            "paused": store.get_state(PAUSED) is not None,
            "counts": {state.value: count for state, count in store.counts_by_state().items()},
            "tasks": [_task_row(store, task) for task in store.tasks(None, limit)],
            "last_24_hours": {
                "runs": totals.runs,
                "input_tokens": totals.tokens.total - totals.tokens.output,
                "output_tokens": totals.tokens.output,
                "cost_usd": totals.cost_usd,
                "runs_of_unknown_cost": totals.runs_of_unknown_cost,
            },
        }


def _task_row(store: Store, task: Any) -> dict[str, Any]:
    runs = store.runs_of(task.task_id)
    last = runs[-1] if runs else None
    return {
        "task": task.name,
        "repo": task.repo,
        "title": task.title,
        "state": task.state.value,
        "priority": task.priority.word,
        "attempts": task.attempts,
        "provider": last.provider if last else None,
        "model": last.model if last else None,
        "rule": last.rule if last else None,
        "outcome": last.outcome.value if last and last.outcome else None,
        "cause": task.cause,
        "wake_at": task.wake_at,
        "pull_request": task.pr_url,
        "started_at": last.started_at if last else None,
    }


def _show(facts: dict[str, Any], now: datetime) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    daemon = facts["daemon"]
    if daemon["running"]:
        console.print(
            f"[green]●[/] running (pid {daemon.get('pid')}), configuration {daemon.get('config_version')}"
        )
    else:
        console.print("[yellow]○[/] no daemon runs; `coordinator run` starts one")
    if daemon.get("config_error"):
        console.print(f"[red]The configuration file was not taken:[/] {escape(daemon['config_error'])}")
    if facts["paused"]:
        console.print("[yellow]Paused:[/] no new runs are started until `coordinator resume`")
    for name, repository in daemon.get("repositories", {}).items():
        console.print(_repository_line(name, repository, now))
    console.print(_task_table(facts["tasks"], now))
    counts = ", ".join(f"{count} {state}" for state, count in facts["counts"].items()) or "no tasks yet"
    day = facts["last_24_hours"]
    unknown = f" and {day['runs_of_unknown_cost']} of unknown cost" if day["runs_of_unknown_cost"] else ""
    console.print(
        f"{counts}. Last 24 hours: {day['runs']} runs, {day['input_tokens']:,} tokens in, "
        f"{day['output_tokens']:,} out, ${day['cost_usd']:.4f}{unknown}."
    )


def _repository_line(name: str, repository: dict[str, Any], now: datetime) -> str:
    from rich.markup import escape

    from coordinator.cli.common import when

    next_poll = repository["next_poll_at"]
    line = (
        f"  {escape(name)}: next poll {when(datetime.fromisoformat(next_poll), now) if next_poll else 'now'}"
    )
    return line + (f" [red]{escape(repository['last_error'])}[/]" if repository["last_error"] else "")


def _task_table(tasks: list[dict[str, Any]], now: datetime) -> Any:
    from rich.markup import escape
    from rich.table import Table

    colours = {
        "running": "cyan",
        "succeeded": "green",
        "failed": "red",
        "blocked": "yellow",
        "retry_wait": "yellow",
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("task", "state", "priority", "provider/model", "rule", "attempts", "note"):
        table.add_column(column, overflow="fold")
    for row in tasks:
        colour = colours.get(row["state"], "white")
        target = f"{row['provider']}/{row['model']}" if row["provider"] else ""
        note = row["pull_request"] or row["cause"] or row["title"]
        if row["state"] == "running" and row["started_at"]:
            note = f"for {int((now - row['started_at']).total_seconds())} s: {row['title']}"
        cells = (row["priority"], target, row["rule"] or "", str(row["attempts"]), note)
        table.add_row(escape(row["task"]), f"[{colour}]{row['state']}[/]", *(escape(cell) for cell in cells))
    return table
