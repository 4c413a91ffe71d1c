"""The configuration file on disk: where it is, when it changed, and which settings are in force.

Owns reading and watching the file and the folders that follow from its place. Must not judge a value
(`adw_modules/config.py` does) and must not act on a change.

The file is watched by asking for its state five times a second, not by inotify. What changes a
configuration in real life is an editor that renames a new file over the old one, a symbolic link that is
switched (also one in the middle of the path), a file that is deleted and comes back, and a bind mount from
outside; an inotify watch loses sight of the file in each of these, on the inode it was set on. Two `stat`
calls see all of them and cost some twenty microseconds.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from adw_modules.config import (
    Settings,
    check_environment,
    check_runnable,
    parse_settings,
    pin_restart_keys,
    settings_diff,
)
from adw_modules.errors import ConfigError
from coordinator.clock import utc_now

MAX_BYTES = 1024 * 1024
# A file that was written to this short a time ago may be half-written: it is looked at again the next time.
# Longer than the clock tick of any file system that matters, so that no later write can have the same time.
SETTLE = timedelta(milliseconds=120)


class Signature(NamedTuple):
    """What tells one state of the file from another without reading it; None where there is nothing."""

    link: tuple[int, ...] | None  # the path itself
    target: tuple[int, ...] | None  # what it leads to, through all links


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings in force, and what follows from where their file is."""

    settings: Settings
    version: str  # names the effective values: equal versions mean equal settings
    path: Path
    project_root: Path
    state_dir: Path
    loaded_at: datetime

    @property
    def database_url(self) -> str:
        """Where the store is; SQLite in the state directory unless the file says otherwise."""
        return self.settings.coordinator.database_url or f"sqlite:///{self.state_dir / 'coordinator.db'}"

    @property
    def log_dir(self) -> Path:
        configured = self.settings.coordinator.log_dir
        return self.project_root / configured if configured else self.state_dir / "logs"

    @property
    def prompts_dir(self) -> Path:
        """The operator's prompt templates; may not exist, then the packaged ones are used."""
        return self.path.parent / self.settings.coordinator.prompts_dir

    @property
    def worktree_dir(self) -> Path:
        return self.state_dir / self.settings.worktree.base_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """The file was read again and is in force. `changes` is empty when only comments or spelling differ."""

    loaded: LoadedSettings
    changes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadFailed:
    """The file cannot be used; the last good settings stay in force."""

    problems: tuple[str, ...]
    failed_at: datetime


