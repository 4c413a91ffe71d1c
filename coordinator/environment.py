"""The environment of a worker process: an allow-list, the provider's own additions, and its key.

Nothing else of the daemon's environment reaches an agent. GitHub's token never does, whatever the
configuration asks for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from adw_modules.agents import Dialect
from adw_modules.config import ProviderSettings

# What programs need to run at all. No credentials, no proxies with passwords, no session buses.
ALLOWED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR")
NEVER = frozenset(
    {"GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"}
)
# What systemd tells a service about itself: a worker that had it could speak for the daemon.
OF_THE_SERVICE = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM"}
)
MARKER = "COORDINATOR_RUN_MARKER"
CONFIG_DIR = "agent-config"  # in the run directory: the agent's own configuration, sessions and logs


def has_own_config(provider: ProviderSettings, environ: Mapping[str, str], dialect: Dialect) -> bool:
    """Whether a run gets a configuration directory of its own.

    Only with an API key: without one the agent needs the login that lives in the user's own folder.
    """
    return bool(dialect.config_dir_env and provider.api_key_env and provider.api_key_env in environ)


def worker_environment(
    provider: ProviderSettings,
    environ: Mapping[str, str],
    dialect: Dialect,
    *,
    marker: str,
    run_dir: Path,
    attempt: int,
    never: frozenset[str] = NEVER,
    project_hooks: bool = False,
) -> dict[str, str]:
    """The complete environment for one run.

    A dialect that keeps its sessions in a configuration folder gets one of its own inside the run
    directory, so that exact usage can be read after a kill (`has_own_config`).
    """
    names = [*ALLOWED, *provider.pass_env, *([provider.api_key_env] if provider.api_key_env else [])]
    env = {name: environ[name] for name in names if name in environ}
    if "PATH" in env:
        env["PATH"] = without_own_programs(env["PATH"])
    env |= {**dialect.env, **dialect.project_hooks.env(allowed=project_hooks)}
    if dialect.config_dir_env and has_own_config(provider, environ, dialect):
        env[dialect.config_dir_env] = str(run_dir / CONFIG_DIR)
    env |= provider.env
    for name in never | OF_THE_SERVICE:
        env.pop(name, None)
    return env | {MARKER: marker, "COORDINATOR_ATTEMPT": str(attempt)}


@lru_cache(maxsize=8)  # each folder of PATH is looked up, and PATH is the same for every run
def without_own_programs(path: str) -> str:
    """PATH without the programs of our own virtual environment, if we run in one: an agent's `pip install`
    is not to change the daemon, nor its `pytest` to run with the daemon's packages."""
    if sys.prefix == sys.base_prefix:
        return path
    own = os.path.realpath(Path(sys.prefix) / "bin")
    return os.pathsep.join(each for each in path.split(os.pathsep) if os.path.realpath(each or ".") != own)
