"""When each repository is polled: one poller and one timer per configured repository, never two at once.

APScheduler keeps the timers and only says that a poll is due. What a poll does is in `polling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.config import ResolvedRepository
from adw_modules.tasks.model import Task
from coordinator.logs import get_logger
from coordinator.polling import RepositoryPoller
from coordinator.services import Services

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PollDue:
    """A timer says that a repository is to be polled."""

    repository: str


class PollSchedule:
    """All pollers. `due` is told when a poll is due (answer: `begin`), `polled` whether it brought news."""

    def __init__(
        self,
        services: Services,
        *,
        due: Callable[[PollDue], None],
        polled: Callable[[bool], None],
        withdraw: Callable[[Task, str], None],
        repeats: bool,
    ) -> None:
        self._services = services
        self._due = due
        self._polled = polled
        self._withdraw = withdraw
        self._repeats = repeats
        self._pollers: dict[str, RepositoryPoller] = {}
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._interval = services.settings.coordinator.poll_interval_seconds
        self._timers = AsyncIOScheduler(timezone="UTC")

    def start(self) -> None:
        self._timers.start()

    def follow_settings(self) -> None:
        """Have one poller per configured repository: new ones are due at once, removed ones stop."""
        wanted = {
            repository.full_name: repository for repository in self._services.settings.all_repositories()
        }
        for gone in self._pollers.keys() - wanted.keys():
            del self._pollers[gone]
            if self._timers.get_job(gone):
                self._timers.remove_job(gone)
        for name, repository in wanted.items():
            known = self._pollers.get(name)
            if known is None or known.repository != repository:
                self._add(name, repository)
        self._follow_interval()

    def _follow_interval(self) -> None:
        """A new interval counts from now, not only after the timers that the old one has set."""
        interval = self._services.settings.coordinator.poll_interval_seconds
        if interval == self._interval:
            return
        self._interval = interval
        for name, poller in self._pollers.items():
            if self._repeats and self._timers.get_job(name):
                self._set_timer(name, poller)

    def _add(self, name: str, repository: ResolvedRepository) -> None:
        self._pollers[name] = RepositoryPoller(
            services=self._services, repository=repository, withdraw=self._withdraw
        )
        self._due(PollDue(repository=name))

    def begin(self, due: PollDue) -> None:
        """Poll now, unless that repository is being polled or is no longer configured."""
        name, poller = due.repository, self._pollers.get(due.repository)
        if poller is not None and name not in self._polling:
            self._polling[name] = asyncio.create_task(self._poll(name, poller))

    async def _poll(self, name: str, poller: RepositoryPoller) -> None:
        has_news = True
        try:
            has_news = await poller.poll()
        except Exception:  # one broken repository never stops another
            log.exception("poll failed", repo=name)
            poller.pace.failed(None)
        finally:
            self._polling.pop(name, None)
            if self._repeats and self._pollers.get(name) is poller:
                self._set_timer(name, poller)
            self._polled(has_news)

    def _set_timer(self, name: str, poller: RepositoryPoller) -> None:
        self._timers.add_job(
            self._tell,
            "date",
            run_date=poller.schedule_next(self._services.now()),
            args=[PollDue(repository=name)],
            id=name,
            replace_existing=True,
            misfire_grace_time=None,  # a late poll is still a poll
        )

    async def _tell(self, due: PollDue) -> None:
        """A coroutine: a plain function would be called in a thread, and the inbox is the loop's own."""
        self._due(due)

    def clock_was_set(self, step: timedelta) -> None:
        """The timers stand on the wall clock: set back, they would be silent for as long."""
        for name, poller in self._pollers.items():
            poller.pace.clock_was_set(step)
            if self._repeats and self._timers.get_job(name):
                self._set_timer(name, poller)

    def stop(self) -> None:
        """No more timers, and let go of the polls under way; `wait` until they are gone."""
        self._timers.shutdown(wait=False)
        for poll in self._polling.values():
            poll.cancel()

    async def wait(self) -> None:
        await asyncio.gather(*self._polling.values(), return_exceptions=True)

    # -- what others ask ----------------------------------------------------------------------------

    @property
    def repositories(self) -> list[str]:
        return list(self._pollers)

    @property
    def has_polled_all(self) -> bool:
        """Every repository has answered at least once, and none is being polled."""
        return all(poller.polled_once for poller in self._pollers.values()) and not self._polling

    def listed_at(self, repository: str) -> float | None:
        """When the newest listing of that repository arrived (monotonic)."""
        poller = self._pollers.get(repository)
        return poller.listed_at if poller is not None else None

    def as_dict(self) -> dict[str, Any]:
        """For the status file: when each is polled next, and what went wrong."""
        return {
            name: {
                "next_poll_at": poller.next_poll_at.isoformat() if poller.next_poll_at else None,
                "last_error": poller.last_error,
            }
            for name, poller in self._pollers.items()
        }
