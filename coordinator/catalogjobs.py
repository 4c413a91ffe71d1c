"""When the catalogue is synced, when models are researched, and telling GitHub of new ones.

Timers only say that something is due; the loop begins it. What is due is read from the store, so a restart
neither forgets a sync nor repeats it. One job of each kind at a time; none ever holds up the loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.catalogue.research import CAPABILITY_MATRIX
from adw_modules.errors import CoordinatorError, GitHubRefused, GitHubUnavailable, StoreError
from coordinator import catalogue
from coordinator.logs import get_logger
from coordinator.services import Services
from coordinator.store import AlertRecord, SyncResult

log = get_logger()

SYNC_AGAIN = timedelta(minutes=15)  # after a sync that failed
RESEARCH_AGAIN = timedelta(days=1)  # after a research without a single answer
FRESH = timedelta(hours=1)  # a catalogue not older than this is not read once more for the research
TELL_AGAIN = timedelta(minutes=15)
SHOWN_MODELS = 100  # in one comment


class CatalogueJob(StrEnum):
    """What a timer says is due."""

    SYNC = "sync"
    RESEARCH = "research"
    ALERTS = "alerts"


class CatalogueJobs:
    """The timers of the catalogue. `due` is told when one has rung (answer: `begin`)."""

    def __init__(self, services: Services, *, due: Callable[[CatalogueJob], None]) -> None:
        self._services = services
        self._due = due
        self._timers: AsyncIOScheduler | None = None  # made when it is needed
        self._running: dict[CatalogueJob, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._is_stopped = False

    def follow_settings(self) -> None:
        """Set the timers by the settings in force, or take them away."""
        if self._is_stopped:
            return
        if not self._is_wanted():
            if self._timers is not None:
                self._timers.remove_all_jobs()
            return
        if self._timers is None:
            self._timers = AsyncIOScheduler(timezone="UTC")
            self._timers.start()
        for job in CatalogueJob:
            self._arm(job)

    def begin(self, job: CatalogueJob) -> None:
        """Do it now, unless it is under way or no longer wanted."""
        if job in self._running or self._is_stopped or not self._is_wanted():
            return
        work: dict[CatalogueJob, Callable[[], Coroutine[Any, Any, None]]] = {
            CatalogueJob.SYNC: self._sync,
            CatalogueJob.RESEARCH: self._research,
            CatalogueJob.ALERTS: self._tell_github,
        }
        self._running[job] = asyncio.create_task(self._carry_out(job, work[job]))

    def next_at(self, job: CatalogueJob) -> datetime | None:
        """When its timer rings; None while it is not set."""
        timer = None if self._timers is None else self._timers.get_job(job)
        at: datetime | None = None if timer is None else timer.next_run_time
        return at

    def stop(self) -> None:
        """No more timers, and let go of what is under way; `wait` until it is gone."""
        self._is_stopped = True
        if self._timers is not None:
            self._timers.shutdown(wait=False)
        for task in self._running.values():
            task.cancel()

    async def wait(self) -> None:
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _is_wanted(self) -> bool:
        loaded = self._services.loaded
        return catalogue.is_wanted(loaded.settings, self._services.environ, loaded.project_root)

    # -- what is done -------------------------------------------------------------------------------

    async def _carry_out(self, job: CatalogueJob, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        again: datetime | None = None
        try:
            await work()
        except (CoordinatorError, OSError) as error:
            log.warning("the catalogue cannot be worked on", job=job.value, error=str(error))
            again = self._services.now() + SYNC_AGAIN
        except Exception:  # one broken job stops nothing else
            log.exception("the catalogue cannot be worked on", job=job.value)
            again = self._services.now() + RESEARCH_AGAIN
        finally:
            self._running.pop(job, None)
            if not self._is_stopped and self._timers is not None and self._is_wanted():
                self._arm(job, not_before=again)
                if job is not CatalogueJob.ALERTS and CatalogueJob.ALERTS not in self._running:
                    self._arm(CatalogueJob.ALERTS)  # `catalog research` may have left some

    async def _sync(self) -> None:
        services = self._services
        access = catalogue.access(services.settings, services.environ)
        async with self._one_at_a_time, access.directory() as directory:
            catalogue.tell(await catalogue.sync(services.store, directory, now=services.now))

    async def _research(self) -> None:
        services = self._services
        access = catalogue.access(services.settings, services.environ)
        async with self._one_at_a_time, access.directory() as directory:
            if not self._is_fresh():
                catalogue.tell(await catalogue.sync(services.store, directory, now=services.now))
            found = await catalogue.research(
                services.store, directory, has_key=access.key is not None, now=services.now
            )
        catalogue.tell_research(found)
        if services.settings.catalog.alert_repository is None:
            self._done_with(services.store.open_alerts())
        else:
            self._due(CatalogueJob.ALERTS)

    def _is_fresh(self) -> bool:
        last = self._services.store.last_sync(good=True)
        return last is not None and self._services.now() - last.at < FRESH

    # -- telling GitHub -----------------------------------------------------------------------------

    async def _tell_github(self) -> None:
        """One comment for all models that one research found. Those of a later one are not in it."""
        store = self._services.store
        for _, found in groupby(store.open_alerts(), key=lambda alert: alert.at):
            catalog = self._services.settings.catalog
            if catalog.alert_repository is None or catalog.alert_issue is None:
                return
            if not await self._tell_of([*found], catalog.alert_repository, catalog.alert_issue):
                return

    async def _tell_of(self, alerts: Sequence[AlertRecord], repo: str, number: int) -> bool:
        """False: not now. It is looked for first: it may have been written before."""
        marker = _marker(alerts)
        try:
            if await self._services.github.find_comment(repo, number, marker) is None:
                await self._services.github.create_comment(repo, number, _comment(alerts, marker))
        except GitHubUnavailable as error:
            later = self._services.now() + TELL_AGAIN
            self._set_timer(CatalogueJob.ALERTS, max(error.retry_at or later, later))
            log.warning("will tell of new models later", error=str(error))
            return False
        except GitHubRefused as error:
            log.error("cannot tell of new models", issue=f"{repo}#{number}", error=str(error))
            self._done_with(alerts, str(error))
            return True
        log.info("told of new models", issue=f"{repo}#{number}", models=len(alerts))
        self._done_with(alerts)
        return True

    def _done_with(self, alerts: Sequence[AlertRecord], error: str | None = None) -> None:
        ids = [alert.alert_id for alert in alerts]
        self._services.store.alerts_told(ids, now=self._services.now(), error=error)

    # -- when ---------------------------------------------------------------------------------------

    def _arm(self, job: CatalogueJob, *, not_before: datetime | None = None) -> None:
        try:
            at = self._next(job)
        except StoreError as error:
            log.warning("the catalogue cannot be worked on", job=job.value, error=str(error))
            at = self._services.now() + SYNC_AGAIN
        if at is not None:
            self._set_timer(job, max(at, not_before or at))

    def _set_timer(self, job: CatalogueJob, at: datetime) -> None:
        if self._timers is not None and not self._is_stopped:
            self._timers.add_job(
                self._tell,
                "date",
                run_date=at,
                args=[job],
                id=job,
                replace_existing=True,
                misfire_grace_time=None,
            )

    async def _tell(self, job: CatalogueJob) -> None:
        """A coroutine: a plain function would be called in a thread, and the inbox is the loop's own."""
        self._due(job)

    def _next(self, job: CatalogueJob) -> datetime | None:
        store, catalog, now = self._services.store, self._services.settings.catalog, self._services.now()
        match job:
            case CatalogueJob.SYNC:
                sync = store.last_sync()
                wait = timedelta(hours=catalog.sync_interval_hours)
                if sync is not None and sync.result is SyncResult.FAILED:
                    wait = min(wait, SYNC_AGAIN)
                return _due_at(None if sync is None else sync.at, wait, now)
            case CatalogueJob.RESEARCH:
                records = [each for each in store.latest_research() if each.source != CAPABILITY_MATRIX]
                wait = timedelta(days=catalog.research_interval_days)
                if all(each.problem for each in records):
                    wait = min(wait, RESEARCH_AGAIN)
                return _due_at(store.last_research_at(), wait, now)
            case CatalogueJob.ALERTS:
                is_open = catalog.alert_repository is not None and store.open_alerts()
                return now if is_open and self.next_at(job) is None else None


def _due_at(last: datetime | None, wait: timedelta, now: datetime) -> datetime:
    """At once the first time. Never later than one wait from now, also when the clock was set back."""
    return now if last is None else min(last + wait, now + wait)


def _marker(alerts: Sequence[AlertRecord]) -> str:
    """Of exactly these alerts: numbers alone come again in a store that was restored or made anew."""
    told = json.dumps([alerts[0].at.isoformat(), *(alert.model_id for alert in alerts)])
    return f"<!-- coordinator:new-models:{hashlib.sha256(told.encode()).hexdigest()[:16]} -->"


def _comment(alerts: Sequence[AlertRecord], marker: str) -> str:
    many = "1 new model" if len(alerts) == 1 else f"{len(alerts)} new models"
    lines = [f"- `{alert.model_id.replace('`', '')}`" for alert in alerts[:SHOWN_MODELS]]
    more = [f"- and {len(alerts) - SHOWN_MODELS} more"] if len(alerts) > SHOWN_MODELS else []
    head = f"{many} in OpenRouter's catalogue; `coordinator models` shows what they cost and can do."
    return "\n".join([marker, head, "", *lines, *more])
