"""`coordinator service install | uninstall | status`: the daemon as a service of systemd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings
    from coordinator.unitfile import Place

UserOption = Annotated[str, typer.Option(help="The account that the service runs as.")]
UnitDirOption = Annotated[Path, typer.Option(help="Where the unit file is.")]
EnvFileOption = Annotated[Path, typer.Option(help="The file with the token, the keys and PATH.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")]

SHOWN = (
    "ActiveState", "UnitFileState", "MainPID", "StatusText", "Result", "ExecMainCode", "ExecMainStatus",
    "NRestarts", "WatchdogUSec",
)  # fmt: skip
USER, UNIT_DIR, ENV_FILE = "coordinator", Path("/etc/systemd/system"), Path("/etc/coordinator.env")


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Install, remove or look at the systemd service.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in (install, uninstall, status):
        group.command()(verb)
    app.add_typer(group, name="service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an installation comes to."""

    loaded: LoadedSettings
    place: Place
    unit: Path
    unit_text: str
    env_text: str  # of a first environment file
    secrets: tuple[str, ...]
    missing: tuple[str, ...]  # programs that are not on the service's PATH


# -- install ---------------------------------------------------------------------------------------


def install(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    user: UserOption = USER,
    unit_dir: UnitDirOption = UNIT_DIR,
    env_file: EnvFileOption = ENV_FILE,
    enable: Annotated[bool, typer.Option("--enable", help="Start the service with the machine.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Start it now, or restart it if it runs.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Write unit and environment file for this program and this configuration. Safe to repeat.

    An environment file that is there is left as it is.
    """
    from coordinator import unitfile

    plan = _plan(config, user=user, unit_dir=unit_dir, env_file=env_file)
    if dry_run:
        _show_plan(plan)
        return
    _need_root("install")
    _need_systemd()
    account = _account(user)
    _check_readable(plan, account)
    _make_writable(plan, account)
    _write_environment(plan)
    is_new = _write_unit(plan)
    _systemctl("daemon-reload")
    if enable:
        _systemctl("enable", "--quiet", unitfile.NAME)
    for program in plan.missing:
        typer.echo(
            f"{program} is not on the service's PATH: add its folder to PATH= in {env_file}, install again."
        )
    problems = _problems(plan)
    for problem in problems:
        typer.echo(f"To do in {env_file}: {problem}")
    if now and not problems:
        _systemctl("restart" if is_new else "start", unitfile.NAME)
        typer.echo(
            "The service runs. `coordinator service status` and `journalctl -u coordinator -f` show it."
        )
    elif now:
        typer.echo("Then: systemctl start coordinator")
        raise typer.Exit(1)


def _plan(config: Path, *, user: str, unit_dir: Path, env_file: Path) -> Plan:
    """What to install for this program and this configuration. Only looks. Raises ConfigError."""
    import os
    import sys

    import coordinator
    from coordinator import unitfile
    from coordinator.cli.common import settings_source

    loaded = settings_source(config).current
    programs = unitfile.find_programs(["git", *_program_names(loaded)], _path_to_search(env_file))
    found = [each for each in programs.values() if each is not None]
    checkout = Path(coordinator.__file__).resolve().parents[1]
    needed = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve(), checkout]
    place = unitfile.Place(
        program=Path(sys.prefix) / "bin" / "coordinator",
        config=loaded.path,
        root=loaded.project_root,
        documentation=checkout / "docs" / "operations.md",
        env_file=Path(os.path.abspath(env_file)),  # noqa: PTH100  links stay links
        user=user,
        writable=_writable(loaded),
        exposed=unitfile.exposed([*needed, loaded.project_root, loaded.path], found),
    )
    secrets = _secret_names(loaded)
    return Plan(
        loaded=loaded,
        place=place,
        unit=unit_dir / unitfile.NAME,
        unit_text=unitfile.unit_text(place),
        env_text=unitfile.environment_text(secrets, unitfile.path_entries(found)),
        secrets=secrets,
        missing=tuple(name for name, where in programs.items() if where is None),
    )


def _program_names(loaded: LoadedSettings) -> list[str]:
    """The programs of the enabled providers; one that is given by a path stands in the project."""
    import os

    templates = [each.command_template for each in loaded.settings.providers.values() if each.enabled]
    names = [template[0] for template in templates if template]
    return [str(loaded.project_root / name) if os.sep in name else name for name in names]


def _secret_names(loaded: LoadedSettings) -> tuple[str, ...]:
    settings = loaded.settings
    names = [settings.github.token_env]
    for provider in settings.providers.values():
        if provider.enabled:
            names += [*([provider.api_key_env] if provider.api_key_env else []), *provider.pass_env]
    return tuple(dict.fromkeys(name for name in names if name != "PATH"))


def _path_to_search(env_file: Path) -> str:
    """The PATH of the environment file once there is one; until then that of whoever installs."""
    import os
    import pwd

    from coordinator import unitfile

    recorded = _environment(env_file).get("PATH")
    if recorded:
        return recorded
    caller = os.environ.get("SUDO_USER")
    try:
        home = Path(pwd.getpwnam(caller).pw_dir) if caller else Path.home()
    except KeyError:
        home = None
    return unitfile.search_path(os.environ, home)


def _environment(env_file: Path) -> dict[str, str]:
    """Empty when there is no such file, or none for our eyes."""
    from coordinator import unitfile

    try:
        return unitfile.read_environment(env_file.read_text())
    except OSError:
        return {}


def _writable(loaded: LoadedSettings) -> tuple[Path, ...]:
    from coordinator import unitfile

    places = [unitfile.HOME, loaded.state_dir, loaded.log_dir, loaded.worktree_dir]
    return tuple(path for path in unitfile.outermost(places) if path != unitfile.HOME)


def _problems(plan: Plan) -> list[str]:
    """What keeps a daemon with this environment file from starting."""
    from adw_modules.config import check_environment, check_runnable

    settings, source = plan.loaded.settings, str(plan.loaded.path)
    environ = {name: value for name, value in _environment(plan.place.env_file).items() if value}
    return check_runnable(settings, source=source) + check_environment(settings, environ, source=source)


def _show_plan(plan: Plan) -> None:
    typer.echo(f"# {plan.unit}\n{plan.unit_text}")
    if plan.place.env_file.exists():
        typer.echo(f"# {plan.place.env_file} is there and would be left as it is.")
    else:
        typer.echo(f"# {plan.place.env_file}, mode 0600\n{plan.env_text}")
    for path in plan.place.writable:
        typer.echo(f"# {path} would belong to {plan.place.user}.")


def _need_root(verb: str) -> None:
    import os

    from adw_modules.errors import CoordinatorError

    if os.geteuid() != 0:
        raise CoordinatorError(
            f"`coordinator service {verb}` needs root: say sudo before it"
            + (", or --dry-run behind it to see what it would do." if verb == "install" else ".")
        )


def _need_systemd() -> None:
    from adw_modules.errors import CoordinatorError

    if not Path("/run/systemd/system").is_dir():
        raise CoordinatorError("No systemd runs on this machine; start the daemon with `coordinator run`.")


def _account(user: str) -> Any:
    """The account, made if there is none."""
    import pwd

    from adw_modules.errors import CoordinatorError
    from coordinator import unitfile

    try:
        return pwd.getpwnam(user)
    except KeyError:
        home = ("--home-dir", str(unitfile.HOME))
        _command("useradd", "--system", "--user-group", *home, "--shell", "/usr/sbin/nologin", user)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CoordinatorError(
            f"useradd has not made the user {user!r}; make one and install again."
        ) from None
    typer.echo(f"Made the user {user}.")
    return account


def _check_readable(plan: Plan, account: Any) -> None:
    """Refuse what would fail only inside, with a sentence of systemd's."""
    import os

    from adw_modules.errors import CoordinatorError
    from coordinator import unitfile

    gids = os.getgrouplist(account.pw_name, account.pw_gid)
    for path in (plan.place.program, plan.loaded.path):
        if not unitfile.may_read(path, uid=account.pw_uid, gids=gids, exposed=plan.place.exposed):
            raise CoordinatorError(
                f"{account.pw_name} may not read {path}: give it that right (chmod o+r; o+x for each "
                "folder above), or move the checkout to /opt/coordinator."
            )


def _make_writable(plan: Plan, account: Any) -> None:
    import os

    from adw_modules.errors import CoordinatorError

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


def _systemctl(*arguments: str) -> str:
    return _command("systemctl", *arguments)


def _command(*argv: str) -> str:
    """What it printed; its own words as CoordinatorError when it fails."""
    import subprocess

    from adw_modules.errors import CoordinatorError

    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise CoordinatorError(f"There is no {argv[0]} on this machine.") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise CoordinatorError(f"`{' '.join(argv)}` failed: {said or done.returncode}")
    return done.stdout


# -- uninstall -------------------------------------------------------------------------------------


def uninstall(
    config: ConfigOption = DEFAULT_CONFIG,
    unit_dir: UnitDirOption = UNIT_DIR,
    env_file: EnvFileOption = ENV_FILE,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the environment file and all state as well.")
    ] = False,
) -> None:
    """Stop the service and remove its unit. Live runs go on; state, environment file and account stay."""
    from coordinator import unitfile

    _need_root("uninstall")
    unit = unit_dir / unitfile.NAME
    states = _states(config) if purge else []
    if unit.exists():
        _need_systemd()
        _systemctl("disable", "--now", "--quiet", unitfile.NAME)
        unit.unlink()
        _systemctl("daemon-reload")
        typer.echo(f"Stopped the service and removed {unit}.")
    else:
        typer.echo(f"There is no {unit}.")
    if purge:
        _purge([env_file, *states])
    else:
        typer.echo(f"{env_file}, the state and the account are left; --purge removes the first two.")


def _states(config: Path) -> list[Path]:
    """Everything that --purge removes. CoordinatorError while a run is alive in it."""
    from adw_modules.errors import CoordinatorError
    from coordinator import unitfile
    from coordinator.cli.common import settings_source
    from coordinator.launcher import is_alive

    loaded = settings_source(config).current
    live = [path.name for path in sorted((loaded.state_dir / "runs").glob("*")) if is_alive(path)]
    if live:
        raise CoordinatorError(
            f"Nothing was removed: {', '.join(live)} still run. "
            "End them first: `coordinator stop --kill-runs`."
        )
    return [unitfile.HOME, *_writable(loaded)]


def _purge(paths: list[Path]) -> None:
    import shutil

    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        typer.echo(f"Removed {path}.")


# -- status ----------------------------------------------------------------------------------------


def status(
    config: ConfigOption = DEFAULT_CONFIG,
    unit_dir: UnitDirOption = UNIT_DIR,
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
    import os

    from adw_modules.errors import ConfigError
    from coordinator import unitfile

    unit = unit_dir / unitfile.NAME
    text = unit.read_text() if unit.exists() else None
    shown = _shown(unitfile.NAME)
    found: dict[str, Any] = {
        "unit": str(unit) if text is not None else None,
        "is_ours": None,
        "active": shown.get("ActiveState", "unknown"),
        "enabled": shown.get("UnitFileState") == "enabled",
        "pid": int(shown.get("MainPID", "0")) or None,
        "status": shown.get("StatusText") or None,
        "result": shown.get("Result") or None,
        "last_exit": _last_exit(shown),
        "restarts": int(shown.get("NRestarts", "0") or 0),
        "watchdog_seconds": _seconds(shown.get("WatchdogUSec", "")),
        "exposure": _exposure(unit) if text is not None else None,
        "problems": [],
    }
    if text is None:
        return found
    user, env_file = _written(text, "User") or USER, Path(_written(text, "EnvironmentFile") or ENV_FILE)
    try:
        plan = _plan(config, user=user, unit_dir=unit_dir, env_file=env_file)
    except ConfigError as error:
        return found | {"problems": list(error.problems)}
    # The PATH in the environment file decides what is let in: without it nothing can be compared.
    is_ours = plan.unit_text == text if os.access(env_file, os.R_OK) else None
    return found | {"is_ours": is_ours, "problems": list(_service_problems(plan))}


def _service_problems(plan: Plan) -> list[str]:
    import os

    env_file = plan.place.env_file
    problems = [f"{program} is not on the PATH of {env_file}" for program in plan.missing]
    if not env_file.exists():
        return [*problems, f"{env_file} is not there: `coordinator service install` writes one"]
    if env_file.stat().st_mode & 0o077:
        problems.append(f"{env_file} can be read by others: chmod 0600 {env_file}")
    return problems + (_problems(plan) if os.access(env_file, os.R_OK) else [])


def _shown(unit: str) -> dict[str, str]:
    from adw_modules.errors import CoordinatorError

    try:
        lines = _systemctl("show", unit, "--property", ",".join(SHOWN)).splitlines()
    except CoordinatorError:  # no systemd runs, or none that talks to us
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _last_exit(shown: dict[str, str]) -> str | None:
    """How the last daemon ended: `exit 78`, `signal 9`; None while the first one runs."""
    kind = {"1": "exit", "2": "signal", "3": "signal"}.get(shown.get("ExecMainCode", ""))
    return f"{kind} {shown.get('ExecMainStatus')}" if kind else None


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


def _written(text: str, key: str) -> str | None:
    import re

    found = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else None


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
        f"{found['restarts']} restarts" if found["restarts"] else None,
    ]
    if found["last_exit"]:
        parts.append(f"last end: {found['last_exit']} ({found['result']})")
    return "; ".join(part for part in parts if part)
