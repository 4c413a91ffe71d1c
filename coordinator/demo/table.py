"""The demo's table: what it says of each issue, and how that fits on a narrow or a wide screen."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from adw_modules.tasks import report
from adw_modules.tasks.model import Run, Task, TaskState, UsageSource
from coordinator.store import Store

WIDE = 130  # columns from which each fact has a column of its own
_WIDE_OTHERS = 104  # columns of the wide table that are not the issue's
_NARROW_OTHERS = 62  # the same of the narrow one
_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "retry_wait": "yellow",
    "blocked": "yellow",
    "cancelled": "yellow",
    "no_changes": "yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where routing sent one or more attempts."""

    rule: str
    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One issue. Tokens are None until a run has told some, `cost_usd` until something has a price."""

    issue: int
    title: str
    routing: tuple[Target, ...]  # in order, equal neighbours once
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    state: str
    result: str  # the state, or what a failed task failed of
    cause: str | None
    pull_request: int | None
    has_ended: bool


def rows_of(store: Store) -> list[Row]:
    """All issues, by number."""
    return [_row(store, task) for task in sorted(store.tasks(), key=lambda task: task.issue_number)]


def _row(store: Store, task: Task) -> Row:
    runs = store.runs_of(task.task_id)
    usages = [store.usage_of(run.run_id) for run in runs]
    tokens = [usage.total for usage in usages if usage.source is not UsageSource.UNKNOWN]
    costs = [cost.usd for run in runs if (cost := store.cost_of(run.run_id)) and cost.usd is not None]
    output = sum(usage.output for usage in tokens)
    return Row(
        issue=task.issue_number,
        title=task.title,
        routing=tuple(dict.fromkeys(_target(run) for run in runs)),
        attempts=len(runs),
        input_tokens=sum(usage.total for usage in tokens) - output if tokens else None,
        output_tokens=output if tokens else None,
        cost_usd=sum(costs, Decimal(0)) if costs else None,
        state=task.state.value,
        result=_result(task),
        cause=task.cause,
        pull_request=task.pr_number,
        has_ended=task.state.is_terminal,
    )


def _target(run: Run) -> Target:
    return Target(rule=run.rule or "default", provider=run.provider, model=run.model)


def _result(task: Task) -> str:
    if task.state is TaskState.FAILED and task.last_outcome:
        return task.last_outcome.value
    return task.state.value


def change(before: Row | None, now: Row) -> str | None:
    """What is new since `before`, for a line of progress; None when nothing is."""
    if before is not None and (before.state, before.attempts, before.pull_request) == (
        now.state,
        now.attempts,
        now.pull_request,
    ):
        return None
    last = now.routing[-1] if now.routing else None
    text = "waits for the next attempt" if now.state == "retry_wait" else now.result
    if now.state == "running" and last is not None:
        return f"{text} on {last} (rule {last.rule}, attempt {now.attempts})"
    if now.pull_request:
        return f"{text}, draft pull request #{now.pull_request}"
    return f"{text}: {now.cause}" if now.cause and now.state != "queued" else text


def table(rows: list[Row], *, title: str, width: int) -> Table:
    """Issue, routing, attempts, tokens, cost, result, pull request: eight columns, or five of two lines."""
    return _wide(rows, title, width) if width >= WIDE else _narrow(rows, title, width)


def _empty(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _wide(rows: list[Row], title: str, width: int) -> Table:
    view = _empty(title)
    view.add_column("issue", no_wrap=True, overflow="ellipsis", max_width=width - _WIDE_OTHERS)
    for name in ("rule", "provider/model"):
        view.add_column(name, no_wrap=True)
    for name in ("attempts", "tokens in / out", "cost"):
        view.add_column(name, no_wrap=True, justify="right")
    for name in ("result", "PR"):
        view.add_column(name, no_wrap=True)
    for row in rows:
        view.add_row(
            Text(f"#{row.issue} {row.title}"),
            Text("\n→ ".join(target.rule for target in row.routing)),
            Text("\n→ ".join(map(str, row.routing))),
            str(row.attempts or ""),
            _tokens(row),
            _cost(row),
            _styled(row.result),
            _pull(row),
        )
    return view


def _narrow(rows: list[Row], title: str, width: int) -> Table:
    view = _empty(title)
    room = max(12, width - _NARROW_OTHERS)
    view.add_column("issue", width=room)
    view.add_column("rule, provider/model", no_wrap=True)
    view.add_column("att.", no_wrap=True, justify="right")
    view.add_column("tokens, cost", no_wrap=True, justify="right")
    view.add_column("result", no_wrap=True)
    for row in rows:
        routing = "\n→ ".join(f"{target.rule}\n{target}" for target in row.routing)
        result = _styled(row.result)
        view.add_row(
            Text("\n".join(textwrap.wrap(f"#{row.issue} {row.title}", room, max_lines=2, placeholder="…"))),
            Text(routing),
            str(row.attempts or ""),
            f"{_tokens(row)}\n{_cost(row)}",
            result.append(f"\n{_pull(row)}", style="default") if row.pull_request else result,
        )
    return view


def _tokens(row: Row) -> str:
    if row.input_tokens is None:
        return _not_known(row)
    return f"{row.input_tokens:,} / {row.output_tokens:,}"


def _cost(row: Row) -> str:
    return report.dollars(row.cost_usd) if row.cost_usd is not None else _not_known(row)


def _not_known(row: Row) -> str:
    """Nothing yet while it is worked on; afterwards it is unknown, which is not nothing."""
    return report.UNKNOWN if row.has_ended and row.attempts else ""


def _pull(row: Row) -> str:
    return f"#{row.pull_request}" if row.pull_request else ""


def _styled(result: str) -> Text:
    return Text(result, style=_STYLES.get(result, ""))
