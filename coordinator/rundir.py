"""What a run leaves in its run directory beside the shim's own files: the agent's stderr and its summary.

Which files the shim writes and what they mean is the launcher's and the shim's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from adw_modules.agents.stream import StreamSummary
from adw_modules.tasks.model import Outcome, RunOutcome
from coordinator.logs import Redactor, get_logger
from coordinator.shim import ENVIRONMENT, open_regular, read_json, write

log = get_logger()

_TAIL_BYTES = 16_384
_SMALL = 1 << 20  # bytes of output that are looked through in no time
_PIECE = 4 << 20
_WITHOUT_KEYS = frozenset({"lock", "started", "exit"})  # times and numbers of the shim's
_DEEPEST = 50  # levels of folders
_MOST_FILES = 10_000  # of one run directory: an agent may have made any number in its configuration folder


def is_small(run_dir: Path) -> bool:
    """Whether `seal` takes no time: there is little output, and no folder of the agent's own."""
    with contextlib.suppress(OSError), os.scandir(run_dir) as entries:
        return sum(_SMALL if each.is_dir() else each.stat().st_size for each in entries) < _SMALL
    return True


def seal(run_dir: Path, redactor: Redactor) -> None:
    """Take the keys out of an ended run's directory: its environment, and what its agent left of them.

    Asterisks go over them in place, so that every offset in these files stays true, and a database or an
    archive of the agent's stays what it is. Harmless to repeat, and to be killed in. Blocks.
    """
    with contextlib.suppress(OSError):
        (run_dir / ENVIRONMENT).unlink(missing_ok=True)
    try:
        for name, folder in _files_of(run_dir):
            _mask_file(name, folder, redactor)
    except FileNotFoundError:
        return  # the run failed before it had a directory, or somebody removed it
    except OSError as error:
        log.warning("the run's directory could not be looked through", error=str(error))


def _files_of(run_dir: Path) -> Iterator[tuple[str, int]]:
    """(name, descriptor of its folder) of each file. Follows no link, and ends after very many."""
    left = _MOST_FILES
    for place, folders, files, folder in os.fwalk(run_dir, follow_symlinks=False):
        depth = place.count("/") - str(run_dir).count("/")
        if depth >= _DEEPEST:  # each level is an open folder
            folders.clear()
        without_keys = _WITHOUT_KEYS if depth == 0 else ()
        yield from ((name, folder) for name in files[:left] if name not in without_keys)
        left -= len(files)
        if left <= 0:
            return


def _mask_file(name: str, folder: int, redactor: Redactor) -> None:
    """Written is only what has no other name: a hard link could lead to a key file of the operator's."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:  # a link, a socket, or gone by now: nothing of ours
        return
    with os.fdopen(fd, "rb", buffering=0) as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not found.st_size:
            return
        spans = [
            (at + start, end - start)
            for at, piece in _pieces(file, redactor)
            for start, end in redactor.spans(piece)
        ]
    if not spans:
        return
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if os.fstat(fd).st_ino == found.st_ino:
            for at, length in spans:
                os.pwrite(fd, b"*" * length, at)
    finally:
        os.close(fd)


def _pieces(file: FileIO, redactor: Redactor) -> Iterator[tuple[int, bytes]]:
    """(where it begins, bytes), each with the end of the one before: a secret may lie across."""
    at, held = 0, b""
    while chunk := file.read(_PIECE):
        piece = held + chunk
        yield at, piece
        held = piece[len(piece) - min(len(piece), redactor.longest) :]
        at += len(piece) - len(held)


def stderr_tail(run_dir: Path, lines: int = 20) -> tuple[str, ...]:
    """The last lines the agent wrote to stderr, oldest first; empty when it wrote none."""
    try:
        with os.fdopen(open_regular(str(run_dir / "stderr.log")), "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return tuple(stream.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()


def save_summary(
    run_dir: Path, summary: StreamSummary, redact: Callable[[str], str], outcome: RunOutcome | None = None
) -> None:
    """What pull request and comment quote (the agent's own words, its last lines), and the outcome."""
    said = {
        "format": 1,
        "result": redact(summary.final.result_text) if summary.final else "",
        "last_lines": [redact(line) for line in summary.last_lines],
        "outcome": outcome.outcome.value if outcome else None,
        "detail": redact(outcome.detail) if outcome else "",
    }
    try:
        write(str(run_dir / "summary.json"), json.dumps(said).encode())
    except FileNotFoundError:
        return  # the run failed before it had a directory: no agent said anything
    except OSError as error:
        log.warning("the agent's summary could not be kept", error=str(error))


def earlier_success(run_dir: Path) -> RunOutcome | None:
    """The outcome, where the run was settled as succeeded before; of use once its workspace is given up.

    The store may not know it: an older copy of the database was put back since.
    """
    said = read_json(str(run_dir / "summary.json")) or {}
    if said.get("outcome") != Outcome.SUCCEEDED:
        return None
    return RunOutcome(outcome=Outcome.SUCCEEDED, detail=str(said.get("detail", "")), exit_code=0)


def load_summary(run_dir: Path) -> tuple[str, tuple[str, ...]]:
    """(what the agent said it did, its last lines); empty when nothing was kept."""
    try:
        said = read_json(str(run_dir / "summary.json")) or {}
        return str(said["result"]), tuple(str(line) for line in said["last_lines"])
    except (KeyError, TypeError):
        return "", ()
