"""What a worker sees of the machine, as the arguments of bubblewrap.

Owns the view: which folders are there, which of them can be written, what is never there. Pure but for
looking at which files exist. Must not start anything; whether bubblewrap works here is `bubblewrap.py`'s to
say.

The rule that makes the order of mounts plain: of two mounts the deeper one wins, and of two at the same place
the later one. So a folder may be shown, a part of it hidden, and a part of that shown again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from coordinator import boxed

_INNER = Path(boxed.__file__).resolve()
# The shim's polite signals go to the process group. bubblewrap would die of them and take the agent along.
IGNORED = "--ignore-signal=HUP,INT,TERM"
HEARD = "--default-signal"  # all of them, as a program expects to find them
UNPRIVILEGED_ID = 1000  # who root is in there: some agents refuse to work for user 0
NO_HOME = Path("/home/agent")
MB = 1_000_000

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
# fmt: off
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "fonts",
    "gai.conf", "host.conf", "hosts", "inputrc", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk",
    "java-25-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "magic",
    "mime.types", "nsswitch.conf", "os-release", "pki", "protocols", "redhat-release", "resolv.conf",
    "services", "ssl", "terminfo", "timezone",
)
# fmt: on
_SECRET_PARTS = ("/etc/ssl/private", "/etc/pki/tls/private", "/usr/local/etc/ssl/private")
_OWN_MOUNTS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  private ones, empty at each start


class How(StrEnum):
    """What stands at a place of the sandbox."""

    READ_ONLY = "--ro-bind"
    READ_WRITE = "--bind"
    EMPTY = "--tmpfs"  # to write in, gone with the run
    HIDDEN = "hidden"
    LINK = "--symlink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One place of the sandbox. `source` is the path on the host, for a link where it leads to."""

    target: Path
    how: How
    source: Path | None = None

    def options(self, temporary_bytes: int) -> tuple[str, ...]:
        """As bubblewrap takes it."""
        target = str(self.target)
        match self.how:
            case How.EMPTY:
                return ("--perms", "1777", "--size", str(temporary_bytes), "--tmpfs", target)
            case How.HIDDEN if self.target.is_dir():
                return ("--perms", "0555", "--size", "65536", "--tmpfs", target)
            case How.HIDDEN:
                return ("--ro-bind", os.devnull, target)
            case _:
                return (self.how.value, str(self.source or self.target), target)


def read_only(path: Path) -> Mount:
    return Mount(target=path, how=How.READ_ONLY)


