"""What a dialect is: all that Coordinator knows about one kind of agent program.

Owns the type only. Each program's own facts are in the module named after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adw_modules.agents.stream import StreamParser


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
    stop_signal: str = "SIGINT"  # what lets it end in order; to its whole process group
    reports_charge: bool = False  # its reported cost is what was charged, not its own estimate
