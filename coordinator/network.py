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


def log_refusals(refusals: tuple[Refusal, ...]) -> None:
    """A line for each of the most frequent."""
    for each in refusals[:MOST_REFUSALS_SHOWN]:
        host, _, port = each.target.rpartition(":")
        log.warning("network refused", host=host, port=port, reason=each.reason, count=each.count)
    if len(refusals) > MOST_REFUSALS_SHOWN:
        log.warning("network refused", more=len(refusals) - MOST_REFUSALS_SHOWN)
