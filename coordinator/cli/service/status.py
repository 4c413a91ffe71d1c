"""`coordinator service status`: what systemd says of the service, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption
from coordinator.cli.service import manager
from coordinator.cli.service.options import UnitDirOption
from coordinator.cli.service.plan import make_plan, to_fill_in, to_find
from coordinator.cli.service.system import shown
from coordinator.systemd import unitfile

if TYPE_CHECKING:
    from coordinator.cli.service.plan import Plan

SHOWN = (
    "ActiveState", "UnitFileState", "MainPID", "StatusText", "Result", "ExecMainCode", "ExecMainStatus",
    "NRestarts", "WatchdogUSec",
)  # fmt: skip


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    unit_dir: UnitDirOption = unitfile.UNIT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Say whether the service runs, and what is wrong with it; exit code 1 if it does not run."""
    from coordinator.cli.common import print_json

    found = _look(config, unit_dir)
    if as_json:
        print_json(found)
    else:
        for name, text in _lines(found):
            typer.echo(f"  {name:<12} {text}")
    if found["active"] not in {"active", "reloading"}:
        raise typer.Exit(1)


def _look(config: Path, unit_dir: Path) -> dict[str, Any]:
    unit = unit_dir / unitfile.NAME
    text = unit.read_text() if unit.exists() else None
    found = _facts(shown(unitfile.NAME, *SHOWN)) | {
        "unit": str(unit) if text is not None else None,
        "exposure": _exposure(unit) if text is not None else None,
    }
    return found if text is None else found | _compared(text, config, unit_dir)


def _facts(said: dict[str, str]) -> dict[str, Any]:
    """What systemd says of the service."""
    return {
        "unit": None,
        "is_ours": None,
        "active": said.get("ActiveState", "unknown"),
        "enabled": said.get("UnitFileState") == "enabled",
        "pid": int(said.get("MainPID", "0")) or None,
        "status": said.get("StatusText") or None,
        "result": said.get("Result") or None,
        "last_exit": _last_exit(said),
        "restarts": int(said.get("NRestarts", "0") or 0),
        "watchdog_seconds": _seconds(said.get("WatchdogUSec", "")),
        "exposure": None,
        "problems": [],
    }


def _compared(text: str, config: Path, unit_dir: Path) -> dict[str, Any]:
    """The unit beside what this program and this configuration would make of it."""
    import os

    from adw_modules.errors import ConfigError

    user, env_file = unitfile.account_and_environment(text)
    try:
        plan = make_plan(config, user=user, unit_dir=unit_dir, env_file=env_file)
    except ConfigError as error:
        return {"problems": list(error.problems)}
    # The PATH in the environment file decides what is let in: without it nothing can be compared.
    is_ours = plan.unit_text == text if os.access(env_file, os.R_OK) else None
    return {"is_ours": is_ours, "problems": _problems(plan)}


def _problems(plan: Plan) -> list[str]:
    place = plan.place
    problems = _environment_problems(plan, place.env_file)
    if place.runtime_dir is not None:
        problems += manager.problems(place.runtime_dir, place.user)
    return problems


def _environment_problems(plan: Plan, env_file: Path) -> list[str]:
    import os

    if not env_file.exists():
        return [f"{env_file} is not there: `coordinator service install` writes one"]
    problems = []
    if env_file.stat().st_mode & 0o077:
        problems.append(f"{env_file} can be read by others: chmod 0600 {env_file}")
    # Without its PATH and its variables nothing is known about either.
    return [*problems, *to_find(plan), *to_fill_in(plan)] if os.access(env_file, os.R_OK) else problems


def _last_exit(said: dict[str, str]) -> str | None:
    """How the last daemon ended: `exit 78`, `signal 9`; None while the first one runs."""
    kind = {"1": "exit", "2": "signal", "3": "signal"}.get(said.get("ExecMainCode", ""))
    return f"{kind} {said.get('ExecMainStatus')}" if kind else None


def _seconds(text: str) -> int | None:
    """`1min`, `45s` or `1min 30s` as systemctl shows it."""
    import re

    units = {"s": 1, "min": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(min|s|h)", text)) or None


def _exposure(unit: Path) -> float | None:
    """By `systemd-analyze security`, 0 to 10; None where that is not installed."""
    import re
    import subprocess

    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    found = re.search(r"exposure level for \S+: (\d+\.\d)", said)
    return float(found[1]) if found else None


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    if found["unit"] is None:
        return [("unit", "none is installed: `coordinator service install` writes one")]
    ours = {True: "as this program would write it", False: "differs from what `service install` would write"}
    lines = [
        ("unit", f"{found['unit']}, {ours.get(found['is_ours'], 'cannot be compared')}"),
        (
            "state",
            f"{found['active']}, {'starts' if found['enabled'] else 'does not start'} with the machine",
        ),
        ("daemon", _daemon_line(found)),
        ("watchdog", f"{found['watchdog_seconds']} s" if found["watchdog_seconds"] else "none"),
        ("exposure", "unknown" if found["exposure"] is None else f"{found['exposure']} of 10"),
    ]
    return lines + [("problem", text) for text in found["problems"]]


def _daemon_line(found: dict[str, Any]) -> str:
    running = f"process {found['pid']}" if found["pid"] else "none"
    parts = [
        running,
        found["status"],
        _counted(found["restarts"], "restart") if found["restarts"] else None,
    ]
    if found["last_exit"]:
        is_said = found["result"] in {None, "success", "exit-code", "signal"}  # the exit says as much
        parts.append(f"last end: {found['last_exit']}" + ("" if is_said else f" ({found['result']})"))
    return "; ".join(part for part in parts if part)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
