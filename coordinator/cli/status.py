"""`coordinator status`: what the daemon is doing, in one screen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from adw_modules.routing.circuits import Circuit
    from adw_modules.tasks.model import Task
    from coordinator.settings import LoadedSettings
    from coordinator.store import Store

WIDE = 120  # columns from which routing has columns of its own
GAP = 2  # columns between two columns
MOST_BUDGETS = 3  # that are shown; `coordinator budget` shows all
WIDTH_OF_A_FILE = 160  # columns, where the output is not a terminal


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(help="How many tasks to list.", min=1)] = 20,
) -> None:
    """Show the daemon, its tasks and what they have used."""
    from coordinator.cli.common import print_json, settings_in_force
    from coordinator.clock import utc_now

    in_force = settings_in_force(config)
    facts = collect(in_force.loaded, utc_now(), limit)
    if in_force.error and not facts["daemon"].get("config_error"):  # it has not looked yet, or none runs
        facts["daemon"]["config_error"] = in_force.error
    if as_json:
        print_json(facts)
    else:
        _show(facts, utc_now())


# -- facts ----------------------------------------------------------------------------------------------


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
            "providers": [_provider_facts(loaded, circuit, now) for circuit in _unwell(store)],
            "budgets": _budgets(store, loaded, now),
            "counts": {state.value: count for state, count in store.counts_by_state().items()},
            "tasks": [_task_facts(store, task) for task in _shown_tasks(store, limit)],
            "unpublished": [_unpublished(store, item) for item in store.dead_outbox()],
            "last_24_hours": {
                "runs": totals.runs,
                "input_tokens": totals.tokens.total - totals.tokens.output,
                "output_tokens": totals.tokens.output,
                "cost_usd": totals.cost_usd,
                "runs_of_unknown_cost": totals.runs_of_unknown_cost,
                "runs_on_subscription": totals.runs_on_subscription,
            },
        }


def _budgets(store: Store, loaded: LoadedSettings, now: datetime) -> list[dict[str, Any]]:
    """The pots of budgets, the fullest first."""
    from adw_modules.money.budget import shown
    from coordinator.budgeting import budgets_of

    budgets = budgets_of(loaded.settings)
    if budgets is None:
        return []
    standings = budgets.standings(store.budget_book(budgets, now), now=now)
    return [
        {
            "budget": each.pot.budget.name,
            "for": each.pot.name or None,
            "limit": shown(each.unit, each.limit),
            "spent": shown(each.unit, each.spent),
            "reserved": shown(each.unit, each.reserved) if each.reserved else None,
            "share": round(float(each.spent / each.limit), 4),
        }
        for each in sorted(standings, key=lambda each: each.spent / each.limit, reverse=True)
    ]


def _unwell(store: Store) -> list[Circuit]:
    """The circuits that are not as usual, those of whole providers first."""
    found = [each for each in store.circuits().values() if each.paused or each.is_open or each.failures]
    return sorted(found, key=lambda each: each.key)


def _provider_facts(loaded: LoadedSettings, circuit: Circuit, now: datetime) -> dict[str, Any]:
    return {
        "provider": circuit.provider,
        "model": circuit.model or None,
        "configured": circuit.provider in loaded.settings.providers,
        "status": circuit.state(now).value,
        "kind": circuit.kind.value,
        "failures": circuit.failures,
        "until": circuit.until,
        "detail": circuit.detail,
    }


def _shown_tasks(store: Store, limit: int) -> list[Task]:
    """What runs or waits first, in the order of its turn; then what has ended, the newest first."""
    from adw_modules.tasks.model import TaskState

    order = (TaskState.RUNNING, TaskState.QUEUED, TaskState.RETRY_WAIT, TaskState.BLOCKED)
    active = store.tasks(order, limit=10_000)
    active.sort(
        key=lambda task: (
            order.index(task.state),
            task.priority,
            task.wake_at or task.created_at,
            task.task_id,
        )
    )
    ended = store.tasks([state for state in TaskState if state.is_terminal], limit)
    return [*active, *sorted(ended, key=lambda task: task.updated_at, reverse=True)][:limit]


def _task_facts(store: Store, task: Task) -> dict[str, Any]:
    runs = store.runs_of(task.task_id)
    last = runs[-1] if runs else None
    return {
        "task": task.name,
        "repo": task.repo,
        "issue": task.issue_number,
        "url": task.url,
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


def _unpublished(store: Store, item: Any) -> dict[str, Any]:
    task = store.get_task(item.task_id)
    return {"task": task.name if task else None, "what": str(item.kind), "error": item.error}


# -- the screen -----------------------------------------------------------------------------------------


def _show(facts: dict[str, Any], now: datetime) -> None:
    import sys

    from rich.console import Console

    console = Console(
        highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else _columns_of_a_file()
    )
    for line in _head(facts, now):
        console.print(line)
    if facts["tasks"]:
        console.print(_task_table(facts["tasks"], now, console.width))
    for remark in _foot(facts):
        console.print(remark, soft_wrap=True)


def _columns_of_a_file() -> int:
    import os

    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else WIDTH_OF_A_FILE


def _head(facts: dict[str, Any], now: datetime) -> Iterator[Text]:
    from rich.text import Text

    from coordinator.cli.common import when

    daemon = facts["daemon"]
    if daemon["running"]:
        yield Text.assemble(("● ", "green"), f"running ({', '.join(_about(daemon, now))})")
    else:
        yield Text.assemble(("○ ", "yellow"), "no daemon runs; `coordinator run` starts one")
    if daemon["running"] and daemon.get("config_error"):
        yield Text.assemble(
            ("  The configuration file was not taken: ", "red"), _one_line(daemon["config_error"])
        )
    if facts["paused"]:
        yield Text.assemble(("  Paused: ", "yellow"), "no new runs are started until `coordinator resume`")
    if daemon.get("draining"):
        yield Text.assemble(
            ("  Draining: ", "yellow"),
            "the daemon ends with its last run; `coordinator resume` calls that off",
        )
    for provider in facts["providers"]:
        yield _provider_line(provider, now)
    if facts["budgets"]:
        yield _budget_line(facts["budgets"])
    limit = (daemon.get("github") or {}).get("blocked_until")
    if limit:
        until = when(datetime.fromisoformat(limit), now)
        yield Text.assemble(("  GitHub is asked again ", "yellow"), f"{until}: {daemon['github']['reason']}")
    webhook = daemon.get("webhook")
    if webhook:
        counts = f"{webhook['accepted']} accepted, {webhook['refused']} refused"
        yield Text(f"  Webhook on {webhook['address']}{webhook['path']}: {counts}")
    for name, repository in daemon.get("repositories", {}).items():
        yield _repository_line(name, repository, now)


def _about(daemon: dict[str, Any], now: datetime) -> Iterator[str]:
    """What is known of a running daemon; all but its process only once it is up."""
    from coordinator.cli.common import time_of_day

    yield f"process {daemon.get('pid', 'unknown')}"
    if "started_at" in daemon:
        yield f"since {time_of_day(datetime.fromisoformat(daemon['started_at']), now)}"
    if "config_version" in daemon:
        yield f"configuration {daemon['config_version']}"


def _provider_line(provider: dict[str, Any], now: datetime) -> Text:
    from rich.text import Text

    from coordinator.cli.common import when

    name = provider["provider"] + (f"/{provider['model']}" if provider["model"] else "")
    if provider["status"] == "cooling":
        text = f"is asked again {when(provider['until'], now)}"
    elif provider["status"] == "paused":
        text = f"paused until `coordinator providers resume {provider['provider']}`"
    elif provider["status"] == "stopped":
        text = "not asked before its configuration or key changes"
    else:
        text = (
            "one run may try" if provider["status"] == "half-open" else f"failed {provider['failures']} times"
        )
    why = (
        f" ({provider['kind'].replace('_', ' ')}: {_one_line(provider['detail'])})"
        if provider["detail"]
        else ""
    )
    return Text.assemble((f"  {name}: ", "yellow"), f"{text}{why}")


def _budget_line(budgets: list[dict[str, Any]]) -> Text:
    from rich.text import Text

    def one(each: dict[str, Any]) -> str:
        name = each["budget"] + (f" ({_one_line(each['for'])})" if each["for"] else "")
        reserved = f", {each['reserved']} reserved" if each["reserved"] else ""
        return f"{name} {each['spent']} of {each['limit']} spent{reserved}"

    told = "; ".join(map(one, budgets[:MOST_BUDGETS]))
    more = len(budgets) - MOST_BUDGETS
    style = "red" if budgets[0]["share"] >= 1 else ""
    return Text.assemble(("  Budgets: ", style), told + (f"; and {more} more" if more > 0 else ""))


def _repository_line(name: str, repository: dict[str, Any], now: datetime) -> Text:
    from rich.text import Text

    from coordinator.cli.common import when

    at = repository["next_poll_at"]
    line = Text(f"  {name}: next poll {when(datetime.fromisoformat(at), now) if at else 'now'}")
    if repository.get("closed"):
        line.append(f"  {_one_line(repository['closed'])}", "yellow")
    return (
        line.append(f"  {_one_line(repository['last_error'])}", "red") if repository["last_error"] else line
    )


def _foot(facts: dict[str, Any]) -> Iterator[str | Text]:
    from rich.text import Text

    for item in facts["unpublished"]:
        what = f"  {item['task']}: the {item['what'].replace('_', ' ')} could not be written to GitHub: "
        yield Text.assemble((what, "red"), _one_line(str(item["error"])))
    hidden = sum(facts["counts"].values()) - len(facts["tasks"])
    if hidden > 0:
        yield f"… and {hidden} more; --limit shows them"
    yield from ("", _sums(facts))


def _sums(facts: dict[str, Any]) -> str:
    from rich.markup import escape

    from adw_modules.tasks.report import spent_text

    counts = ", ".join(f"{count} {state}" for state, count in facts["counts"].items() if count)
    day = facts["last_24_hours"]
    cost = spent_text(day["cost_usd"], day["runs"], day["runs_of_unknown_cost"], day["runs_on_subscription"])
    used = f"{day['input_tokens']:,} tokens in, {day['output_tokens']:,} out, {cost}"
    return escape(f"{counts or 'No tasks yet'}. Last 24 hours: {day['runs']} runs, {used}.")


_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "blocked": "yellow",
    "retry_wait": "yellow",
}


def _task_table(tasks: list[dict[str, Any]], now: datetime, width: int) -> Table:
    """One line a task where there is room; else two, and the routing only of what runs."""
    from rich.table import Table

    is_wide = width >= WIDE
    names = min(24, max(4, *(len(row["task"]) for row in tasks)))
    columns = {"task": names, "state": 10}
    if is_wide:
        columns |= {"priority": 8, "att.": 4, "title": 0}
        columns |= {"provider/model": min(30, max(14, *(len(_target(row)) for row in tasks)))}
    room = width - sum(columns.values()) - GAP * len(columns)
    if is_wide:
        columns["title"] = room * 2 // 5
    columns["note" if is_wide else "title and note"] = room - columns.get("title", 0)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for name, wide in columns.items():
        table.add_column(name, width=wide, no_wrap=True, overflow="ellipsis")
    for row in tasks:
        table.add_row(*(_wide_cells(row, now) if is_wide else _narrow_cells(row, now)))
    return table


def _wide_cells(row: dict[str, Any], now: datetime) -> tuple[Text, ...]:
    from rich.text import Text

    facts = (row["priority"], str(row["attempts"]), _one_line(row["title"]), _target(row), _note(row, now))
    return Text(row["task"]), _state(row), *(Text(fact) for fact in facts)


def _narrow_cells(row: dict[str, Any], now: datetime) -> tuple[Text, ...]:
    from rich.text import Text

    note = Text(_one_line(row["title"])).append(f"\n{_note(row, now, with_target=True)}", "dim")
    return Text(row["task"]), _state(row), note


def _state(row: dict[str, Any]) -> Text:
    from rich.text import Text

    return Text(row["state"], style=_STYLES.get(row["state"], ""))


def _target(row: dict[str, Any]) -> str:
    return f"{row['provider']}/{row['model']}" if row["provider"] else ""


def _note(row: dict[str, Any], now: datetime, *, with_target: bool = False) -> str:
    """What matters most about a task in its state."""
    from coordinator.cli.common import when

    cause = _one_line(row["cause"] or "")
    match row["state"]:
        case "running":
            since = (
                f"for {int((now - row['started_at']).total_seconds())} s" if row["started_at"] else "starting"
            )
            return f"{since} on {_target(row)}" if with_target else since
        case "succeeded":
            return row["pull_request"] or "its pull request is being opened"
        case "retry_wait" | "blocked":
            soon = f"{when(row['wake_at'], now)}: " if row["wake_at"] else ""
            return soon + cause
        case "queued":
            return "waits for a free slot" + (f" (last: {cause})" if cause else "")
        case _:
            return cause


def _one_line(text: str) -> str:
    from coordinator.logs import printable

    return printable(" ".join(text.split()))
