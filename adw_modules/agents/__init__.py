"""The agent programs Coordinator can read, one module per dialect.

Owns which dialects there are, and which one a command speaks. What each is like is in its own module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from adw_modules.agents import (
    aider,
    claude,
    codex,
    copilot,
    gemini,
    generic,
    goose,
    opencode,
    openrouter_cli,
    qwen,
)
from adw_modules.agents.dialect import Dialect, SideFile
from adw_modules.agents.stream import StreamParser, StreamSummary
from adw_modules.errors import ConfigError

__all__ = ["DIALECTS", "Dialect", "SideFile", "dialect_of_program", "parser_for", "with_exit_code"]

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        module.DIALECT.name: module.DIALECT
        for module in (
            *(claude, codex, gemini, qwen, opencode, copilot, aider, goose, openrouter_cli),
            generic,
        )
    }
)


def dialect_of_program(program: str) -> str:
    """The dialect that a command beginning with `program` most likely speaks.

    A program nobody here knows is taken for one that prints what Claude prints, as wrappers do.
    """
    name = program.rsplit("/", 1)[-1]
    return next((each.name for each in DIALECTS.values() if name in each.programs), claude.DIALECT.name)


def parser_for(agent: str) -> StreamParser:
    """A fresh parser for one run of `agent`, a name in DIALECTS. Raises ConfigError for any other word."""
    dialect = DIALECTS.get(agent)
    if dialect is None:
        known = ", ".join(sorted(DIALECTS))
        raise ConfigError(f"there is no agent dialect {agent!r}: use one of {known}")
    return dialect.parser()


def with_exit_code(agent: str, summary: StreamSummary, exit_code: int | None) -> StreamSummary:
    """The summary of a run of `agent`, with what only its exit code says; None: a signal ended it."""
    dialect = DIALECTS.get(agent)
    return summary if dialect is None or exit_code is None else dialect.read_exit(summary, exit_code)
