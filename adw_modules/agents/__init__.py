"""The agent programs Coordinator can read, one module per dialect.

Owns which dialect has which parser and which environment it always gets. Commands belong to providers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.generic import GenericStream
from adw_modules.agents.stream import StreamParser
from adw_modules.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one kind of agent program is read, and what every run of it is given."""

    parser: Callable[[], StreamParser]
    env: Mapping[str, str]  # defaults; a provider's own `env` wins
    config_dir_env: str | None  # the variable that gives a run its own configuration directory


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "claude": Dialect(
            parser=ClaudeStream,
            # No self-update and no calls home: a worker talks to its provider and to nobody else.
            env=MappingProxyType(
                {
                    "DISABLE_AUTOUPDATER": "1",
                    "DISABLE_TELEMETRY": "1",
                    "DISABLE_ERROR_REPORTING": "1",
                    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                }
            ),
            config_dir_env="CLAUDE_CONFIG_DIR",
        ),
        "generic": Dialect(parser=GenericStream, env=MappingProxyType({}), config_dir_env=None),
    }
)


def parser_for(agent: str) -> StreamParser:
    """A fresh parser for one run of `agent` ("claude", "generic"). Raises ConfigError for any other word."""
    dialect = DIALECTS.get(agent)
    if dialect is None:
        known = ", ".join(sorted(DIALECTS))
        raise ConfigError(f"there is no agent dialect {agent!r}: use one of {known}")
    return dialect.parser()
