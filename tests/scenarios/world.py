"""The stage of the scenarios: a GitHub server, a configuration file, a daemon, and ways to look at them.

Everything is real but GitHub and the agent: the daemon runs in a thread of the test (`World.start`) or as a
process of its own that can be killed (`World.start_process`). Nothing here waits for a fixed time: `until`
looks at a condition again and again, with a bound.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from typer.testing import CliRunner

from adw_modules.errors import StoreError
from adw_modules.tasks.model import Run, Task, TaskState
from coordinator import cli, logs, shim
from coordinator.clock import utc_now
from coordinator.daemon import Daemon, Wake
from coordinator.demo import agent
from coordinator.demo.server import CommentView, Fault, GitHubServer, PullView
from coordinator.launcher import Alive, classify, is_alive
from coordinator.schedule import PollDue
from coordinator.settings import SettingsSource
from coordinator.store import StatePaths, Store
from tests.forked import Command

REPO = "octo/hello"
BOT, MAINTAINER, STRANGER = "coordinator-bot", "ada", "mallory"
TOKEN = "token-of-the-coordinator-bot"
LABEL = "rpi-auto"
LISTS = "GET /repos/octo/hello/issues"
PATIENCE = 15.0  # seconds until a condition counts as never coming true
LOOK_EVERY = 0.02

WRITE = "[[agent: write docs/guide.md]]"
WAIT = "[[agent: slow 60]]"  # works until it is stopped

_GATED = """
import os, time
print("waiting", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists({gate!r}):
    time.sleep(0.01)
open("work.txt", "w").write("done")
"""

_T = TypeVar("_T")


class Clock:
    """The real time, which a test may push forward."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one issue, as the store and GitHub show it. `label` is our own, without its prefix."""

    state: str
    outcomes: tuple[str, ...]
    attempts: int = 1
    comments: int = 1
    pulls: int = 0
    label: str = ""


@dataclass(slots=True)
class InProcess:
    """The daemon in a thread with a loop of its own."""

    daemon: Daemon
    thread: threading.Thread = field(init=False)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="daemon")
        self.thread.start()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self.daemon.run())
        except BaseException as error:  # noqa: BLE001  it is the test's to judge
            self.error = error

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)

    def stop(self) -> None:
        """End the daemon as SIGTERM would; live runs go on. Raises what it died of."""
        while self.thread.is_alive():  # before `run` there is nothing that could be told to stop
            self.call(self.daemon.stop)
            self.thread.join(0.1)
        error, self.error = self.error, None
        if error is not None:
            raise error


