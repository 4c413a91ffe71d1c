"""`coordinator demo`: the whole main job on loopback, with nothing but this package and git.

Starts the GitHub-like server with the sample repository, writes a configuration with the seed's
rules, runs the real daemon in this process and shows a live table. The one part that is not real is
the agent: a scripted one, and it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from adw_modules.tasks import report
from adw_modules.tasks.model import Task, TaskState
from coordinator import logs
from coordinator.daemon import Daemon, secret_names
from coordinator.demo import agent, sample
from coordinator.demo.server import GitHubServer
from coordinator.settings import SettingsSource
from coordinator.store import Store

EXPECTED = {
    "critical": "succeeded",
    "docs": "succeeded",
    "retry": "succeeded",
    "failure": "failed",
    "cancelled": "cancelled",
    "no-changes": "no_changes",
}
LABEL = "rpi-auto"
TIME_LIMIT = 60.0  # seconds; the demo takes about ten
REFRESH_SECONDS = 0.2

CONFIG = """\
# Written by `coordinator demo`. The routing rules are the ones of the documentation.
[coordinator]
state_dir = "{state}"
max_concurrent_workers = 3
poll_interval_seconds = 0.5

[retries]
base_delay_seconds = 1
fast_exit_base_delay_seconds = 1
max_delay_seconds = 2

[github]
repo_owner = "{owner}"
repo_name = "{name}"
issue_label = "{label}"
api_url = "{api_url}"
remote_url = "{remote_url}"
token_env = "DEMO_TOKEN"
writes_per_minute = 0

# A scripted agent stands in for the Claude CLI: same stream, same signals, no model behind it.
[providers.claude-cli]
command_template = [{python}, "-I", {agent}, "-p", "--model", "{{model}}", "--output-format", "stream-json", "--verbose"]
env = {{ SCRIPTED_AGENT_PACE = "0.3" }}

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true

[[routing.rules]]
name = "critical-issues-opus"
priority = 100
conditions = {{ priority = "critical" }}
model = "claude-opus-4"
reason = "Critical tasks get the best model"

[[routing.rules]]
name = "retry-use-haiku"
priority = 95
conditions = {{ retry_count = {{ gte = 1 }} }}
model = "claude-haiku-4"

[[routing.rules]]
name = "high-priority-sonnet"
priority = 90
conditions = {{ priority = ["high", "normal"] }}
model = "claude-sonnet-4-5"

[[routing.rules]]
name = "off-hours-haiku"
priority = 70
conditions = {{ hour_range = [0, 8] }}
model = "claude-haiku-4"

[[routing.rules]]
name = "docs-haiku"
priority = 60
conditions = {{ labels = ["documentation", "docs"] }}
model = "claude-haiku-4"

[[models]]
name = "claude-opus-4"
provider = "claude-cli"
cost_per_million_input = 15.0
cost_per_million_output = 75.0
cost_per_million_cache_read = 1.5
cost_per_million_cache_write = 18.75

[[models]]
name = "claude-sonnet-4-5"
provider = "claude-cli"
cost_per_million_input = 3.0
cost_per_million_output = 15.0
cost_per_million_cache_read = 0.3
cost_per_million_cache_write = 3.75

