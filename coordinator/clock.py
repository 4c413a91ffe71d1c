"""The only place that reads the wall clock. Everything else is handed `now`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

LEAST_STEP = timedelta(seconds=5)  # what is corrected by less makes no difference to anything of ours


def utc_now() -> datetime:
    """The current instant as aware UTC."""
    return datetime.now(UTC)  # noqa: TID251  this is the one place that may


class Steps:
    """Notices when the wall clock was set, by a clock that nobody can set.

    That one goes on while the machine sleeps, so waking up is no step.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._offset = self._measure()

    def look(self) -> timedelta | None:
        """How far the clock was set since the last look (negative: back); None when it was not."""
        offset = self._measure()
        step = offset - self._offset
        if abs(step) < LEAST_STEP:
            return None
        self._offset = offset
        return step

    def _measure(self) -> timedelta:
        since_boot = timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
        return self._now() - datetime.fromtimestamp(0, UTC) - since_boot
