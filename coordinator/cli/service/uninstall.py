"""`coordinator service uninstall`: the service goes, and what it made only when that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption
from coordinator.cli.service import manager
from coordinator.cli.service.options import EnvFileOption, UnitDirOption
from coordinator.cli.service.plan import writable
from coordinator.cli.service.system import need_root, need_systemd, systemctl
from coordinator.systemd import unitfile


def uninstall(
    config: ConfigOption = DEFAULT_CONFIG,
    unit_dir: UnitDirOption = unitfile.UNIT_DIR,
    env_file: EnvFileOption = unitfile.ENV_FILE,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the environment file and all state as well.")
    ] = False,
) -> None:
    """Stop the service and remove its unit. Live runs go on; state, environment file and account stay."""
    need_root("uninstall")
    unit = unit_dir / unitfile.NAME
    user = (unitfile.written(unit.read_text(), "User") if unit.exists() else None) or unitfile.USER
    states = _states(config) if purge else []
    _remove_unit(unit)
    if purge:
        _remove([env_file, *states])
    if manager.lingers(user):
        _end_lingering(user, is_purged=purge)
    if not purge:
        typer.echo(f"{env_file}, the state and the account are left; --purge removes the first two.")


def _remove_unit(unit: Path) -> None:
    if not unit.exists():
        typer.echo(f"There is no {unit}.")
        return
    need_systemd()
    systemctl("disable", "--now", "--quiet", unitfile.NAME)
    unit.unlink()
    systemctl("daemon-reload")
    typer.echo(f"Stopped the service and removed {unit}.")


def _states(config: Path) -> list[Path]:
    """Everything that --purge removes. CoordinatorError while a run is alive in it."""
    from coordinator.cli.common import settings_source
    from coordinator.launcher import is_alive

    loaded = settings_source(config).current
    live = [path.name for path in sorted((loaded.state_dir / "runs").glob("*")) if is_alive(path)]
    if live:
        raise CoordinatorError(
            f"Nothing was removed: {', '.join(live)} still run. "
            "End them first: `coordinator stop --kill-runs`."
        )
    return [unitfile.HOME, *writable(loaded)]


def _remove(paths: list[Path]) -> None:
    import shutil

    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        typer.echo(f"Removed {path}.")


def _end_lingering(user: str, *, is_purged: bool) -> None:
    """Only with the rest: runs may be live, and end with it. An account that was not made for the service
    may linger for reasons of its own."""
    import pwd

    try:
        is_made_for_it = pwd.getpwnam(user).pw_dir == str(unitfile.HOME)
    except KeyError:
        return
    if is_purged and is_made_for_it:
        manager.withdraw(user)
    else:
        typer.echo(f"{user} still lingers. When no run of it is live: loginctl disable-linger {user}")
