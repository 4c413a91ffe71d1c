"""`coordinator service install`: account, folders, environment file, unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption
from coordinator.cli.service import manager
from coordinator.cli.service.options import EnvFileOption, UnitDirOption
from coordinator.cli.service.plan import make_plan, to_fill_in, to_find, unreadable
from coordinator.cli.service.system import command, need_root, need_systemd, systemctl
from coordinator.systemd import unitfile

if TYPE_CHECKING:
    from coordinator.cli.service.plan import Plan


def install(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[str, typer.Option(help="The account that the service runs as.")] = unitfile.USER,
    unit_dir: UnitDirOption = unitfile.UNIT_DIR,
    env_file: EnvFileOption = unitfile.ENV_FILE,
    enable: Annotated[bool, typer.Option("--enable", help="Start the service with the machine.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Start it now, or restart it if it runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")] = False,
) -> None:
    """Write unit and environment file for this program and this configuration. Safe to repeat.

    An environment file that is there is left as it is.
    """
    plan = make_plan(config, user=user, unit_dir=unit_dir, env_file=env_file)
    if dry_run:
        _show(plan)
        return
    need_root("install")
    need_systemd()
    account = _account(user)
    plan = make_plan(config, user=user, unit_dir=unit_dir, env_file=env_file)  # now with its number
    is_new = _carry_out(plan, account)
    if enable:
        systemctl("enable", "--quiet", unitfile.NAME)
    is_ready = _say_what_is_missing(plan)
    if now and is_ready:
        _start(is_new=is_new)
        return
    typer.echo(f"{'When that is done' if not is_ready else 'Then'}: systemctl start coordinator")
    if now:
        raise typer.Exit(1)


def _carry_out(plan: Plan, account: Any) -> bool:
    """Whether the unit differs from what was there."""
    _make_writable(plan, account)
    refused = unreadable(plan)
    if refused is not None:
        raise CoordinatorError(
            f"{account.pw_name} may not read {refused}: give it that right (chmod o+r; o+x for each "
            "folder above), or have checkout and Python outside of all homes, /opt/coordinator for instance."
        )
    _write_environment(plan)
    is_new = _write_unit(plan)
    systemctl("daemon-reload")
    if plan.place.runtime_dir is not None:
        manager.provide(plan.place.runtime_dir, plan.place.user)
    return is_new


def _say_what_is_missing(plan: Plan) -> bool:
    """Whether a daemon could start; one that lacks an agent program can."""
    missing = to_fill_in(plan)
    for problem in [*to_find(plan), *missing]:
        typer.echo(f"To do: {problem}")
    return not missing


def _start(*, is_new: bool) -> None:
    systemctl("restart" if is_new else "start", unitfile.NAME)
    typer.echo("The service runs. `coordinator service status` and `journalctl -u coordinator -f` show it.")


def _show(plan: Plan) -> None:
    place = plan.place
    typer.echo(f"# {plan.unit}\n{plan.unit_text}")
    if place.env_file.exists():
        typer.echo(f"# {place.env_file} is there and would be left as it is.")
    else:
        typer.echo(f"# {place.env_file}, mode 0600\n{plan.env_text}")
    for path in place.writable:
        typer.echo(f"# {path} would belong to {place.user}.")
    if place.runtime_dir is not None and not manager.lingers(place.user):
        typer.echo(f"# Lingering would be enabled for {place.user} (loginctl enable-linger).")


def _account(user: str) -> Any:
    """The account, made if there is none."""
    import pwd

    try:
        return pwd.getpwnam(user)
    except KeyError:
        home = ("--home-dir", str(unitfile.HOME))
        command("useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin", user)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CoordinatorError(
            f"useradd has not made the user {user!r}; make one and install again."
        ) from None
    typer.echo(f"Made the user {user}.")
    return account


def _make_writable(plan: Plan, account: Any) -> None:
    import os

    for path in plan.place.writable:
        if not path.exists():
            path.mkdir(parents=True, mode=0o700)
            os.chown(path, account.pw_uid, account.pw_gid)
            typer.echo(f"Made {path} for {account.pw_name}.")
        elif path.stat().st_uid != account.pw_uid:
            raise CoordinatorError(
                f"{path} does not belong to {account.pw_name}, from earlier runs perhaps: "
                f"`chown -R {account.pw_name}: {path}` while no daemon runs, or set coordinator.state_dir to "
                "/var/lib/coordinator for a fresh start; then install again."
            )


def _write_environment(plan: Plan) -> None:
    import os

    target = plan.place.env_file
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        typer.echo(f"{target} is there and was left as it is.")
        return
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(plan.env_text)
    typer.echo(f"Wrote {target} (mode 0600): fill in {', '.join(plan.secrets)}.")


def _write_unit(plan: Plan) -> bool:
    """Whether it differs from what was there."""
    old = plan.unit.read_text() if plan.unit.exists() else None
    if old == plan.unit_text:
        typer.echo(f"{plan.unit} is up to date.")
        return False
    temporary = plan.unit.with_suffix(".new")
    temporary.write_text(plan.unit_text)
    temporary.chmod(0o644)
    temporary.replace(plan.unit)
    typer.echo(f"Wrote {plan.unit}.")
    return True
