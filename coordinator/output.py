"""What an agent prints: output.log of one run, read on as it grows, into the parser and the task's log.

Known secrets do not get into that log. Does not judge what it reads: the events go to
whoever reads, the summary to whoever settles the run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from adw_modules.agents import SideFile
from adw_modules.agents.stream import AgentEvent, StreamParser, StreamSummary, with_model
from coordinator.logs import Redactor
from coordinator.shim import open_regular

READ_CHUNK = 1 << 18
MOST_SIDE_BYTES = 1 << 28  # beyond, it is no journal any more; half a file would give half the tokens
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EACCES})


@dataclass(slots=True, kw_only=True)
class RunOutput:
    """One run's output. `saved_offset` is how far an earlier look, or an earlier daemon, has recorded it."""

    source: Path
    log: Path  # of the task: the output of all its runs
    parser: StreamParser
    saved_offset: int
    counted_offset: int = 0  # how far the store knows what it used
    side_file: SideFile | None = None  # beside the output, in the run's directory
    model: str | None = None  # what the run was started with: for programs that name none
    redactor: Redactor = field(default_factory=Redactor)
    most_bytes: int = 1 << 62  # of it, and of stderr: what is beyond is not read
    offset: int = 0
    _log_file: int | None = None
    _held: bytes = b""  # the end of what was read: a secret may go on in what comes next

    def read(self) -> list[AgentEvent] | None:
        """Take in the next piece of what is new; the events that it completes, or None: there is no more now.

        It takes less than a tenth of a second. Whoever reads lets others have their turn after each.
        """
        try:
            with os.fdopen(open_regular(str(self.source)), "rb") as stream:
                self._follow_cut(os.fstat(stream.fileno()).st_size)
                stream.seek(self.offset)
                known = self.saved_offset - self.offset
                most = min(READ_CHUNK, known) if known > 0 else READ_CHUNK
                chunk = stream.read(max(0, min(most, self.most_bytes - self.offset)))
        except OSError as error:
            # Never started, or the run directory was tampered with: the exit record decides.
            if error.errno not in NO_FILE:
                raise
            return None
        if not chunk:
            return None
        self._append_log(chunk)
        self.offset += len(chunk)
        return self.parser.feed(chunk)

    @property
    def is_known(self) -> bool:
        """Whether what was read last had been recorded before: by a daemon that has acted on it."""
        return self.offset <= self.saved_offset

    @property
    def is_too_much(self) -> bool:
        """Whether the agent has printed more than it may."""
        return sum(map(_size_of, self._files())) > self.most_bytes

    def cut(self) -> None:
        """Keep the first of what was printed, once nobody prints any more. Harmless to repeat."""
        left = self.most_bytes
        for path in self._files():
            size = _size_of(path)
            if size > left:
                with contextlib.suppress(OSError):  # housekeeping takes it in the end
                    os.truncate(path, left)
            left -= min(size, left)

    def _files(self) -> tuple[Path, Path]:
        return self.source, self.source.with_name("stderr.log")

    def _follow_cut(self, size: int) -> None:
        """Somebody cut the file: what it holds now was written after that."""
        if size < self.offset:
            self.offset = self.saved_offset = 0
            self._write_log(self._held, self._held)
            self._held = b""

    @property
    def recorded(self) -> int:
        """How far the task's log goes: what is held back has to be read again by the next daemon."""
        return self.offset - len(self._held)

    def _append_log(self, chunk: bytes) -> None:
        # After a restart the parser starts anew, while the log already holds the beginning.
        fresh = chunk[max(0, self.saved_offset - self.offset) :]
        if not fresh:
            return
        known = self._held + fresh
        safe = max(0, len(known) - max(0, self.redactor.longest - 1))
        for start, end in reversed(self.redactor.spans(known)):  # never between two parts of one secret
            safe = start if start < safe < end else safe
        self._write_log(known[:safe], known)
        self._held = known[safe:]

    def _write_log(self, part: bytes, known: bytes) -> None:
        if not part:
            return
        if self._log_file is None:
            self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._log_file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._log_file, self.redactor.masked(known)[: len(part)])

    def summary(self) -> StreamSummary:
        """What is known if the output ends here."""
        return self._named(self.parser.finish())

    @property
    def is_all(self) -> bool:
        """Whether `summary` tells all there is, once the run has ended: no other file can add to it."""
        return self.side_file is None or not self.side_file.adds_to(self.parser.finish())

    def final_summary(self) -> StreamSummary:
        """What is known now that the run has ended, with what the program wrote beside its output. Blocks."""
        return self._named(with_side_file(self.parser.finish(), self.side_file, self.source.parent))

    def _named(self, summary: StreamSummary) -> StreamSummary:
        return replace(summary, usage=with_model(summary.usage, self.model)) if self.model else summary

    def close(self) -> None:
        """Nothing more comes: what was held back goes into the log."""
        with contextlib.suppress(OSError):
            self._write_log(self._held, self._held)
            self._held = b""
        if self._log_file is not None:
            os.close(self._log_file)
            self._log_file = None


def _size_of(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def with_side_file(summary: StreamSummary, side_file: SideFile | None, run_dir: Path) -> StreamSummary:
    """What is known of an ended run with what the program wrote beside its output, if it wrote anything."""
    if side_file is None or not side_file.adds_to(summary):
        return summary
    reader = side_file.reader()
    try:
        for chunk in side_chunks(run_dir, side_file.pattern):
            reader.feed(chunk)
    except OSError:
        return summary  # as if there were none: what the output told stays true
    return reader.complete(summary)


def side_chunks(folder: Path, pattern: str, *, most: int = MOST_SIDE_BYTES) -> Iterator[bytes]:
    """The files of `folder` that fit, one after the other. OSError where they have more than `most` bytes."""
    for path in sorted(folder.glob(pattern)):
        with os.fdopen(open_regular(str(path)), "rb") as stream:
            while chunk := stream.read(READ_CHUNK):
                most -= len(chunk)
                if most < 0:
                    raise OSError(errno.EFBIG, "Too much to read", str(path))
                yield chunk
        yield b"\n"  # a file may end within a line
