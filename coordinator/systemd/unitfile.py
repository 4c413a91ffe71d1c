"""The unit and the environment file of the systemd service, as text, and what has to be seen inside it.

Owns where the parts of the service are and what is written about them. Looks at paths; must not
write or start anything.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adw_modules.errors import CoordinatorError

NAME = "coordinator.service"
UNIT_DIR = Path("/etc/systemd/system")
ENV_FILE = Path("/etc/coordinator.env")
HOME = Path("/var/lib/coordinator")  # what `StateDirectory=coordinator` means
USER = "coordinator"
RUNTIME_DIRS = Path("/run/user")  # below it a folder for each account's own systemd

# Inside the service these are empty, but for what is let in by name.
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
# Where agent programs are put under a home; sudo has none of it on its PATH.
_HOME_PATH = (
    ".local/bin", "bin", ".npm-global/bin", ".bun/bin", ".volta/bin", ".nvm/versions/node/*/bin",
)  # fmt: skip
_PLAIN = re.compile(r"/[\w./@:+,=~-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the parts of one installation are. All paths are absolute."""

    program: Path = Path("/opt/coordinator/.venv/bin/coordinator")
    config: Path = Path("/opt/coordinator/adws/config.toml")
    root: Path = Path("/opt/coordinator")  # where the daemon stands
    documentation: Path = Path("/opt/coordinator/docs/operations.md")
    env_file: Path = ENV_FILE
    user: str = USER
    writable: tuple[Path, ...] = ()  # beside HOME
    exposed: tuple[Path, ...] = ()  # of what is HIDDEN, what the service may read
    runtime_dir: Path | None = None  # of the account's own systemd, where runs are units of that


def unit_text(place: Place) -> str:
    """The unit file. CoordinatorError for a path that systemd would not read as it is."""
    from importlib import resources

    values = {
        "documentation": _plain(place.documentation),
        "user": place.user,
        "root": _plain(place.root),
        "env_file": _plain(place.env_file),
        "program": _plain(place.program),
        "config": _plain(place.config),
        "home": str(HOME),
        "writable": _writable_lines(place.writable),
        "homes": _homes_lines(place),
        "manager": _manager_lines(place.runtime_dir),
        "runtime": _runtime_lines(place.runtime_dir),
    }
    template = (resources.files("coordinator.systemd") / NAME).read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _writable_lines(paths: Sequence[Path]) -> str:
    hidden = [path for path in paths if is_hidden(path)]
    plain = [path for path in paths if not is_hidden(path)]
    return _paths_line("ReadWritePaths", plain) + _paths_line("BindPaths", hidden)


def _homes_lines(place: Place) -> str:
    """Closed homes; empty ones where something has to be let in: nothing can be put into a closed one."""
    is_open = place.runtime_dir is not None or any(map(is_hidden, (*place.exposed, *place.writable)))
    return f"ProtectHome={'tmpfs' if is_open else 'yes'}\n" + _paths_line("BindReadOnlyPaths", place.exposed)


def _manager_lines(runtime_dir: Path | None) -> str:
    if runtime_dir is None:
        return ""
    unit = f"user@{runtime_dir.name}.service"
    return f"# The account's own systemd: runs are units of it.\nWants={unit}\nAfter={unit}\n"


def _runtime_lines(runtime_dir: Path | None) -> str:
    """Left out if it is not there: the daemon says it better than a failed mount."""
    if runtime_dir is None:
        return ""
    path = _plain(runtime_dir)
    return (
        "# The way to the account's own systemd. Nothing that stands here binds the runs it starts.\n"
        f"Environment=XDG_RUNTIME_DIR={path}\nBindPaths=-{path}\n"
    )


def _paths_line(key: str, paths: Sequence[Path]) -> str:
    return f"{key}={' '.join(map(_plain, paths))}\n" if paths else ""


def _plain(path: Path) -> str:
    if _PLAIN.fullmatch(str(path)) is None:
        raise CoordinatorError(
            f"{path} cannot stand in a unit file: move it to a path of letters, digits and . _ - only"
        )
    return str(path)


