"""What a dialect is: all that Coordinator knows about one kind of agent program.

Owns the type only. Each program's own facts are in the module named after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from adw_modules.agents.stream import StreamParser, StreamSummary
from adw_modules.tasks.model import UsageSource


class SideReader(Protocol):
    """Reads what a program has written into a file beside its output, once the run has ended."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Never raises, whatever they are."""
        ...

    def complete(self, summary: StreamSummary) -> StreamSummary:
        """What is known of the run with what the file told; `summary` itself where it told nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFile:
    """Where a program writes what its output leaves out, and who reads it."""

    pattern: str  # under the run's directory; `agent-config` there is its own configuration folder
    reader: Callable[[], SideReader]
    corrects_reports: bool = True  # False: of no use where the output itself has reported the tokens

    def adds_to(self, summary: StreamSummary) -> bool:
        """Whether it can tell more than that."""
        return self.corrects_reports or summary.usage.source is not UsageSource.REPORTED


def _says_nothing(summary: StreamSummary, _exit_code: int) -> StreamSummary:
    return summary


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectHooks:
    """How a program is kept from running what a repository brings along (hooks, MCP servers, plugins).

    `off` and `on` are options and variables for the two settings of `content.project_hooks`; what a program
    leaves out by itself needs none. Options go in front of the `at`-th argument, and only where the command
    begins with the program itself. `unstoppable`: files it runs whatever it is told.
    """

    at: int = 1
    off: tuple[str, ...] = ()
    off_env: Mapping[str, str] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    on_env: Mapping[str, str] = field(default_factory=dict)
    unstoppable: tuple[str, ...] = ()

    def options(self, *, allowed: bool) -> tuple[str, ...]:
        return self.on if allowed else self.off

    def env(self, *, allowed: bool) -> Mapping[str, str]:
        return self.on_env if allowed else self.off_env


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one kind of agent program is started, given its prompt, stopped and read."""

    name: str
    parser: Callable[[], StreamParser]
    programs: tuple[str, ...] = ()  # a template that begins with one of these names speaks this dialect
    # The command without a template of the provider's own. The prompt is on standard input in any case.
    template: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # defaults; a provider's own `env` wins
    config_dir_env: str | None = None  # the variable that gives a run its own configuration directory
    side_file: SideFile | None = None
    # What that directory has to hold before the first start, by path in it. Only where a run has its own.
    config_files: Mapping[str, str] = field(default_factory=dict)
    project_hooks: ProjectHooks = ProjectHooks()
    # For programs whose exit code says what their output does not: the summary, completed by it.
    read_exit: Callable[[StreamSummary, int], StreamSummary] = _says_nothing
    stop_signal: str = "SIGINT"  # what lets it end in order; to its whole process group
    # Where it keeps its log-in, below the home: what a run without a key of its own has to be shown.
    login_paths: tuple[str, ...] = ()
    # Options that take US dollars, or tokens: it starts no further request once its run has used so much.
    max_cost: str = ""
    max_tokens: str = ""
    reports_charge: bool = False  # its reported cost is what was charged, not its own estimate
