"""What the daemon tells systemd: that it is ready, what it is doing, and that its loop still turns.

Owns the socket of sd_notify(3). Without NOTIFY_SOCKET everything here does nothing. Must not be called from
anywhere but the loop: a watchdog that somebody else feeds would vouch for a loop that stands still.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

FEEDS_PER_WATCHDOG = 3  # so that one late turn is not yet taken for a loop that stands still


class Notifier:
    """The daemon's line to systemd. No method raises or waits: a deaf systemd must not hold up the loop."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environ) if self._address else None
        self._is_ready = False
        self._status: str | None = None
        self._fed_at = float("-inf")

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: worth gathering what `turned` is told."""
        return self._address is not None

    def starting(self, what: str, *, seconds: float) -> None:
        """A step of the start begins that may take so many seconds: systemd is to wait for it."""
        if not self._is_ready:
            self._send(f"STATUS=starting: {_line(what)}", _extend(seconds))

    def is_feeding_due(self) -> bool:
        """Whether the loop should be turned now, just so that it can show that it turns."""
        if self.watchdog_seconds is None:
            return False
        return time.monotonic() - self._fed_at >= self.watchdog_seconds / FEEDS_PER_WATCHDOG

    def turned(self, status: str) -> None:
        """The loop has come round: the watchdog is fed; the first time the service is ready."""
        said = [] if status == self._status else [f"STATUS={_line(status)}"]
        if not self._is_ready:
            said.append("READY=1")
        if self.is_feeding_due():
            self._fed_at = time.monotonic()
            said.append("WATCHDOG=1")
        self._is_ready, self._status = True, status
        self._send(*said)

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` follows."""
        # systemd compares the time with its own, to tell this reload from the one before.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self) -> None:
        """The configuration has been read, whether it could be taken or not."""
        self._send("READY=1")

    def stopping(self, status: str, *, seconds: float) -> None:
        """The end has begun; the loop turns no more. `seconds`: 0 where TimeoutStopSec is enough."""
        longer = [_extend(seconds)] if seconds else []
        self._send("STOPPING=1", f"STATUS={_line(status)}", "WATCHDOG=1", *longer)

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)


def _address(name: str) -> str | None:
    """None for what is neither a path nor an abstract name: newer kinds of socket are not for services."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """None when no watchdog is set, or when it is set for another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) else None


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def _line(text: str) -> str:
    """One line of a length that `systemctl status` shows."""
    return " ".join(text.split())[:200]
