"""One repository: poll it, have intake judge what is new, and write what follows into the store.

A failure here concerns this repository only. Nothing is ever concluded from a failed or partial
answer, and absence from the list is only a hint that one GET has to confirm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from time import monotonic

from adw_modules.config import ResolvedRepository
from adw_modules.errors import GitHubRefused, GitHubUnavailable, StoreError
from adw_modules.routing import overrides
from adw_modules.tasks import intake
from adw_modules.tasks.intake import Sighting
from adw_modules.tasks.model import IssueSnapshot, Override, Refused, Task, TaskRequest
from coordinator.faultpoints import Point, reached
from coordinator.github import IssueGone, LabelEvent, Listing, Unchanged
from coordinator.logs import get_logger
from coordinator.services import Services, task_name

log = get_logger()

ADMISSIONS_AT_ONCE = 4  # as many as the GitHub adapter has threads
JITTER = 0.1  # of the interval, so that many daemons and repositories do not poll in step
SLOWEST = 10  # a failing repository is polled at least every ten intervals


@dataclass(slots=True)
class Pace:
    """How long to wait until the next poll of one repository: adapts to failures and to GitHub's limits."""

    failures: int = 0
    not_before: datetime | None = None

    def succeeded(self) -> None:
        self.failures, self.not_before = 0, None

    def failed(self, retry_at: datetime | None) -> None:
        self.failures, self.not_before = self.failures + 1, retry_at

    def clock_was_set(self, step: timedelta) -> None:
        """A wait does not last longer than it was meant to."""
        if self.not_before is not None and step < timedelta():
            self.not_before += step

    def delay(self, interval: float, now: datetime, spread: float) -> float:
        """Seconds until the next poll; `spread` in [-1, 1] places it within the jitter."""
        backed_off = interval * min(2 ** min(self.failures, 10), SLOWEST) if self.failures else interval
        delay = backed_off * (1 + JITTER * spread)
        if self.not_before is not None:
            delay = max(delay, (self.not_before - now).total_seconds())
        return delay