[[models]]
name = "claude-haiku-4"
provider = "claude-cli"
cost_per_million_input = 1.0
cost_per_million_output = 5.0
cost_per_million_cache_read = 0.1
cost_per_million_cache_write = 1.25
"""


@dataclass(slots=True)
class Demo:
    """One run of the demo in one folder."""

    folder: Path
    server: GitHubServer
    numbers: dict[str, int]  # sample issue key -> issue number
    daemon: Daemon
    source: SettingsSource

    async def play(self, console: Console) -> list[Task]:
        """Run until all six issues have ended (or the time limit); returns their tasks."""
        running = asyncio.create_task(self.daemon.run())
        began = monotonic()
        try:
            with Live(console=console, refresh_per_second=8, transient=True) as live:
                while not running.done() and monotonic() - began < TIME_LIMIT:
                    with contextlib.suppress(FileNotFoundError):
                        tasks = self._look(live)
                        if self._is_over(tasks):
                            break
                    await asyncio.wait({running}, timeout=REFRESH_SECONDS)
        finally:
            self.daemon.stop(end_runs=True)
            await running
        return self._tasks()

    def _tasks(self) -> list[Task]:
        with Store.open_readonly(self.source.current.database_url) as store:
            return sorted(store.tasks(), key=lambda task: task.issue_number)

    def _look(self, live: Live) -> list[Task]:
        if not (self.source.current.state_dir / "coordinator.db").exists():
            return []
        with Store.open_readonly(self.source.current.database_url) as store:
            tasks = sorted(store.tasks(), key=lambda task: task.issue_number)
            live.update(table(store, tasks, title="Coordinator at work (scripted agent, loopback only)"))
        self._close_while_running(tasks)
        return tasks

    def _close_while_running(self, tasks: list[Task]) -> None:
        """Somebody closes one issue while its worker runs: that run has to be cancelled."""
        number = next(self.numbers[issue.key] for issue in sample.ISSUES if issue.closes_while_running)
        started = any(
            live.task.issue_number == number and live.handle for live in self.daemon.supervisor.live_runs
        )
        if started and self.server.issue(sample.REPOSITORY, number).state == "open":
            self.server.close_issue(sample.REPOSITORY, number, actor=sample.MAINTAINER)

    def _is_over(self, tasks: list[Task]) -> bool:
        return (
            len(tasks) == len(self.numbers)
            and all(task.state.is_terminal for task in tasks)
            and self.daemon.outbox.is_idle
        )


def table(store: Store, tasks: list[Task], *, title: str) -> Table:
    """Issue, rule, target, attempts, tokens, cost, result, pull request."""
    view = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for column in ("issue", "rule", "provider/model", "attempts", "tokens in / out", "cost", "result", "PR"):
        view.add_column(column, overflow="fold", no_wrap=column in ("attempts", "cost", "PR"))
    for task in tasks:
        view.add_row(*(escape(cell) for cell in _row(store, task)))
    return view


def _row(store: Store, task: Task) -> tuple[str, ...]:
    runs = store.runs_of(task.task_id)
    usages = [store.usage_of(run.run_id) for run in runs]
    costs = [cost for run in runs if (cost := store.cost_of(run.run_id))]
    known = [cost.usd for cost in costs if cost.usd is not None]
    tokens = [usage.total for usage in usages]
    return (
        f"#{task.issue_number} {task.title}",
        " → ".join(dict.fromkeys(run.rule or "default" for run in runs)),
        " → ".join(dict.fromkeys(f"{run.provider}/{run.model}" for run in runs)),
        str(len(runs)) if runs else "",
        f"{sum(t.total - t.output for t in tokens):,} / {sum(t.output for t in tokens):,}" if runs else "",
        report.cost_text(sum(known[1:], known[0])) if known else "",
        _result(task),
        f"#{task.pr_number}" if task.pr_number else "",
    )


def _result(task: Task) -> str:
    if task.state is TaskState.FAILED and task.last_outcome:
        return task.last_outcome.value
    return task.state.value


def run(folder: Path | None = None, console: Console | None = None) -> int:
    """Play the demo and print the final table. Returns the exit code: 0 when all six came out as they should."""
    console = console or Console(highlight=False)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coordinator-demo-")))
        server = stack.enter_context(GitHubServer(git_root=folder / "github"))
        demo = _set_up(folder, server)
        _log_to_file(demo)
        console.print(
            f"A GitHub-like server runs on {server.api_url} with {len(demo.numbers)} labelled issues; "
            "the agent is a scripted one, everything else is real.\n"
        )
        began = monotonic()
        tasks = asyncio.run(demo.play(console))
        took = timedelta(seconds=monotonic() - began)
        return _conclude(demo, tasks, console, took)


def _set_up(folder: Path, server: GitHubServer) -> Demo:
    numbers = sample.populate(server)
    owner, name = sample.REPOSITORY.split("/")
    config = folder / "adws" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        CONFIG.format(
            state=folder / "state",
            owner=owner,
            name=name,
            label=LABEL,
            api_url=server.api_url,
            remote_url=server.git_url(sample.REPOSITORY),
            python=_toml(sys.executable),
            agent=_toml(str(Path(agent.__file__).resolve())),
        )
    )
    environ = dict(os.environ) | {"DEMO_TOKEN": sample.TOKEN}
    source = SettingsSource(config, environ)
    daemon = Daemon(source, environ=environ, end_runs_on_interrupt=True)
    return Demo(folder=folder, server=server, numbers=numbers, daemon=daemon, source=source)


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _log_to_file(demo: Demo) -> None:
    """The log would tear the table apart; it is kept in the state directory instead."""
    settings = demo.source.current.settings
    redactor = logs.Redactor.from_environ(secret_names(settings), {"DEMO_TOKEN": sample.TOKEN})
    quiet = Path(os.devnull).open("w")  # noqa: SIM115  lives as long as the process logs
    logs.configure(redactor=redactor, stream=quiet, json=True, log_dir=demo.source.current.log_dir)


def _conclude(demo: Demo, tasks: list[Task], console: Console, took: timedelta) -> int:
    with Store.open_readonly(demo.source.current.database_url) as store:
        console.print(table(store, tasks, title="What became of the issues"))
    by_number: dict[int, Any] = {task.issue_number: task for task in tasks}
    wrong = []
    for issue in sample.ISSUES:
        task = by_number.get(demo.numbers[issue.key])
        result = _result(task) if task else "not seen"
        if result != EXPECTED[issue.key]:
            wrong.append(f"{issue.title}: {result} instead of {EXPECTED[issue.key]}")
    if demo.daemon.was_interrupted:
        console.print("Interrupted; every worker was ended.")
        return 130
    for line in wrong:
        console.print(f"[red]{escape(line)}[/]")
    console.print(
        f"{len(tasks)} issues in {took.total_seconds():.1f} s. Next: `coordinator init`, then `coordinator run` "
        "with your own repository (README.md)."
    )
    return 1 if wrong else 0
