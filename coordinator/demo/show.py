"""`coordinator demo`: the whole main job on loopback, with nothing but this package and git.

Starts the GitHub-like server with the sample repository, writes a configuration with the seed's
rules, runs the real daemon in this process and shows what happens: a live table on a terminal, a line
for each change elsewhere. The one part that is not real is the agent: a scripted one, and it says so.
How the table looks is in `table.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import zoneinfo
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.text import Text

from adw_modules.errors import StoreError
from coordinator import logs
from coordinator.clock import utc_now
from coordinator.daemon import Daemon
from coordinator.demo import agent, sample
from coordinator.demo.server import GitHubServer
from coordinator.demo.table import Row, change, rows_of, table
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
WIDTH_OF_A_FILE = 160  # columns, where the output is not a terminal

CONFIG = """\
# Written by `coordinator demo`. The routing rules are the ones of the documentation.
[coordinator]
state_dir = "{state}"
max_concurrent_workers = 3
poll_interval_seconds = 0.5
# It is about noon there: the off-hours rule below never matches, and the demo is the same at any hour.
timezone = "{timezone}"

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
command_template = [
    {python}, "-I", {agent}, "-p", "--model", "{{model}}", "--output-format", "stream-json", "--verbose",
]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a demo came out."""

    rows: list[Row]
    wrong: list[str]  # one sentence for each issue that did not end as it should
    seconds: float
    was_interrupted: bool

    @property
    def exit_code(self) -> int:
        return 130 if self.was_interrupted else 1 if self.wrong else 0


class LiveTable:
    """For a terminal: one table that changes in place."""

    def __init__(self, console: Console) -> None:
        self._console, self._live = console, Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, rows: list[Row], _seconds: float) -> None:
        title = "Coordinator at work (scripted agent, loopback only)"
        self._live.update(table(rows, title=title, width=self._console.width))


@dataclass(slots=True)
class ProgressLines:
    """For a file or a pipe: one line for each change of an issue."""

    console: Console
    _before: dict[int, Row] = field(default_factory=dict)

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, rows: list[Row], seconds: float) -> None:
        for row in rows:
            news = change(self._before.get(row.issue), row)
            if news is not None:
                self.console.print(
                    Text(f"{seconds:5.1f} s  #{row.issue} {row.title}: {news}"), soft_wrap=True
                )
            self._before[row.issue] = row


@dataclass(slots=True)
class Demo:
    """One run of the demo in one folder."""

    server: GitHubServer
    numbers: dict[str, int]  # sample issue key -> issue number
    daemon: Daemon
    source: SettingsSource

    async def play(self, view: LiveTable | ProgressLines) -> None:
        """Run until all six issues have ended (or the time limit)."""
        running = asyncio.create_task(self.daemon.run())
        began = monotonic()
        try:
            while not running.done() and monotonic() - began < TIME_LIMIT:
                rows = self.rows()
                view.show(rows, monotonic() - began)
                if self._is_over(rows):
                    break
                self._close_while_running()
                await asyncio.wait({running}, timeout=REFRESH_SECONDS)
        finally:
            self.daemon.stop(end_runs=True)
            await running
        view.show(self.rows(), monotonic() - began)

    def rows(self) -> list[Row]:
        """The issues as the store has them now; none before there is a store."""
        if not (self.source.current.state_dir / "coordinator.db").exists():
            return []
        try:
            with Store.open_readonly(self.source.current.database_url) as store:
                return rows_of(store)
        except StoreError:  # it is being made this moment
            return []

    def _close_while_running(self) -> None:
        """Somebody closes one issue while its worker runs: that run has to be cancelled."""
        if not self.daemon.up.is_set():
            return
        number = next(self.numbers[issue.key] for issue in sample.ISSUES if issue.closes_while_running)
        runs = self.daemon.supervisor.live_runs
        started = any(live.task.issue_number == number and live.handle for live in runs)
        if started and self.server.issue(sample.REPOSITORY, number).state == "open":
            self.server.close_issue(sample.REPOSITORY, number, actor=sample.MAINTAINER)

    def _is_over(self, rows: list[Row]) -> bool:
        return (
            len(rows) == len(self.numbers)
            and all(row.has_ended for row in rows)
            and self.daemon.outbox.is_idle
        )

    def wrong(self, rows: list[Row]) -> list[str]:
        """One sentence for each issue that did not end as it should."""
        results = {row.issue: row.result for row in rows}
        found = [(issue, results.get(self.numbers[issue.key], "not seen")) for issue in sample.ISSUES]
        return [
            f"{issue.title}: {result} instead of {EXPECTED[issue.key]}."
            for issue, result in found
            if result != EXPECTED[issue.key]
        ]


def run(folder: Path | None = None, *, as_json: bool = False) -> int:
    """Play the demo and print how it came out. Returns the exit code: 0 when all six ended as they should."""
    console = _console(stderr=as_json)
    with contextlib.ExitStack() as stack:
        with _interrupts_held_back():
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coordinator-demo-")))
            server = stack.enter_context(GitHubServer(git_root=folder / "github"))
            demo = _set_up(folder, server)
            _log_to_file(demo, stack)
            stack.callback(
                _deaf_to_interrupts
            )  # called first: a second Ctrl-C must not cut the tidying short
        console.print(
            f"A GitHub-like server runs on {server.api_url} with {len(demo.numbers)} labelled issues; "
            "the agent is a scripted one, everything else is real.\n"
        )
        played = _play(demo, console)
    if as_json:
        _print_json(played)
    else:
        console.print(table(played.rows, title="What became of the issues", width=console.width))
    _say_how_it_went(played, console)
    return played.exit_code


def _play(demo: Demo, console: Console) -> Played:
    began = monotonic()
    animated = console.is_terminal and not console.is_dumb_terminal
    with LiveTable(console) if animated else ProgressLines(console) as view:
        asyncio.run(demo.play(view))
    rows = demo.rows()
    return Played(
        rows=rows,
        wrong=demo.wrong(rows),
        seconds=monotonic() - began,
        was_interrupted=demo.daemon.was_interrupted,
    )


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or os.environ.get("COLUMNS")
    return Console(highlight=False, stderr=stderr, width=None if known else WIDTH_OF_A_FILE)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A Ctrl-C that comes while things are made counts when they are made, and can be tidied away."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _deaf_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
            timezone=where_it_is_noon(utc_now()),
        )
    )
    environ = dict(os.environ) | {"DEMO_TOKEN": sample.TOKEN}
    source = SettingsSource(config, environ)
    daemon = Daemon(source, environ=environ, end_runs_on_interrupt=True)
    return Demo(server=server, numbers=numbers, daemon=daemon, source=source)


def where_it_is_noon(now: datetime) -> str:
    """A timezone in which the hour is 12 now; UTC where the machine knows no others."""
    east_of_utc = 12 - now.hour
    name = f"Etc/GMT{-east_of_utc:+d}"  # these names count the hours west
    try:
        zoneinfo.ZoneInfo(name)
    except zoneinfo.ZoneInfoNotFoundError:
        return "UTC"
    return name


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _log_to_file(demo: Demo, stack: contextlib.ExitStack) -> None:
    """The log would tear the table apart; it is kept in the state directory instead."""
    settings = demo.source.current.settings
    redactor = logs.Redactor.of(settings, {"DEMO_TOKEN": sample.TOKEN})
    nowhere = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115  the stack closes it
    logs.configure(redactor=redactor, stream=nowhere, json=True, log_dir=demo.source.current.log_dir)
    stack.callback(logs.close)


def _print_json(played: Played) -> None:
    from coordinator.cli.common import print_json

    print_json(
        {
            "issues": [asdict(row) for row in played.rows],
            "wrong": played.wrong,
            "interrupted": played.was_interrupted,
            "seconds": round(played.seconds, 1),
        }
    )


def _say_how_it_went(played: Played, console: Console) -> None:
    if played.was_interrupted:
        console.print("\nInterrupted: every worker was ended and nothing is left running.")
        return
    for sentence in played.wrong:
        console.print(Text(sentence, style="red"))
    console.print(
        f"\n{len(played.rows)} issues in {played.seconds:.1f} s. "
        "Next, in the folder of a repository of yours: `coordinator init`, then `coordinator run` "
        '(README.md, "Set it up").'
    )
