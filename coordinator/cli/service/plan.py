"""What an installation comes to, and what is wrong with one. Looks at everything and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.systemd import unitfile

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an installation comes to."""

    loaded: LoadedSettings
    place: unitfile.Place
    unit: Path
    secrets: tuple[str, ...]  # variables that the environment file has to fill
    programs: dict[str, Path | None]  # what the service starts, and where it is on its PATH

    @property
    def unit_text(self) -> str:
        return unitfile.unit_text(self.place)

    @property
    def env_text(self) -> str:
        """A first environment file."""
        return unitfile.environment_text(self.secrets, unitfile.path_entries(self.found))

    @property
    def found(self) -> list[Path]:
        return [each for each in self.programs.values() if each is not None]

    @property
    def missing(self) -> list[str]:
        return [name for name, where in self.programs.items() if where is None]

    @property
    def has_own_units(self) -> bool:
        """Whether runs are units of their own, outside the service and what is let into it."""
        return self.loaded.settings.coordinator.launcher == "systemd"


def make_plan(config: Path, *, user: str, unit_dir: Path, env_file: Path) -> Plan:
    """What to install for this program and this configuration. Raises ConfigError."""
    import os
    import sys

    import coordinator
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
        writable=writable(loaded),
        exposed=unitfile.exposed([*needed, loaded.project_root, loaded.path], found),
        runtime_dir=_runtime_dir(loaded, user),
    )
    return Plan(
        loaded=loaded,
        place=place,
        unit=unit_dir / unitfile.NAME,
        secrets=_secret_names(loaded),
        programs=programs,
    )


def _program_names(loaded: LoadedSettings) -> list[str]:
    """The programs of the enabled providers; one that is given by a path stands in the project."""
    import os

    templates = [each.command_template for each in loaded.settings.providers.values() if each.enabled]
    names = [template[0] for template in templates if template]
    return [str(loaded.project_root / name) if os.sep in name else name for name in names]


def _secret_names(loaded: LoadedSettings) -> tuple[str, ...]:
    settings, app = loaded.settings, loaded.settings.github.app
    names = [app.private_key_env or ""] if app.is_used else [settings.github.token_env]
    if settings.webhook.enabled:
        names.append(settings.webhook.secret_env)
    for provider in settings.providers.values():
        if provider.enabled:
            names += [*([provider.api_key_env] if provider.api_key_env else []), *provider.pass_env]
    return tuple(dict.fromkeys(name for name in names if name not in {"", "PATH"}))


def _path_to_search(env_file: Path) -> str:
    """The PATH of the environment file once there is one; until then that of whoever installs."""
    import os
    import pwd

    recorded = environment(env_file).get("PATH")
    if recorded:
        return recorded
    caller = os.environ.get("SUDO_USER")
    try:
        home = Path(pwd.getpwnam(caller).pw_dir) if caller else Path.home()
    except KeyError:
        home = None
    return unitfile.search_path(os.environ, home)


def _runtime_dir(loaded: LoadedSettings, user: str) -> Path | None:
    """Where the manager is that runs are asked of; None: none is, or the machine's own."""
    import pwd

    if loaded.settings.coordinator.launcher != "systemd":
        return None
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:  # the number is known only once the account is made
        return unitfile.RUNTIME_DIRS / "UID"
    return unitfile.RUNTIME_DIRS / str(uid) if uid else None


def writable(loaded: LoadedSettings) -> tuple[Path, ...]:
    """The folders beside HOME that the daemon writes to."""
    places = [unitfile.HOME, loaded.state_dir, loaded.log_dir, loaded.worktree_dir]
    return tuple(path for path in unitfile.outermost(places) if path != unitfile.HOME)


def environment(env_file: Path) -> dict[str, str]:
    """Empty when there is no such file, or none for our eyes."""
    try:
        return unitfile.read_environment(env_file.read_text())
    except OSError:
        return {}


# -- what is wrong -----------------------------------------------------------------------------------------


def to_fill_in(plan: Plan) -> list[str]:
    """What keeps a daemon with this environment file from starting."""
    from adw_modules.config import check_environment, check_runnable

    settings, source = plan.loaded.settings, str(plan.loaded.path)
    environ = {name: value for name, value in environment(plan.place.env_file).items() if value}
    return check_runnable(settings, source=source) + check_environment(settings, environ, source=source)


def to_find(plan: Plan) -> list[str]:
    """Which programs the service does not find, or may not start, and what to do."""
    return [_absent(program, plan.place.env_file) for program in plan.missing] + [
        f"{plan.place.user} may not start {program}: give it that right, or put the program into /usr/local"
        for program in plan.found
        if not _may_read(plan, program)
    ]


def _absent(program: str, env_file: Path) -> str:
    if program.startswith("/"):
        return f"there is no program {program}: correct the provider's command_template, or disable it"
    return (
        f"{program} is not on the PATH of {env_file}: add its folder there, "
        "then `coordinator service install` once more"
    )


def unreadable(plan: Plan) -> Path | None:
    """What the account needs and may not read or enter, with the modes as they are."""
    import os
    import sys

    paths = [plan.place.program, Path(os.path.realpath(sys.executable)), plan.loaded.path]
    return next((path for path in [*paths, *plan.place.writable] if not _may_read(plan, path)), None)


def _may_read(plan: Plan, path: Path) -> bool:
    """Runs that are units of their own see the machine as it is: to them nothing is let in."""
    import os
    import pwd

    try:
        account = pwd.getpwnam(plan.place.user)
    except KeyError:
        return True  # nobody has been refused yet
    gids = os.getgrouplist(account.pw_name, account.pw_gid)
    let_in = () if plan.has_own_units else (*plan.place.exposed, *plan.place.writable)
    return unitfile.may_read(path, uid=account.pw_uid, gids=gids, exposed=let_in)