def environment_text(secrets: Sequence[str], path: Sequence[str]) -> str:
    """A first environment file: the variables that the configuration names, empty, and a PATH."""
    keys = "".join(f"{name}=\n" for name in secrets)
    return (
        "# What the service coordinator is started with. Owner root, mode 0600; one NAME=value a line.\n"
        "# A change needs `systemctl restart coordinator`; runs go on meanwhile.\n\n"
        f"# The token and keys that config.toml names. Permissions of the token: docs/github.md.\n{keys}\n"
        "# Where git and the agent programs are. After a change: `coordinator service install` once more.\n"
        f"PATH={os.pathsep.join(path)}\n"
    )


def read_environment(text: str) -> dict[str, str]:
    """The variables of an environment file, as systemd takes them from the usual lines NAME=value."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            found[name.strip()] = _unquoted(value.strip())
    return found


def written(text: str, key: str) -> str | None:
    """The value of a key in a unit file; None where it does not stand."""
    found = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def account_and_environment(text: str) -> tuple[str, Path]:
    """What a unit file names as its account and its environment file."""
    return written(text, "User") or USER, Path(written(text, "EnvironmentFile") or ENV_FILE)


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


# -- what has to be seen inside -----------------------------------------------------------------------------


def is_hidden(path: Path) -> bool:
    """Whether the service sees nothing of it unless it is let in."""
    return any(path.is_relative_to(hidden) for hidden in HIDDEN)


def search_path(environ: Mapping[str, str], home: Path | None) -> str:
    """Where an operator's programs are: PATH, and the usual places under a home, which sudo leaves out."""
    under_home = (
        [str(folder) for pattern in _HOME_PATH for folder in sorted(home.glob(pattern))] if home else []
    )
    return os.pathsep.join([environ.get("PATH", os.defpath), *under_home])


def find_programs(names: Iterable[str], path: str) -> dict[str, Path | None]:
    """Where each program is, None if nowhere on `path`. A name with a slash is its own place."""
    return {name: Path(found) if (found := shutil.which(name, path=path)) else None for name in names}


def path_entries(programs: Iterable[Path]) -> list[str]:
    """A PATH on which all of them are found: their folders, then the system's."""
    own = [str(program.parent) for program in programs]
    return list(dict.fromkeys([*(folder for folder in own if folder not in SYSTEM_PATH), *SYSTEM_PATH]))


def exposed(needed: Iterable[Path], programs: Iterable[Path]) -> tuple[Path, ...]:
    """The hidden folders that have to be let in. CoordinatorError where that is somebody's whole home."""
    folders = [each for path in needed for each in (path, Path(os.path.realpath(path)))]
    folders += [folder for program in programs for folder in _folders_of(program)]
    wanted = outermost(folder for folder in folders if is_hidden(folder))
    for folder in wanted:
        if folder in HIDDEN or folder.parent == Path("/home"):
            raise CoordinatorError(
                f"The service would have to see all of {folder}: put program and configuration into folders "
                "of their own, /opt/coordinator for instance"
            )
    return wanted


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths that are not inside another of them, sorted."""
    each = set(paths)
    return tuple(sorted(path for path in each if not any(parent in each for parent in path.parents)))


def _folders_of(program: Path) -> Iterator[Path]:
    """Where a program and what it leads to are: every link on the way, and the packages it is one of."""
    for _ in range(40):  # links may form a circle
        yield program.parent
        if not program.is_symlink():
            break
        program = Path(os.path.normpath(program.parent / program.readlink()))
    if "node_modules" in program.parts:
        yield Path(*program.parts[: program.parts.index("node_modules") + 1])


def may_read(path: Path, *, uid: int, gids: Sequence[int], exposed: Sequence[Path]) -> bool:
    """Whether that user may read the file and get there, by the modes on the way.

    Folders above what is exposed do not count: inside the service they are made anew, open to everybody.
    """
    real = Path(os.path.realpath(path))
    above = [folder for folder in real.parents if not any(folder in each.parents for each in exposed)]
    return _allows(real, 0o4, uid, gids) and all(_allows(folder, 0o1, uid, gids) for folder in above)


def _allows(path: Path, bit: int, uid: int, gids: Sequence[int]) -> bool:
    state = path.stat()
    shift = 6 if state.st_uid == uid else 3 if state.st_gid in gids else 0
    return bool(state.st_mode >> shift & bit)
