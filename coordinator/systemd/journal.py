"""journald's native protocol: one datagram per event, with fields that can be searched for.

Owns the socket and the encoding, and knows nothing of events. Must not raise, and must not wait: a journal
that is away, or too slow, costs fields but never a turn of the loop.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

SOCKET = Path("/run/systemd/journal/socket")
SEND_BUFFER = 8 * 1024 * 1024  # bytes on their way to journald; the kernel gives what its own limit allows
LONGEST_NAME = 64
_NO_ROOM = frozenset(
    {errno.EMSGSIZE, errno.ENOBUFS, errno.EAGAIN}
)  # for its bytes; for a descriptor there may be
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the one that systemd connected to the journal.

    The variable alone says nothing: it is inherited by programs whose output goes elsewhere.
    """
    try:
        device, inode = map(int, environ.get("JOURNAL_STREAM", "").split(":"))
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (device, inode)


class Journal:
    """Sends entries to journald. Finds it by its path each time, so that a new journald is found as well."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def send(self, fields: Mapping[str, str]) -> bool:
        """One entry. False when it could not be handed over now: say it some other way."""
        entry = encode(fields)
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno in _NO_ROOM and self._send_file(entry)
        return True

    def close(self) -> None:
        self._socket.close()

    def _send_file(self, entry: bytes) -> bool:
        """What no datagram takes goes as a file in memory; sealed, or journald would not read it."""
        try:
            descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(entry)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            handed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
            self._socket.sendmsg([], [handed], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


def encode(fields: Mapping[str, str]) -> bytes:
    """The entry as journald reads it. A value with a newline goes by its length: it cannot begin a field."""
    return b"".join(_field(name, value.encode(errors="backslashreplace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def field_name(prefix: str, key: str) -> str:
    """A name that journald takes: capitals, digits, underscores, not long. `prefix` begins with a letter."""
    return re.sub(r"[^A-Z0-9_]", "_", f"{prefix}{key}".upper())[:LONGEST_NAME]


class Fallback:
    """Standard error as journald's stream, for what could not be sent as an entry. Never waits for it."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = os.dup(stream.fileno())
        self._socket = _socket_of(self._descriptor)
        self._text = ""
        self._is_cut = False  # the last line went only in part: the next one must not be glued to it

    def write(self, text: str) -> None:
        self._text += text

    def flush(self) -> None:
        line, self._text = self._text.encode(errors="backslashreplace"), ""
        if not line:
            return
        line = b"\n" * self._is_cut + line
        try:
            sent = self._send(line)
        except (OSError, ValueError):  # away, or its buffer is full: the log file has the line
            return
        self._is_cut = sent < len(line)

    def _send(self, line: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(line, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, line)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._descriptor)


def _socket_of(descriptor: int) -> socket.socket | None:
    """The socket behind a descriptor; it then owns the descriptor."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    return socket.socket(fileno=descriptor)
