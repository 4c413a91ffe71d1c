"""The account's own systemd, which `launcher = "systemd"` asks for its runs: kept alive without a log-in.

Ends no run: a manager that is stopped takes its units along, so it is let go only when no run is live.
"""

from __future__ import annotations

from pathlib import Path

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.service.system import command, shown, systemctl

_LINGERING = Path("/var/lib/systemd/linger")  # a file for each account; logind's own record


def provide(runtime_dir: Path, user: str) -> None:
    """Have the manager there, now and after each start of the machine. CoordinatorError when it is not."""
    unit = unit_of(runtime_dir)
    try:
        if not lingers(user):
            command("loginctl", "enable-linger", user)
            typer.echo(f"Enabled lingering for {user}: its systemd is there without a log-in, for the runs.")
    except CoordinatorError as error:
        typer.echo(f"{error}. {unit} is started with the service instead; a log-out of {user} would end it.")
    systemctl("start", unit)


def withdraw(user: str) -> None:
    """Let the manager go. Its units end with it."""
    try:
        command("loginctl", "disable-linger", user)
    except CoordinatorError as error:
        typer.echo(f"{error}. Lingering of {user} is left as it is.")
    else:
        typer.echo(f"Disabled lingering for {user}.")


def lingers(user: str) -> bool:
    return (_LINGERING / user).exists()


def problems(runtime_dir: Path, user: str) -> list[str]:
    """What keeps the account's runs from being started, or would end them."""
    found = []
    unit = unit_of(runtime_dir)
    if shown(unit, "ActiveState").get("ActiveState") != "active":
        found.append(f'{unit} does not run, and launcher = "systemd" needs it: systemctl start {unit}')
    if not lingers(user):
        found.append(f"a log-out of {user} would end its runs: loginctl enable-linger {user}")
    return found


def unit_of(runtime_dir: Path) -> str:
    return f"user@{runtime_dir.name}.service"