class SettingsSource:
    """One configuration file, and the last good settings read from it.

    With `environ` the settings are those of a daemon: a file whose token variable is not set, or that names
    no repository, is refused. Without it only the file itself is judged.

    Raises ConfigError if the file cannot be used at the start; afterwards never.
    """

    def __init__(
        self, path: Path | str, environ: Mapping[str, str] | None = None, *, now: datetime | None = None
    ) -> None:
        self._source = str(path)  # as the operator wrote it, for the sentences
        self._path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow the links we watch
        self._environ = environ
        now = now or utc_now()
        signature = _signature(self._path)
        self._seen = self._read()
        self.good_text = self._decoded(self._seen)  # what `current` was read from
        self.current = load(self._parse(self.good_text), self._path, now)
        self.error: str | None = None
        # A file that may still be written to is read once more; the same content will be no news.
        self._signature = None if _is_fresh(signature, now) else signature
        self._was_missing = False

    def check(self, now: datetime, *, force: bool = False) -> Reloaded | ReloadFailed | None:
        """Take over the file if it changed; None when there is nothing new.

        Cheap enough for five calls a second. `force` reads it in any case and always says what came of it.
        """
        signature = _signature(self._path)
        if not force and not self._is_settled(signature, now):
            return None
        self._signature = signature  # taken before reading: a write in between shows at the next check
        content = self._read()
        if content == self._seen and not force:
            return None
        self._seen = content
        try:
            text = self._decoded(content)
            settings = self._parse(text)
        except ConfigError as error:
            self.error = str(error)
            return ReloadFailed(problems=tuple(error.problems), failed_at=now)
        self.good_text = text
        return self._take_over(settings, now)

    def _is_settled(self, signature: Signature, now: datetime) -> bool:
        """Whether the file differs from what was read last, and is probably complete."""
        was_missing, self._was_missing = self._was_missing, signature.target is None
        if signature == self._signature:
            return False
        if signature.target is None:
            return was_missing  # some editors take the file away for a moment
        return not _is_fresh(signature, now)

    def _take_over(self, read: Settings, now: datetime) -> Reloaded:
        running = self.current.settings
        changes = settings_diff(running, read)
        self.current = load(pin_restart_keys(running, read), self._path, now)
        self.error = None
        return Reloaded(loaded=self.current, changes=tuple(changes), warnings=tuple(read.warnings()))

    def _decoded(self, content: bytes | str) -> str:
        if isinstance(content, str):
            raise ConfigError(content)
        if not content.strip():  # what a file looks like between being opened for writing and being written
            raise ConfigError(f"{self._source} is empty; adws/config.example.toml shows every key.")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"{self._source}, line {line}: this is not UTF-8 text; save it as UTF-8."
            ) from error

    def _parse(self, text: str) -> Settings:
        settings = parse_settings(text, source=self._source)
        if self._environ is not None:
            missing = check_runnable(settings, source=self._source) + check_environment(
                settings, self._environ, source=self._source
            )
            if missing:
                raise ConfigError(missing)
        return settings

    def _read(self) -> bytes | str:
        """The content of the file, or the sentence that says why there is none."""
        try:
            return read_regular_file(self._path)
        except UnusableFileError as error:
            return f"{self._source} {error}"
        except FileNotFoundError:
            return f"{self._source} does not exist; `coordinator init` writes a first one."
        except OSError as error:
            return f"{self._source} cannot be read: {error.strerror}."


class UnusableFileError(Exception):
    """The file is there, but not a configuration file; the rest of the sentence."""


def load(settings: Settings, path: Path, now: datetime, *, state_dir: Path | None = None) -> LoadedSettings:
    """Settings with what follows from the (absolute) path of their file."""
    project_root = find_project_root(path)
    return LoadedSettings(
        settings=settings,
        version=hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12],
        path=path,
        project_root=project_root,
        state_dir=state_dir or project_root / settings.coordinator.state_dir,
        loaded_at=now,
    )


def find_project_root(path: Path) -> Path:
    """The folder that relative paths of the configuration start from: the one around `adws/`, if it is there.

    Of the path as it was given: a link to a file elsewhere does not move the project there.
    """
    folder = path.parent
    return folder.parent if folder.name == "adws" else folder


def _signature(path: Path) -> Signature:
    return Signature(link=_state(os.lstat, path), target=_state(os.stat, path))


def _state(look: Callable[[Path], os.stat_result], path: Path) -> tuple[int, ...] | None:
    try:
        found = look(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _is_fresh(signature: Signature, now: datetime) -> bool:
    """Whether the file was touched so short a time ago that its writer may not be done.

    Judged by the time of the last change of any kind, which, other than that of the content, nobody can
    set. A time in the future says nothing about the writer: such a file counts as complete.
    """
    if signature.target is None:
        return False
    changed_at = datetime.fromtimestamp(signature.target[1] / 1e9, UTC)
    return timedelta(0) <= now - changed_at < SETTLE


def read_regular_file(path: Path) -> bytes:
    """The content of a file of a plausible size. Raises UnusableFileError or OSError; never waits."""
    # O_NONBLOCK: opening a pipe must not hold up the loop until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "is a folder; name the file in it" if stat.S_ISDIR(mode) else "is not a regular file"
        raise UnusableFileError(f"{what}.")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnusableFileError("is larger than 1 MiB; that cannot be the configuration.")
    return content