class World:
    """One GitHub, one configuration, at most one daemon at a time."""

    def __init__(self, folder: Path, config: dict[str, Any], *, cold: bool = False) -> None:
        self.folder = folder
        self.cold = cold  # whether daemons of their own process start as a user starts them
        self.clock, self.github_clock = Clock(), Clock()
        self.server = GitHubServer(git_root=folder / "github", clock=self.github_clock)
        self.environ = {**os.environ, "HELLO_TOKEN": TOKEN}
        self.log_stream = io.StringIO()
        self.inside: InProcess | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None
        self.path = folder / "adws" / "config.toml"
        self.config = self._defaults()
        for section, values in config.items():
            known = self.config.get(section)
            self.config[section] = {**known, **values} if isinstance(known, dict) else values
        self._populate()
        self.write_config()

    def _populate(self) -> None:
        self.server.start()
        self.add_repo(REPO)
        self.server.add_token(TOKEN, BOT)

    def add_repo(self, full_name: str) -> None:
        self.server.add_repo(full_name)
        for login, role in ((BOT, "write"), (MAINTAINER, "write"), (STRANGER, "read")):
            self.server.set_permission(full_name, login, role)

    def _defaults(self) -> dict[str, Any]:
        return {
            "coordinator": {
                "state_dir": str(self.state_dir),
                "poll_interval_seconds": 0.1,
                "stop_grace_seconds": 0.2,
                "max_attempts": 3,
            },
            "retries": {
                "base_delay_seconds": 0.05,
                "fast_exit_base_delay_seconds": 0.05,
                "max_delay_seconds": 0.2,
            },
            "github": {
                "repo_owner": "octo",
                "repo_name": "hello",
                "api_url": self.server.api_url,
                "remote_url": str(self.folder / "github" / "{owner}" / "{name}.git"),
                "token_env": "HELLO_TOKEN",
                "writes_per_minute": 0,
                "report_delay_seconds": 0,
            },
            "limits": {
                "retrigger_minutes": 0,
                "runs_per_repository_per_day": 0,
                "runs_per_author_per_day": 0,
                "runs_per_labeller_per_day": 0,
            },
            # For speed; the tests of the sandbox turn it on.
            "sandbox": {"mode": "off", "required_for_public": False},
            "providers.claude-cli": scripted_agent(),
        }

    # -- the configuration file ----------------------------------------------------------------------

    def write_config(self, **sections: dict[str, Any]) -> None:
        """Merge changes and replace the file in one step, as a careful editor does."""
        for section, values in sections.items():
            self.config[section] = {**self.config.get(section, {}), **values}
        self.write_text(to_toml(self.config))

    def write_text(self, text: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.path)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    # -- the daemon ------------------------------------------------------------------------------------

    def start(self) -> Daemon:
        """Run the daemon in a thread of this process."""
        assert self.inside is None
        assert self.process is None
        source = SettingsSource(self.path, self.environ)
        redactor = logs.Redactor.of(source.current.settings, self.environ)
        logs.configure(redactor=redactor, stream=self.log_stream, json=True)
        self.inside = InProcess(Daemon(source, environ=self.environ, now=self.clock, redactor=redactor))
        return self.inside.daemon

    def stop(self) -> None:
        """End the daemon politely, whichever it is; live runs go on."""
        if self.inside is not None:
            inside, self.inside = self.inside, None
            inside.stop()
        if self.process is not None:
            self.end_process(signal.SIGTERM)

    def start_process(self, *options: str) -> None:
        """Run the daemon as `coordinator run`, so that it can be killed."""
        assert self.process is None
        with (self.folder / "daemon.stderr").open("ab") as stderr:
            self.process = Command(
                ["run", *options, "--config", str(self.path)],
                cold=self.cold,
                env=self.environ,
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    def run_once(self) -> int:
        """`coordinator run --once` to its end; its exit code."""
        self.start_process("--once")
        assert self.process is not None
        code = self.process.wait(timeout=PATIENCE)
        self.process = None
        return code

    def end_process(self, number: signal.Signals) -> tuple[int, float]:
        """Send the signal; (exit code, seconds it took to end)."""
        assert self.process is not None
        process, self.process = self.process, None
        began = time.monotonic()
        process.send_signal(number)
        try:
            code = process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return code, time.monotonic() - began

    def kill(self) -> None:
        """kill -9, and until no half-started child of it holds the lock either."""
        self.end_process(signal.SIGKILL)
        self.until(lambda: not StatePaths(self.state_dir).is_held(), "the kernel has let go of the lock")

    def kill_shims(self) -> None:
        """kill -9 the owners of all live runs, as an out-of-memory killer would; their agents stay."""
        for run_dir in self.live():
            owner = shim.read_json(str(run_dir / "lock"))
            assert owner is not None
            shim.signal_exact(owner["shim_pid"], owner["shim_start"], signal.SIGKILL)
        self.until(lambda: not self.live(), "the shims are gone")

    def advance(self, seconds: float) -> None:
        """Push the daemon's clock forward and have it look at everything that is due by then."""
        self.clock.advance(seconds)
        assert self.inside is not None
        daemon = self.inside.daemon
        self.inside.call(daemon.outbox.kick)
        for wake in (*(PollDue(repository=name) for name in daemon.polls.repositories), Wake.TICK):
            self.inside.call(daemon.wake, wake)

    def cli(self, *arguments: str, config: Path | None = None) -> Any:
        """Run a verb as an operator does; its JSON, or its text without --json."""
        done = CliRunner().invoke(cli.app, [*arguments, "--config", str(config or self.path)])
        assert done.exception is None, done.output
        return json.loads(done.stdout) if "--json" in arguments else done.stdout.strip()

    def output(self, *arguments: str) -> str:
        """What a verb says, however it ends."""
        done = CliRunner(env=self.environ).invoke(cli.app, [*arguments, "--config", str(self.path)])
        return f"{done.output}{done.exception or ''}"

    def use_gated_agent(self) -> None:
        """Replace the agent by one that waits for `open_gate`, then writes a file and ends."""
        self.write_config(**{"providers.claude-cli": program(_GATED.format(gate=str(self.folder / "gate")))})

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    # -- issues ----------------------------------------------------------------------------------------

    def issue(
        self, *directives: str, repo: str = REPO, by: str = MAINTAINER, title: str = "Say hello"
    ) -> int:
        """A labelled issue whose text tells the scripted agent what to do."""
        return self.server.add_issue(
            repo, title=title, body="\n".join(directives), author=by, labels=[LABEL], labelled_by=by
        )

    def relabel(self, number: int, *, by: str = MAINTAINER) -> None:
        """Take the label off and put it on again, in a later second: GitHub's times have whole seconds."""
        self.server.remove_label(REPO, number, LABEL, actor=by)
        self.github_clock.advance(2)
        self.server.add_label(REPO, number, LABEL, actor=by)

    # -- looking ---------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The daemon's store, for reading. Raises StoreError before there is one."""
        if self._store is None:
            self._store = Store.open_readonly(self.state_dir / "coordinator.db")
        return self._store

    def task(self, number: int, repo: str = REPO) -> Task | None:
        try:
            found = self.store.find_task(repo, number)
        except StoreError:
            if self._store is not None:
                raise
            return None  # the daemon has not made it yet
        return found[0] if found else None

    def runs(self, number: int, repo: str = REPO) -> list[Run]:
        task = self.task(number, repo)
        return self.store.runs_of(task.task_id) if task else []

    def comments(self, number: int, repo: str = REPO) -> list[CommentView]:
        return [comment for comment in self.server.comments(repo, number) if comment.author == BOT]

    def comment(self, number: int, repo: str = REPO) -> str:
        """The text of the one comment."""
        (comment,) = self.comments(number, repo)
        return comment.body

    def pulls(self, number: int, repo: str = REPO) -> list[PullView]:
        return [pull for pull in self.server.pulls(repo) if pull.head == f"auto/gh-{number}"]

    def label(self, number: int, repo: str = REPO) -> str:
        """Our status labels without their prefix; more than one would show."""
        labels = self.server.issue(repo, number).labels
        return ",".join(
            label.removeprefix("coordinator:") for label in labels if label.startswith("coordinator:")
        )

    def result(self, number: int, repo: str = REPO) -> Result:
        task = self.task(number, repo)
        assert task is not None
        return Result(
            state=task.state.value,
            outcomes=tuple(
                run.outcome.value if run.outcome else "running" for run in self.runs(number, repo)
            ),
            attempts=task.attempts,
            comments=len(self.comments(number, repo)),
            pulls=len(self.pulls(number, repo)),
            label=self.label(number, repo),
        )

    def starts(self, number: int, repo: str = REPO) -> int:
        """How often an agent was really started: what the shims say, not the store."""
        task = self.task(number, repo)
        name = task.name.replace("/", "_") if task else f"gh-{number}"
        return sum(1 for _ in (self.state_dir / "runs").glob(f"{name}.*/started"))

    def live(self) -> list[Path]:
        """The run directories that a shim owns now."""
        return [path for path in sorted((self.state_dir / "runs").glob("*")) if is_alive(path)]

    def processes(self) -> list[shim.Process]:
        """Everything that runs attempts have left in the process table."""
        specs = [shim.read_json(str(path)) for path in (self.state_dir / "runs").glob("*/spec.json")]
        markers = [spec["marker"] for spec in specs if spec]
        table = shim.process_table()
        return [each for each in table for marker in markers if shim.carries(each.pid, marker)]

    def any_left(self, before: Sequence[shim.Process]) -> bool:
        """Whether one of these very processes still runs.

        Neither a number that somebody else has by now, nor a dead one that its parent has not looked at
        (an orphan's is the machine's first process, which takes its time in some containers), counts.
        """
        now = {(each.pid, each.start) for each in shim.process_table()}
        return any((each.pid, each.start) in now for each in before)

    def polls(self, repo: str = REPO) -> int:
        return len(self.server.requests_matching(f"GET /repos/{repo}/issues"))

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of the daemon's log with this event, oldest first."""
        file = self.state_dir / "logs" / "coordinator.jsonl"
        texts = (self.log_stream.getvalue(), file.read_text() if file.exists() else "")
        whole = [line for text in texts for line in text.split("\n")[:-1]]  # the last may be half-written
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["event"].splitlines()[0] == event]

    # -- waiting ---------------------------------------------------------------------------------------

    def until(self, look: Callable[[], _T], what: str = "it", *, patience: float = PATIENCE) -> _T:
        """Look until it is true (then that is returned); fail after the patience."""
        deadline = time.monotonic() + patience
        while not (found := look()):
            if self.inside is not None and self.inside.error is not None:
                raise self.inside.error
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {patience} s in vain until {what}\n{self._last_lines()}")
            time.sleep(LOOK_EVERY)
        return found

    def until_state(self, number: int, state: str, repo: str = REPO) -> Task:
        """Until the task is in that state and GitHub knows."""

        def look() -> Task | None:
            task = self.task(number, repo)
            return task if task and task.state is TaskState(state) and self.is_published() else None

        return self.until(look, f"{repo}#{number} is {state}, and published")

    def until_working(self, number: int, repo: str = REPO) -> Run:
        """Until the agent of the task's newest run is up and has said something."""

        def look() -> Run | None:
            runs = self.runs(number, repo)
            if not runs or runs[-1].finished_at:
                return None
            output = Path(runs[-1].run_dir) / "output.log"
            return runs[-1] if output.exists() and output.stat().st_size else None

        return self.until(look, f"the agent of {repo}#{number} works")

    def until_polls(self, more: int, repo: str = REPO) -> None:
        """Until that many further listings have been asked for."""
        wanted = self.polls(repo) + more
        self.until(lambda: self.polls(repo) >= wanted, f"{more} more polls of {repo}")

    def until_hit(self, fault: Fault, times: int = 1) -> None:
        """Until the fault has done its damage that often."""
        self.until(lambda: self.server.faults.hits(fault) >= times, f"{fault.match} was hit {times} times")

    def until_logged(self, event: str, **fields: Any) -> dict[str, Any]:
        """Until the daemon's log has a line of this event with these fields; the first one."""

        def look() -> list[dict[str, Any]]:
            return [line for line in self.events(event) if fields.items() <= line.items()]

        return self.until(look, f"the log says {event!r} with {fields}")[0]

    def until_quiet(self) -> None:
        """Until no agent and nothing of its making is left."""
        self.until(lambda: not self.live() and not self.processes(), "all processes of the runs are gone")

    def is_published(self) -> bool:
        """Whether GitHub has been told everything."""
        return self.store.next_outbox_at() is None

    def _last_lines(self) -> str:
        stderr = self.folder / "daemon.stderr"
        text = self.log_stream.getvalue() + (stderr.read_text() if stderr.exists() else "")
        return "\n".join(text.splitlines()[-25:])

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything, whatever state the test left it in."""
        try:
            if self.process is not None:
                self.kill()
            self.stop()
        finally:
            self._end_runs()
            if self._store is not None:
                self._store.close()
            forbidden = self.server.forbidden_requests
            self.server.stop()
        assert forbidden == [], "nothing may ask GitHub to merge or to approve"

    def _end_runs(self) -> None:
        for run_dir in self.live():
            state = classify(run_dir)
            if isinstance(state, Alive):
                state.handle.stop("the test is over")
        self.until_quiet()


def scripted_agent() -> dict[str, Any]:
    """The provider of the demo."""
    program = [sys.executable, "-I", str(Path(agent.__file__).resolve())]
    return {"command_template": [*program, "--model", "{model}"]}


def program(code: str, *, dialect: str = "generic", **more: Any) -> dict[str, Any]:
    """A provider that is a piece of Python, without braces: those are for placeholders."""
    return {
        "command_template": [sys.executable, "-I", "-c", code],
        "agent": dialect,
        **more,
    }


def to_toml(config: dict[str, Any]) -> str:
    """Sections of plain values; a list of tables becomes [[name]]."""
    tables = [
        (f"[[{name}]]" if isinstance(content, list) else f"[{name}]", table)
        for name, content in config.items()
        for table in (content if isinstance(content, list) else [content])
    ]
    parts = [
        "\n".join([head, *(f"{key} = {_value(value)}" for key, value in table.items())])
        for head, table in tables
    ]
    return "\n\n".join(parts) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
