"""What an agent prints: output.log of one run, read on as it grows, into the parser and the task's log.

Does not judge what it reads: the events go to whoever reads, the summary to whoever settles the run.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from adw_modules.agents.stream import AgentEvent, StreamParser, StreamSummary
from coordinator.shim import open_regular

READ_CHUNK = 1 << 18
NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EACCES})


@dataclass(slots=True, kw_only=True)
class RunOutput:
    """One run's output. `saved_offset` is how far an earlier look, or an earlier daemon, has recorded it."""

    source: Path
    log: Path  # of the task: the output of all its runs
    parser: StreamParser
    saved_offset: int
    offset: int = 0
    _log_file: int | None = None

    def read(self) -> list[AgentEvent] | None:
        """Take in the next piece of what is new; the events that it completes, or None: there is no more now.

        It takes less than a tenth of a second. Whoever reads lets others have their turn after each.
        """
        try:
            with os.fdopen(open_regular(str(self.source)), "rb") as stream:
                self._follow_cut(os.fstat(stream.fileno()).st_size)
                stream.seek(self.offset)
                chunk = stream.read(READ_CHUNK)
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

    def _follow_cut(self, size: int) -> None:
        """Somebody cut the file: what it holds now was written after that."""
        if size < self.offset:
            self.offset = self.saved_offset = 0

    def _append_log(self, chunk: bytes) -> None:
        # After a restart the parser starts anew, while the log already holds the beginning.
        fresh = chunk[max(0, self.saved_offset - self.offset) :]
        if not fresh:
            return
        if self._log_file is None:
            self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._log_file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._log_file, fresh)

    def summary(self) -> StreamSummary:
        """What is known if the output ends here."""
        return self.parser.finish()

    def close(self) -> None:
        if self._log_file is not None:
            os.close(self._log_file)
            self._log_file = None