def read_write(path: Path) -> Mount:
    return Mount(target=path, how=How.READ_WRITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """How a sandbox reaches the network. The default is the host's own."""

    is_hosts: bool = True  # else a network of its own, with nothing but its loopback
    env: Mapping[str, str] = field(default_factory=dict)  # what tells programs of a way out
    around: tuple[str, ...] = ()  # a program outside that limits and starts it, and is its way out
    wiring: tuple[str, ...] = ()  # what bubblewrap has to be told for that

    @property
    def options(self) -> tuple[str, ...]:
        return () if self.is_hosts else ("--unshare-net", *self.wiring)


OPEN = NetworkPlan()
NONE = NetworkPlan(is_hosts=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may take, where no control group says so."""

    processes: int = 4096  # with threads; not counted for root, whom Linux never counts
    file_bytes: int = 10_000 * MB
    open_files: int = 65_536
    temporary_bytes: int = 4_000 * MB  # for each of the home, /tmp, /var/tmp and /dev/shm
    core_bytes: int = 0

    @property
    def arguments(self) -> tuple[str, ...]:
        """As `boxed.py` takes them."""
        names = ("processes", "file_bytes", "open_files", "core_bytes")
        return tuple(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What this host's bubblewrap is and can."""

    bwrap: Path
    env: Path = Path("/usr/bin/env")
    version: str = ""
    source: str = ""  # in words: where it was found
    bars_user_namespaces: bool = True
    names_host: bool = True  # else the host's name is seen; a hardened unit may bar the call for another
    accounts: tuple[Path, Path] | None = None  # stand-ins for /etc/passwd and /etc/group


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one run sees beyond the system. Every path is absolute and without links."""

    cwd: Path
    home: Path
    mounts: tuple[Mount, ...] = ()
    hidden: tuple[Path, ...] = ()  # files and folders of the daemon, also where a parent is shown


def command(
    argv: Sequence[str], *, box: Box, view: View, limits: Limits, network: NetworkPlan = OPEN
) -> tuple[str, ...]:
    """`argv`, to be started in a sandbox."""
    mounts = _in_order([*_system(box), *_private(view), *view.mounts, *_shown_of_ours()])
    return (
        *((*network.around, *limits.arguments, "--") if network.around else ()),
        *(str(box.env), IGNORED, str(box.bwrap)),
        *_namespaces(box, network),
        *("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"),
        *(
            option
            for each in _with_hidden(mounts, view.hidden)
            for option in each.options(limits.temporary_bytes)
        ),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(view.cwd), "--"),
        *_inside(argv, box, limits, network),
    )


def _inside(argv: Sequence[str], box: Box, limits: Limits, network: NetworkPlan) -> tuple[str, ...]:
    """The agent, and before it what has to be done in there.

    Where a program is around the sandbox that one limits it, and only the signals are left, for which no
    Python has to be started. `env` would take a program with = in its name for a variable.
    """
    if network.around and "=" not in argv[0]:
        return (str(box.env), HEARD, *argv)
    scope = ("scope",) if network.is_hosts else ()
    return (*_python(), str(_INNER), *limits.arguments, *scope, "--", *argv)


def environment(env: Mapping[str, str], home: Path, network: NetworkPlan = OPEN) -> dict[str, str]:
    """The worker's environment, with the places that a sandbox has instead of the host's."""
    own = {"HOME": str(home), **({"TMPDIR": "/tmp"} if "TMPDIR" in env else {})}  # noqa: S108  a private one
    return {**env, **own, **network.env}


def home_of(env: Mapping[str, str]) -> Path:
    """Where the empty home is laid: where the real one is, so that paths in it stay true."""
    home = Path(env.get("HOME") or NO_HOME)
    is_usable = home.is_absolute() and len(home.parts) > 1 and not _is_below_any(home, _system_paths())
    return home if is_usable else NO_HOME


# --- the parts of the command ------------------------------------------------------------------------------


def _namespaces(box: Box, network: NetworkPlan) -> tuple[str, ...]:
    return (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *network.options,
        # A name that can be looked up: some programs ask for the address of their own host.
        *(("--hostname", "localhost") if box.names_host else ()),
        *("--die-with-parent", "--cap-drop", "ALL"),
        *(("--disable-userns",) if box.bars_user_namespaces else ()),
        *_identity(),
    )


@lru_cache(maxsize=1)
def _identity() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    return ("--uid", str(UNPRIVILEGED_ID), "--gid", str(UNPRIVILEGED_ID))


def _python() -> tuple[str, ...]:
    return (os.path.realpath(sys.executable), "-I", "-S")


@lru_cache(maxsize=4)
def _system(box: Box) -> tuple[Mount, ...]:
    """The toolchain and what of /etc programs cannot do without. Looked at once: it does not change."""
    found = [_as_it_is(path) for path in _system_paths()]
    for name in _ETC:
        path = Path("/etc") / name
        if path.exists():
            found.append(Mount(target=path, how=How.READ_ONLY, source=path.resolve()))
    for name, stand_in in zip(("passwd", "group"), box.accounts or (), strict=False):
        found.append(Mount(target=Path("/etc", name), how=How.READ_ONLY, source=stand_in))
    return tuple(found)


@lru_cache(maxsize=1)
def _system_paths() -> tuple[Path, ...]:
    return tuple(path for path in map(Path, _SYSTEM) if path.exists())


def _as_it_is(path: Path) -> Mount:
    """/bin is a link to usr/bin on most hosts, and then on the inside too."""
    if path.is_symlink():
        return Mount(target=path, how=How.LINK, source=path.readlink())
    return read_only(path)


def _private(view: View) -> Iterable[Mount]:
    yield from (Mount(target=Path(path), how=How.EMPTY) for path in _OWN_MOUNTS)
    yield Mount(target=view.home, how=How.EMPTY)


@lru_cache(maxsize=1)
def _shown_of_ours() -> tuple[Mount, ...]:
    """The interpreter of `boxed.py`, where it is not the system's, and that one file."""
    interpreter = Path(sys.base_prefix).resolve()
    shown = () if _is_below_any(interpreter, _system_paths()) else (read_only(interpreter),)
    return (*shown, read_only(_INNER))


def _in_order(mounts: Iterable[Mount]) -> list[Mount]:
    by_target = {mount.target: mount for mount in mounts}
    return sorted(by_target.values(), key=lambda mount: len(mount.target.parts))


def _with_hidden(mounts: list[Mount], hidden: Iterable[Path]) -> list[Mount]:
    """Add what hides our files where a mount would show them; what is not shown needs no hiding."""
    shown = [each.target for each in mounts if each.how in {How.READ_ONLY, How.READ_WRITE}]
    shown_by_name = set(shown)
    covers = [
        Mount(target=path, how=How.HIDDEN)
        for path in dict.fromkeys([*map(Path, _SECRET_PARTS), *hidden])
        if any(parent in shown_by_name for parent in (path, *path.parents)) and os.path.lexists(path)
    ]
    return _in_order([*mounts, *covers])


def _is_below_any(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


# --- where programs are ------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def installation(program: Path, home: Path) -> tuple[Mount, ...]:
    """What a program needs to be shown to run, where that is outside the system's folders.

    Each link on the way to it, and where it leads the folder that was installed: the `node_modules` it is in,
    its virtual environment with the interpreter below, or else the folder that it stands in.
    """
    found: dict[Path, None] = {}
    for step in _links(program):
        found[_installed_root(step, home)] = None
        found.update(dict.fromkeys(_interpreters(step)))
    return tuple(mount for path in found if _is_to_be_shown(path) for mount in _with_link(path))


@lru_cache(maxsize=64)
def on_path(path: str, home: Path) -> tuple[Mount, ...]:
    """The folders of PATH outside the system's, so that an agent finds the programs that the daemon finds."""
    folders = [Path(each) for each in path.split(os.pathsep) if each.startswith("/")]
    roots = dict.fromkeys(_installed_root(each / "program", home) for each in folders if each.is_dir())
    return tuple(mount for each in roots if _is_to_be_shown(each) for mount in _with_link(each))


def _with_link(path: Path) -> tuple[Mount, ...]:
    """A folder that is a link stays one: programs look beside the place that they really are in."""
    if not path.is_symlink() or not path.is_dir():
        return (read_only(path),)
    real = path.resolve()
    return Mount(target=path, how=How.LINK, source=real), read_only(real)


def _is_to_be_shown(path: Path) -> bool:
    return path.exists() and not _is_below_any(path, _system_paths())


def _links(program: Path) -> list[Path]:
    steps = [program]
    while steps[-1].is_symlink() and len(steps) < 20:
        steps.append(Path(os.path.normpath(steps[-1].parent / steps[-1].readlink())))
    resolved = program.resolve()
    return steps if steps[-1] == resolved else [*steps, resolved]


def _installed_root(program: Path, home: Path) -> Path:
    """Never a home, nor anything above one: keys and log-ins are kept there."""
    parts = program.parts
    if "node_modules" in parts:
        return Path(*parts[: parts.index("node_modules") + 1])
    folder = program.parent
    if home.is_relative_to(folder):
        return program
    if folder.name not in {"bin", "sbin", "shims"}:
        return folder
    root = folder.parent
    is_private = home.is_relative_to(root) or root in {home / ".local", home / ".config", home / ".cache"}
    return folder if is_private or len(root.parts) < 3 else root


def _interpreters(program: Path) -> Iterable[Path]:
    """What a virtual environment stands on: the installation of the Python that it was made with."""
    configuration = program.parent.parent / "pyvenv.cfg"
    try:
        lines = configuration.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip().startswith("/"):
            yield Path(value.strip()).resolve().parent
