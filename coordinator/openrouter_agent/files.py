"""The tools for files: read, list, write, edit.

Owns how much of a file a model gets to see, and what an edit is. Which files there are for it is decided
in `confined.py`. Every function returns the text for the model or raises ToolError.
"""

from __future__ import annotations

import fnmatch
import os
import time
from collections.abc import Iterator

from coordinator.openrouter_agent.confined import ToolError, Workspace

READ_BYTES = 60_000  # of one answer
READ_LINES = 2_000
LINE_CHARACTERS = 2_000
SCAN_BYTES = 64 << 20  # so far into a file a model may look
EDIT_BYTES = 8 << 20
LISTED = 1_000
LIST_DEPTH = 30
LIST_SECONDS = 5.0
# Not listed or searched unless asked for by name: nobody wrote what is in there.
SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", ".mypy_cache", ".tox"})


def read_file(workspace: Workspace, path: str, *, offset: int = 1, limit: int = READ_LINES) -> str:
    """Lines `offset` (the first is 1) to `offset + limit - 1`, with a note when there is more."""
    with workspace.reading(path) as fd, open(fd, "rb", closefd=False) as file:
        size = os.fstat(fd).st_size
        if b"\0" in file.read(8192):
            raise ToolError(f"{path} is a binary file of {size} bytes.")
        file.seek(0)
        skipped = 0
        for _ in range(max(1, offset) - 1):
            line = file.readline(SCAN_BYTES)
            skipped += len(line)
            if not line:
                raise ToolError(f"{path} has fewer than {offset} lines.")
            if skipped >= SCAN_BYTES:
                raise ToolError(f"{path} is too large to read that far: use search or run_command.")
        return _page(file, path, max(1, offset), max(1, min(limit, READ_LINES)))


def _page(file: object, path: str, offset: int, limit: int) -> str:
    lines: list[str] = []
    taken = 0
    rest = False
    for line in _lines(file):
        if len(lines) == limit or taken > READ_BYTES:
            rest = True
            break
        taken += len(line)
        lines.append(line)
    text = "".join(lines)
    if not text:
        return f"[{path} is empty]" if offset == 1 else f"[{path} ends before line {offset}]"
    if rest:
        text += f"\n[{path} goes on: read it with offset={offset + len(lines)}]"
    return text


def _lines(file: object) -> Iterator[str]:
    """Lines as text; what is over the width of a line is left out with a note."""
    read = file.readline  # type: ignore[attr-defined]
    while raw := read(LINE_CHARACTERS * 4):
        text = raw.decode("utf-8", "replace")
        left_out = 0
        while not raw.endswith(b"\n") and left_out < SCAN_BYTES and (raw := read(1 << 16)):
            left_out += len(raw)
        if len(text) > LINE_CHARACTERS or left_out:
            left_out += max(0, len(text) - LINE_CHARACTERS)
            text = f"{text[:LINE_CHARACTERS]} [{left_out} more in this line]\n"
        yield text


def list_files(workspace: Workspace, path: str = ".", *, glob: str | None = None, most: int = LISTED) -> str:
    """Everything below `path`, one a line, directories with a slash; links are shown and not followed."""
    until = time.monotonic() + LIST_SECONDS
    found: list[str] = []
    with workspace.directory(path) as (fd, shown):
        for entry in tree(fd, "" if shown == "." else shown, until):
            if glob is None or matches(entry, glob):
                found.append(entry)
            if len(found) > most:
                break
    if not found:
        return "[nothing there]" if glob is None else f"[nothing matches {glob}]"
    note = [f"[more than {most}: ask for a part]"] if len(found) > most else []
    if time.monotonic() > until:
        note.append("[not all: it took too long]")
    return "\n".join([*found[:most], *note])


def tree(fd: int, prefix: str, until: float, depth: int = 0) -> Iterator[str]:
    """The paths below an open directory in order, until `until` (monotonic). Directories end with a slash."""
    try:
        entries = sorted(os.scandir(fd), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if time.monotonic() > until:
            return
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield name + ("@" if entry.is_symlink() else "")
            continue
        if entry.name in SKIPPED:
            continue
        yield name + "/"
        if depth < LIST_DEPTH:
            yield from _below(fd, entry.name, name, until, depth)


def _below(fd: int, name: str, shown: str, until: float, depth: int) -> Iterator[str]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(name, flags, dir_fd=fd)
    except OSError:
        return
    try:
        yield from tree(inner, shown, until, depth + 1)
    finally:
        os.close(inner)


def matches(path: str, glob: str) -> bool:
    """Whether the file's name, or its whole path if the pattern has a slash, is like the pattern."""
    path = path.rstrip("/@")
    if "/" not in glob:
        return fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], glob)
    return fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(path, glob.replace("**/", ""))


def write_file(workspace: Workspace, path: str, content: str) -> str:
    data = content.encode("utf-8", "replace")
    if len(data) > EDIT_BYTES:
        raise ToolError(f"the content is over {EDIT_BYTES} bytes.")
    shown, is_new = workspace.replace(path, data)
    return f"{'Created' if is_new else 'Replaced'} {shown} ({len(data)} bytes)."


def edit_file(
    workspace: Workspace, path: str, old_text: str, new_text: str, *, replace_all: bool = False
) -> str:
    """Replace a passage that is there exactly once, or every one with `replace_all`."""
    if not old_text:
        raise ToolError("old_text is empty: use write_file for a new file.")
    if old_text == new_text:
        raise ToolError("old_text and new_text are the same.")
    content = _whole(workspace, path)
    old, new = old_text.encode("utf-8", "replace"), new_text.encode("utf-8", "replace")
    if old not in content and b"\r\n" in content:  # the model writes plain line ends
        old, new = (text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for text in (old, new))
    count = content.count(old)
    if count == 0:
        raise ToolError(f"old_text is not in {path}: read the file and copy the passage exactly.")
    if count > 1 and not replace_all:
        raise ToolError(f"old_text is {count} times in {path}: take more lines around it, or replace_all.")
    if len(content) + count * (len(new) - len(old)) > EDIT_BYTES:
        raise ToolError(f"{path} would grow over {EDIT_BYTES} bytes.")
    shown, _ = workspace.replace(path, content.replace(old, new))
    return f"Edited {shown} ({count} {'place' if count == 1 else 'places'})."


def _whole(workspace: Workspace, path: str) -> bytes:
    with workspace.reading(path) as fd, open(fd, "rb", closefd=False) as file:
        content = file.read(EDIT_BYTES + 1)
    if len(content) > EDIT_BYTES:
        raise ToolError(f"{path} is over {EDIT_BYTES} bytes: use run_command.")
    if b"\0" in content[:8192]:
        raise ToolError(f"{path} is a binary file.")
    return content
