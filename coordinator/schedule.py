"""When each repository is polled: one poller and one timer per configured repository, never two at once.

APScheduler keeps the timers and only says that a poll is due. A hint from outside (`hint`) makes a poll due
earlier, and only so often. What a poll does is in `polling.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.config import ResolvedRepository
from adw_modules.security.webhooks import Hint, HintPace
from adw_modules.tasks.model import Task
from coordinator.logs import get_logger
from coordinator.polling import RepositoryPoller
from coordinator.services import Services

log = get_logger()

# How often hints may cause polls. For one repository ten at once and then one in three seconds: a task causes
# some six, as it is opened, labelled, and given each status label of ours. For all thirty at once and then
# one in two seconds, 1,800 an hour of GitHub's 5,000 requests.
HINTS_OF_ONE = (10, 3.0)
HINTS_OF_ALL = (30, 2.0)
HINT_AFTER_FAILURE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollDue:
    """A timer says that a repository is to be polled."""

    repository: str


class _Hints:
    """What hints about one repository have led to so far."""

    def __init__(self) -> None:
        self.pace = HintPace(burst=HINTS_OF_ONE[0], every_seconds=HINTS_OF_ONE[1])
        self.not_before = 0.0  # monotonic
        self.is_due = False  # on the inbox
        self.came_meanwhile = False  # while it was being polled
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class PollSchedule:
    """All pollers. `due` is told when a poll is due (answer: `begin`), `polled` whether it brought news."""

    def __init__(
        self,
        services: Services,
        *,
        due: Callable[[PollDue], None],
        polled: Callable[[bool], None],
        withdraw: Callable[[Task, str], None],
        pause: Callable[[Task, str], None],
        repeats: bool,
    ) -> None:
        self._services = services
        self._due = due
        self._polled = polled
        self._withdraw = withdraw
        self._pause = pause
        self._repeats = repeats
        self._pollers: dict[str, RepositoryPoller] = {}
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._interval = services.settings.coordinator.poll_interval_seconds
        self._timers = AsyncIOScheduler(timezone="UTC")
        self._all_hints = HintPace(burst=HINTS_OF_ALL[0], every_seconds=HINTS_OF_ALL[1])
        self._hints: dict[str, _Hints] = {}

    def start(self) -> None:
        self._timers.start()

    def follow_settings(self) -> None:
        """Have one poller per configured repository: new ones are due at once, removed ones stop."""
        wanted = {
            repository.full_name: repository for repository in self._services.settings.all_repositories()
        }
        for gone in self._pollers.keys() - wanted.keys():
            del self._pollers[gone]
            self._hints.pop(gone).cancel()
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
        self._hints.setdefault(name, _Hints())
        self._pollers[name] = RepositoryPoller(
            services=self._services, repository=repository, withdraw=self._withdraw, pause=self._pause
        )
        self._due(PollDue(repository=name))

    def begin(self, due: PollDue) -> None:
        """Poll now, unless that repository is being polled or is no longer configured."""
        name, poller = due.repository, self._pollers.get(due.repository)
        if poller is not None and name not in self._polling:
            self._hints[name].is_due = False
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
            now_wanted = self._pollers.get(name)
            if now_wanted is not None and now_wanted is not poller:  # it was not begun while this one asked
                self._due(PollDue(repository=name))
            elif self._repeats and now_wanted is poller:
                self._set_timer(name, poller)
                self._after_hints(name, poller)
            self._polled(has_news)

    # -- hints ----------------------------------------------------------------------------------------

    def hint(self, hint: Hint) -> None:
        """Something may be new in a repository: poll it soon. Unknown ones are ignored."""
        name = self._meant(hint)
        if name is None:
            return
        if name in self._polling:
            self._hints[name].came_meanwhile = True  # what is being read may be older than the news
        else:
            self._poll_soon(name)

    def _meant(self, hint: Hint) -> str | None:
        """The configured repository: by its number, which stays, or by its present name."""
        for name, poller in self._pollers.items():
            if name.casefold() == hint.full_name.casefold() or (
                poller.repo_id and poller.repo_id == hint.repo_id
            ):
                return name
        return None

    def _poll_soon(self, name: str) -> None:
        """At once, or as soon as the pace of hints allows; never twice for hints that came together."""
        hints = self._hints.get(name)
        if hints is None or hints.is_due or hints.timer is not None:
            return
        now = monotonic()
        wait = max(hints.not_before - now, hints.pace.wait(now), self._all_hints.wait(now))
        if wait > 0:
            hints.timer = asyncio.get_running_loop().call_later(wait, self._waited, name)
            return
        hints.pace.take(now)
        self._all_hints.take(now)
        hints.is_due = True
        self._due(PollDue(repository=name))

    def _waited(self, name: str) -> None:
        hints = self._hints.get(name)
        if hints is not None:
            hints.timer = None
            if name in self._polling:
                hints.came_meanwhile = True
            else:
                self._poll_soon(name)

    def _after_hints(self, name: str, poller: RepositoryPoller) -> None:
        """A poll has ended: heed what came meanwhile, and have hints wait where GitHub did not answer."""
        hints = self._hints[name]
        if poller.pace.failures:
            limit = poller.pace.not_before
            held = (limit - self._services.now()).total_seconds() if limit is not None else 0.0
            hints.not_before = monotonic() + max(HINT_AFTER_FAILURE_SECONDS, held)
        if hints.came_meanwhile:
            hints.came_meanwhile = False
            self._poll_soon(name)

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
        for hints in self._hints.values():
            hints.cancel()
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
                "closed": poller.why_closed,
            }
            for name, poller in self._pollers.items()
        }
