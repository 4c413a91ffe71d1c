"""The daemon's copy of the last configuration it could use, for commands while the file itself is broken.

The daemon keeps the copy in its state directory; a command that cannot read the file finds that directory
as well as it can. Nobody else reads the copy: a daemon never starts on it.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from adw_modules.config import CoordinatorSettings, parse_settings
from adw_modules.errors import ConfigError
from coordinator.clock import utc_now
from coordinator.logs import get_logger
from coordinator.settings import (
    LoadedSettings,
    UnusableFileError,
    find_project_root,
    load,
    read_regular_file,
)

log = get_logger()

_NAME = "last-good.toml"
# One line, wherever it stands: what is around it may be anything.
_STATE_DIR = re.compile(
    r"""^[ \t]*(?:coordinator[ \t]*\.[ \t]*)?state_dir[ \t]*=[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*')""",
    re.MULTILINE,
)


def keep(state_dir: Path, text: str) -> None:
    """Replace the copy in one step; only its owner may read it. A full disk costs the copy, nothing else."""
    target = state_dir / _NAME
    temporary = target.with_suffix(".new")
    try:
        temporary.unlink(missing_ok=True)  # a leftover could have another mode
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        temporary.replace(target)
    except OSError as error:
        log.warning("the copy of the configuration could not be written", error=str(error))


def find(path: Path) -> LoadedSettings | None:
    """What the daemon for the configuration file `path` runs on, or last ran on; None without a copy."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  as the daemon sees it: links are not followed
    state_dir = find_project_root(path) / _state_dir_of(_text_of(path))
    try:
        text = (state_dir / _NAME).read_text(encoding="utf-8")
        settings = parse_settings(text, source=str(state_dir / _NAME))
    except (OSError, ValueError, ConfigError):
        return None
    return load(settings, path, utc_now(), state_dir=state_dir)


def _text_of(path: Path) -> str:
    try:
        return read_regular_file(path).decode(errors="replace")
    except (OSError, UnusableFileError):
        return ""


def _state_dir_of(text: str) -> str:
    """The state directory that a broken text still names, else the one it would be without a word of it."""
    found = _STATE_DIR.search(text)
    if found is not None:
        try:
            return str(tomllib.loads(f"it = {found[1]}")["it"])
        except tomllib.TOMLDecodeError:
            pass
    return CoordinatorSettings().state_dir
