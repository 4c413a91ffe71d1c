"""Reading and writing in directories where an agent may have put anything, links above all."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adw_modules.errors import WorkspaceError

_NOTE_LINES = 20
_NOTE_BYTES = 4096
_MOST_TEXT = 1 << 20  # bytes of what is called a small file


@contextmanager
def plain_os_errors(doing: str) -> Iterator[None]:
    """Translate what the file system says (disk full, permission) into our one error."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise WorkspaceError(f"{doing} failed: {error.strerror or error}{place}") from error


def inside(root: Path, relative: Path) -> Path:
    """`root/relative` if no part of it below root is a symbolic link; root itself is resolved already."""
    path = root
    for part in relative.parts:
        path = path / part
        if part == ".." or path.is_symlink():
            raise WorkspaceError(f"{path} is a link; Coordinator does not leave {root} by links.")
    return path


def is_real_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, and never through a link that somebody put there."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def restore(path: Path, text: str) -> None:
    """Put the file back if anybody changed it; one small read if not."""
    try:
        if not path.is_symlink() and path.read_text() == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        path.parent.mkdir(exist_ok=True)
    write_text(path, text)


def read_text(path: Path) -> str:
    """The stripped text of a small file; empty when it is missing or not a plain file."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:  # an agent may have made it as long as it likes
        return file.read(_MOST_TEXT).decode(errors="replace").strip()


def remove_links(folder: Path, *, but: Callable[[str], bool]) -> None:
    """Take away what is neither a file nor a folder, at any depth; `but`: names in `folder` to leave alone.

    git writes through links: what it logs, stages or is told to commit would land wherever one leads.
    """
    for entry in below(folder, but=but):
        if not entry.is_file(follow_symlinks=False):
            Path(entry.path).unlink()


def below(folder: Path, *, but: Callable[[str], bool] = lambda _: False) -> Iterator[os.DirEntry[str]]:
    """Everything below that is no folder, links to folders included; `but`: names in `folder` to pass over.

    `os.walk` and `shutil.rmtree` give up where an agent has made folders a thousand levels deep.
    """
    todo = [str(folder)]
    while todo:
        place = todo.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if place == str(folder) and but(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    yield entry


def remove_tree(folder: Path) -> None:
    """Remove what an agent had: however deep, and with folders that it made read-only."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError) as error:
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(folder)], capture_output=True, check=False)
        if os.path.lexists(folder):
            raise WorkspaceError(f"{folder} cannot be removed: {error}") from None


def read_note(path: Path) -> str | None:
    """The first lines of a note; None without a plain file there (a link could show us any file)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        text = file.read(_NOTE_BYTES).decode(errors="replace")
    return "\n".join(text.splitlines()[:_NOTE_LINES]).strip()
