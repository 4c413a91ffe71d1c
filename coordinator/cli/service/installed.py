"""The installed service as other commands see it: its account, and what it finds in its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.cli.service.plan import environment
from coordinator.systemd import unitfile

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The service of one configuration."""

    user: str
    uid: int
    gid: int
    env_file: Path
    environ: dict[str, str] | None  # what the daemon has beside the usual; None: not for our eyes


def find(loaded: LoadedSettings, *, pid: int | None, unit_dir: Path = unitfile.UNIT_DIR) -> Installed | None:
    """The service that runs this configuration, if one is installed. `pid`: its daemon, if it runs."""
    import pwd

    try:
        text = (unit_dir / unitfile.NAME).read_text()
        user, env_file = unitfile.account_and_environment(text)
        account = pwd.getpwnam(user)
    except (OSError, KeyError):
        return None
    if not (unitfile.written(text, "ExecStart") or "").endswith(f" --config {loaded.path}"):
        return None
    environ = environment(env_file) or _environment_of(pid)
    return Installed(
        user=user, uid=account.pw_uid, gid=account.pw_gid, env_file=env_file, environ=environ or None
    )


def _environment_of(pid: int | None) -> dict[str, str]:
    """A process's own; empty without the right to read it. The account may, where the file is root's."""
    try:
        words = Path(f"/proc/{pid}/environ").read_text(errors="surrogateescape").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)
