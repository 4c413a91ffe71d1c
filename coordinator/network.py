"""The network of one run's sandbox: from the settings to how it is started, and what it was refused.

What may be reached is decided in `adw_modules/security/network.py`, and by `egress.py` for each connection.
Starts nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from adw_modules.config import ProviderSettings, SandboxSettings
from adw_modules.security.network import (
    LONGEST_LOG,
    MOST_REFUSALS_SHOWN,
    NetworkMode,
    Refusal,
    environment_of,
    parse_refusals,
    places_of,
    policy_of,
    upstream_of,
)
from coordinator import ahead
from coordinator.logs import get_logger
from coordinator.sandbox import NONE, OPEN, NetworkPlan
from coordinator.shim import open_regular

POLICY_FILE, REFUSALS_FILE = "network.json", "refused.jsonl"  # in the run directory

log = get_logger()


def plan(
    settings: SandboxSettings,
    provider: ProviderSettings,
    *,
    env: Mapping[str, str],
    environ: Mapping[str, str],
    run_dir: Path,
) -> tuple[NetworkPlan, dict[str, str]]:
    """How the sandbox reaches the network, and the files that its run directory needs for it.

    `env` is the worker's environment, `environ` the daemon's.
    """
    match NetworkMode(settings.network):
        case NetworkMode.OPEN:
            return OPEN, {}
        case NetworkMode.NONE:
            return NONE, {}
        case NetworkMode.ALLOW_LIST:
            pass
    places = places_of(provider, env, hosts=settings.allow_hosts, registries=settings.registries)
    policy = policy_of(places, upstream=upstream_of(environ))
    return behind_proxy(run_dir, settings.registries), {POLICY_FILE: json.dumps(policy)}


def behind_proxy(run_dir: Path, registries: tuple[str, ...] = ()) -> NetworkPlan:
    """A sandbox whose only way out is the proxy that starts it, by the policy in the run directory."""
    return NetworkPlan(
        is_hosts=False,
        env=environment_of(registries),
        around=(*_program(), str(run_dir / POLICY_FILE), str(run_dir / REFUSALS_FILE)),
        wiring=ahead.BWRAP_OPTIONS,
    )


@lru_cache(maxsize=1)
def _program() -> tuple[str, ...]:
    """`ahead.py` and `egress.py`, as modules: a script would be compiled at every start."""
    packages = str(Path(ahead.__file__).resolve().parents[1])
    start = (
        f"import sys; sys.path.insert(0, {packages!r}); from coordinator import ahead; "
        "begun = ahead.start(sys.argv[1:]); from coordinator import egress; egress.enter(*begun)"
    )
    return (os.path.realpath(sys.executable), "-I", "-S", "-c", start)


def refusals_of(run_dir: Path) -> tuple[Refusal, ...]:
    """What the run was refused, the most frequent first; nothing where it had no proxy."""
    try:
        with os.fdopen(open_regular(str(run_dir / REFUSALS_FILE)), "rb") as file:
            return parse_refusals(file.read(LONGEST_LOG))
    except OSError:
        return ()


class RefusalLog:
    """Says in the daemon's log what one live run is refused: each place once and soon, the total at its end.

    At most MOST_REFUSALS_SHOWN places: the agent chooses how many it asks for. A look costs no more than one
    question for the size of a file, where there is nothing new.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._size = 0
        self._said: set[tuple[str, str]] = set()
        self._is_closed = False

    def look(self) -> None:
        """Say what is new."""
        size = _size_of(self._run_dir / REFUSALS_FILE)
        if size == self._size or len(self._said) >= MOST_REFUSALS_SHOWN:
            return
        self._size = size
        self._say(refusals_of(self._run_dir))

    def close(self) -> None:
        """The run has ended: what nobody has looked at yet, and how much it was in all. Once."""
        if self._is_closed:
            return
        self._is_closed = True
        found = refusals_of(self._run_dir)
        self._say(found)
        if found:
            log.warning("network refused in all", places=len(found), count=sum(each.count for each in found))

    def _say(self, found: tuple[Refusal, ...]) -> None:
        for each in found:
            kind = (each.reason, each.target)
            if kind in self._said or len(self._said) >= MOST_REFUSALS_SHOWN:
                continue
            self._said.add(kind)
            host, _, port = each.target.rpartition(":")
            log.warning("network refused", host=host, port=port, reason=each.reason, count=each.count)


def _size_of(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