@dataclass(slots=True, kw_only=True)
class RepositoryPoller:
    """Polls one repository and label. `withdraw` ends the work on a task whose issue went away."""

    services: Services
    repository: ResolvedRepository
    withdraw: Callable[[Task, str], None]
    pace: Pace = field(default_factory=Pace)
    next_poll_at: datetime | None = None
    last_error: str | None = None
    polled_once: bool = False
    listed_at: float | None = None  # monotonic: when the newest listing arrived
    repo_id: int = 0  # as the newest listing said; 0 before the first
    _missing_once: set[int] = field(default_factory=set)

    async def poll(self) -> bool:
        """One tick; False when GitHub had nothing new, so that nothing needs to be planned either.

        Never raises for GitHub's sake; remembers the failure and slows down instead.
        """
        name, has_news = self.repository.full_name, True
        try:
            has_news = await self._poll()
        except (GitHubUnavailable, GitHubRefused, StoreError) as error:
            self._forget()  # whatever was half done is read again in full
            self.pace.failed(getattr(error, "retry_at", None))
            if str(error) != self.last_error:
                log.warning("poll failed", repo=name, error=str(error), failures=self.pace.failures)
            self.last_error = str(error)
        except Exception:
            self._forget()
            raise
        else:
            self.polled_once = True
            if self.last_error is not None:
                log.info("poll works again", repo=name)
            self.last_error = None
            self.pace.succeeded()
        return has_news

    def schedule_next(self, now: datetime) -> datetime:
        """When this repository is due again."""
        interval = self.services.settings.coordinator.poll_interval_seconds
        delay = self.pace.delay(interval, now, random.uniform(-1, 1))  # noqa: S311  jitter, not a secret
        self.next_poll_at = now + timedelta(seconds=delay)
        told = log.info if self.pace.failures else log.debug  # each tick of a sound repository is no news
        told("next poll", repo=self.repository.full_name, in_seconds=round(delay, 1))
        return self.next_poll_at

    def _forget(self) -> None:
        self.services.github.forget(self.repository.full_name, self.repository.label)

    async def _poll(self) -> bool:
        listing = await self.services.github.poll(self.repository.full_name, self.repository.label)
        seen_at = self.listed_at = monotonic()
        if isinstance(listing, Unchanged):
            return False
        self.repo_id = listing.repo_id
        reached(Point.LISTED)
        store = self.services.store
        known = store.tasks_for_issues(listing.repo_id, [issue.number for issue in listing.issues])
        unknown: list[IssueSnapshot] = []
        for issue in listing.issues:
            task = known.get(issue.number)
            match intake.sighting(issue, task):
                case Sighting.CHECK_TRIGGER:
                    unknown.append(issue)
                case Sighting.REFRESH:
                    await self._follow(replace(issue, repo_id=listing.repo_id), task)
                case Sighting.NOTHING:
                    pass
        await self._admit_all(unknown, known, seen_at)
        await self._confirm_absent(listing)
        return True

    async def _follow(self, issue: IssueSnapshot, task: Task | None) -> None:
        """Bring what rules see of a task up to date; where that differs, look at once at what is parked."""
        services, priority = self.services, intake.priority_of(issue.labels)
        overrides, ours = await self._overrides(issue, task), services.settings.github.status_label_prefix
        wakes = task is not None and (
            overrides != task.overrides
            or priority != task.priority
            or replace(task, labels=issue.labels).labels_of_others(ours) != task.labels_of_others(ours)
        )
        services.store.refresh_issue(
            issue.repo_id, issue, priority, services.now(), overrides=overrides, wakes=wakes
        )

    async def _admit_all(self, issues: list[IssueSnapshot], known: dict[int, Task], seen_at: float) -> None:
        """Judge each issue on its own; the first GitHub failure is raised after the others are done.

        GitHub is asked about several at once, but the answers are written down in the order of the list:
        among equals the oldest issue has its turn first, however long its answer took.
        """
        if not issues:
            return
        self._prefetch(seen_at)
        gate = asyncio.Semaphore(ADMISSIONS_AT_ONCE)

        async def one(issue: IssueSnapshot) -> TaskRequest | Refused | None:
            async with gate:
                return await self._judge(issue, known.get(issue.number))

        verdicts = await asyncio.gather(*(one(issue) for issue in issues), return_exceptions=True)
        reached(Point.JUDGED)
        for verdict in verdicts:
            if isinstance(verdict, TaskRequest | Refused):
                self._record(verdict, known.get(verdict.issue.number))
        for verdict in verdicts:
            if isinstance(verdict, BaseException):
                raise verdict

    def _prefetch(self, seen_at: float) -> None:
        """Start the fetch that a new issue's first run will need, while GitHub is asked who labelled it."""
        services, repository = self.services, self.repository

        future = services.threads.submit(services.fetch, repository, not_older_than=seen_at)
        future.add_done_callback(lambda done: done.exception())  # the run that needs it will report the error

    async def _judge(self, issue: IssueSnapshot, task: Task | None) -> TaskRequest | Refused | None:
        """Who set the label, and may they? None when that is the label which made the task."""
        github, repo = self.services.github, self.repository.full_name
        event = await github.trigger(repo, issue.number, self.repository.label)
        if event is not None and task is not None and event.trigger.event_id == task.trigger_event_id:
            await self._follow(issue, task)
            if not intake.is_refused(task):
                return None
        if event is not None and event.trigger.labelled_at > issue.updated_at:
            # The listing is older than the label: what it approves is the text as it is now.
            fresh = await github.issue(repo, issue.number)
            if isinstance(fresh, IssueGone) or intake.withdrawal(fresh, self.repository.label):
                return None  # the next listing says what has become of it
            issue = fresh
        verdict = intake.admit(
            issue,
            event.trigger if event else None,
            by_app=event.by_app if event else False,
            actor_kind=event.actor_kind if event else "User",
            permission=await self._permission(event),
        )
        if isinstance(verdict, TaskRequest):
            return replace(verdict, overrides=await self._overrides(issue, task))
        return verdict

    async def _permission(self, event: LabelEvent | None) -> str:
        """What the account behind a label event may do in the repository now."""
        if event is None or not event.trigger.actor or event.by_app:
            return "none"
        found = await self.services.github.permission(self.repository.full_name, event.trigger.actor)
        return found.permission

    async def _overrides(self, issue: IssueSnapshot, task: Task | None) -> tuple[Override, ...]:
        """The labels that ask for a target. GitHub is asked once who put each there, as long as it stays."""
        settings = self.services.settings
        own = settings.github.status_label_prefix.casefold()
        others = [label for label in issue.labels if not own or not label.casefold().startswith(own)]
        known = {each.label: each for each in (task.overrides if task else ())}
        asking = overrides.asking(others, settings.routing.override_labels)
        return tuple([known.get(label) or await self._override(issue, label) for label in asking])

    async def _override(self, issue: IssueSnapshot, label: str) -> Override:
        event = await self.services.github.trigger(self.repository.full_name, issue.number, label)
        found = intake.override(
            label,
            event.trigger if event else None,
            by_app=event.by_app if event else False,
            actor_kind=event.actor_kind if event else "User",
            permission=await self._permission(event),
        )
        if not found.permitted:
            name = task_name(self.repository, issue.number)
            log.warning("override not taken", task=name, label=label, by=found.by)
        return found

    def _record(self, verdict: TaskRequest | Refused, known: Task | None) -> None:
        now, name = self.services.now(), task_name(self.repository, verdict.issue.number)
        if isinstance(verdict, Refused):
            refused = self.services.store.record_refusal(verdict, name=name, now=now)
            if known is None or refused.cause != known.cause:
                log.warning("refused", task=name, repo=verdict.issue.repo, reason=verdict.reason)
            return
        upserted = self.services.store.upsert_task(
            verdict, name=name, now=now, report_at=now + self.services.report_delay
        )
        reached(Point.ADMITTED)
        if upserted.change in ("created", "reopened"):
            log.info(
                "new task" if upserted.change == "created" else "task opened again",
                task=name,
                repo=verdict.issue.repo,
                title=verdict.issue.title,
                priority=verdict.priority.word,
                labelled_by=verdict.trigger.actor,
            )

    async def _confirm_absent(self, listing: Listing) -> None:
        store, now = self.services.store, self.services.now()
        absent = store.mark_unlisted(listing.repo_id, [issue.number for issue in listing.issues], now)
        for task in absent:
            reason = await self._why_absent(task)
            if reason is not None:
                self.withdraw(task, reason)

    async def _why_absent(self, task: Task) -> str | None:
        """One GET decides. A 404 has to be seen twice, because a list and a GET can disagree for a moment."""
        found = await self.services.github.issue(self.repository.full_name, task.issue_number)
        if isinstance(found, IssueGone):
            if found.reason == "not found" and task.issue_number not in self._missing_once:
                self._missing_once.add(task.issue_number)
                self._forget()
                return None
            return f"the issue is gone ({found.reason})"
        self._missing_once.discard(task.issue_number)
        return intake.withdrawal(found, self.repository.label)
