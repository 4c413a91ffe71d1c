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
from adw_modules.security.admission import (
    AuditRecord,
    Decided,
    Policy,
    Standing,
    fingerprint,
)
from adw_modules.tasks import intake
from adw_modules.tasks.intake import Sighting
from adw_modules.tasks.lifecycle import Event, advance
from adw_modules.tasks.model import IssueSnapshot, Refused, Task, TaskRequest, TaskState, Trigger
from coordinator import holds, identity
from coordinator.faultpoints import Point, reached
from coordinator.github import IssueGone, LabelEvent, Listing, SeenText, Unchanged
from coordinator.judging import Judge, Verdict, of_unknown_editors
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
    """Polls one repository and label. `withdraw` ends the work on a task whose issue went away, `pause`
    stops the run of a task whose text was edited."""

    services: Services
    repository: ResolvedRepository
    withdraw: Callable[[Task, str], None]
    pause: Callable[[Task, str], None]
    pace: Pace = field(default_factory=Pace)
    next_poll_at: datetime | None = None
    last_error: str | None = None
    polled_once: bool = False
    why_closed: str | None = None  # everybody can see the repository, and that is not allowed
    listed_at: float | None = None  # monotonic: when the newest listing arrived
    repo_id: int = 0  # as the newest listing said; 0 before the first
    _missing_once: set[int] = field(default_factory=set)
    _same: asyncio.Task[None] = field(init=False)  # of this poll: fails if the name is another repository's

    @property
    def _judge(self) -> Judge:
        return Judge(
            services=self.services,
            repository=self.repository,
            may_go_on=self._may_go_on,
            follow=self._follow,
        )

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
        github, name, label = self.services.github, self.repository.full_name, self.repository.label
        if not self.polled_once:  # an earlier configuration may have read the list and skipped what is new
            self._forget()
        listing = await github.poll(name, label)
        seen_at = self.listed_at = monotonic()
        was_closed = self.why_closed is not None
        has_opened = self._look_who_sees(is_public=await github.is_public(name))
        if was_closed and self.why_closed is None:
            self._forget()
            listing = await github.poll(name, label)
        if isinstance(listing, Unchanged):
            return has_opened
        self._same = asyncio.create_task(self._look_at_identity(listing))
        try:
            await self._take_in(listing, seen_at)
        finally:
            self._same.cancel()
            await asyncio.wait({self._same})
            self._same.cancelled() or self._same.exception()  # heard of above, unless something else failed
        return True

    async def _look_at_identity(self, listing: Listing) -> None:
        """Raises GitHubRefused when another repository has the name by now: its issues are not ours."""
        name = self.repository.full_name
        other = identity.other(self.services.store, name, await self.services.github.repository_id(name))
        if other is not None:
            raise GitHubRefused(other, status=409)
        self.repo_id = listing.repo_id

    async def _take_in(self, listing: Listing, seen_at: float) -> None:
        """Judge what is new while the repository's identity is looked at, and write nothing before that."""
        reached(Point.LISTED)
        known = self.services.store.tasks_for_issues(
            listing.repo_id, [issue.number for issue in listing.issues]
        )
        unknown: list[IssueSnapshot] = []
        for issue in listing.issues:
            task = known.get(issue.number)
            match intake.sighting(issue, task):
                case Sighting.CHECK_TRIGGER if self.why_closed is None:
                    unknown.append(issue)
                case Sighting.REFRESH | Sighting.CHECK_TRIGGER:
                    await self._follow(replace(issue, repo_id=listing.repo_id), task)
                case Sighting.NOTHING:
                    pass
        await self._admit_all(unknown, known, seen_at)
        await self._same
        for issue in listing.issues:
            await self._approve(issue, known.get(issue.number))
        await self._confirm_absent(listing)

    def _look_who_sees(self, *, is_public: bool) -> bool:
        """Take in who can see the repository, and say so when it changes; True: parked tasks may go on."""
        services, before = self.services, self.why_closed
        is_news = services.openness.note(self.repository.full_name, is_public=is_public)
        self.why_closed = services.openness.why_closed(self.repository)
        if self.why_closed is not None and self.why_closed != before:
            log.warning("closed", repo=self.repository.full_name, reason=self.why_closed)
        has_opened = self.why_closed is None and (is_news or before is not None)
        if has_opened:
            services.store.wake_blocked(services.now())
        return has_opened

    async def _follow(self, issue: IssueSnapshot, task: Task | None) -> None:
        """Bring what rules see of a task up to date; where that differs, look at once at what is parked."""
        services, priority = self.services, intake.priority_of(issue.labels)
        if task is None:
            return
        await self._same
        overrides, ours = (
            await self._judge.overrides(issue, task),
            services.settings.github.status_label_prefix,
        )
        wakes = (
            overrides != task.overrides
            or priority != task.priority
            or replace(task, labels=issue.labels).labels_of_others(ours) != task.labels_of_others(ours)
        )
        is_text_new = intake.is_text_new(issue, task)
        services.store.refresh_issue(
            issue.repo_id, issue, priority, services.now(), overrides=overrides, wakes=wakes
        )
        if is_text_new:
            await self._look_at_edit(issue, task)

    async def _look_at_edit(self, issue: IssueSnapshot, task: Task) -> None:
        """The text of an open task is not the approved one: it pauses, unless that is known to be fine.

        The agent never sees the other text, whoever wrote it: it goes on with the approved one.
        """
        services = self.services
        seen = await services.github.text(self.repository.full_name, issue.number)
        text = seen.text if seen else of_unknown_editors(issue)
        if seen is not None and fingerprint(text.title, text.body) == task.text_sha:
            return  # changed back, or the list was late
        editors = await self._judge.editors(text, task.labelled_at)
        reason = intake.changed_since(text, task, editors=editors, policy=self._judge.policy)
        sha = fingerprint(issue.title, issue.body)
        record = self._judge.audit(
            Decided.RECHECKED if reason is None else Decided.PAUSED,
            reason or "the text was edited by somebody who may start work; the approved one stays in force",
            standing=_culprit(editors, self._judge.policy),
            event_id=task.trigger_event_id,
            snapshot=fingerprint(text.title, text.body),
            details={"approved": task.text_sha, "editors": [each.actor.user_id for each in editors]},
        )
        if reason is None:
            services.store.recheck(task.task_id, seen_sha=sha, now=services.now(), record=record)
            _log_decision(task.name, record)
        else:
            self._hold(task, reason, sha, record)

    def _hold(self, task: Task, cause: str, seen_sha: str, record: AuditRecord) -> None:
        """Durable first, then the run is stopped: should we end in between, the next daemon stops it."""
        services = self.services
        held = services.store.hold(
            task.task_id, cause=cause, seen_sha=seen_sha, now=services.now(), record=record
        )
        if held:
            reached(Point.HELD)
            _log_decision(task.name, record)
            log.warning("paused", task=task.name, cause=cause)
            self.pause(task, cause)

    async def _admit_all(self, issues: list[IssueSnapshot], known: dict[int, Task], seen_at: float) -> None:
        """Judge each issue on its own; the first GitHub failure is raised after the others are done.

        GitHub is asked about several at once, but the answers are written down in the order of the list:
        among equals the oldest issue has its turn first, however long its answer took.
        """
        if not issues:
            return
        self._prefetch(seen_at)
        gate = asyncio.Semaphore(ADMISSIONS_AT_ONCE)

        async def one(issue: IssueSnapshot) -> Verdict | None:
            async with gate:
                return await self._judge.judge(issue, known.get(issue.number))

        verdicts = await asyncio.gather(*(one(issue) for issue in issues), return_exceptions=True)
        await self._same
        reached(Point.JUDGED)
        for verdict in verdicts:
            if isinstance(verdict, Verdict):
                self._record(verdict, known.get(verdict.decided.issue.number))
        for verdict in verdicts:
            if isinstance(verdict, BaseException):
                raise verdict

    def _prefetch(self, seen_at: float) -> None:
        """Start the fetch that a new issue's first run will need, while GitHub is asked who labelled it."""
        services, repository = self.services, self.repository

        future = services.threads.submit(services.fetch, repository, not_older_than=seen_at)
        future.add_done_callback(lambda done: done.exception())  # the run that needs it will report the error

    def _may_go_on(self, issue: IssueSnapshot, event: Trigger | None, seen: SeenText) -> bool:
        """False while two answers of GitHub contradict each other, and when the repository became public."""
        self._look_who_sees(is_public=seen.is_public)
        if self.why_closed is not None:
            return False
        if event is None or event.event_id != intake.CREATED_WITH_LABEL:
            return True
        if self.repository.label.casefold() in seen.labels_applied:
            self._forget()  # its event is on its way: the next poll sees it
            return False
        return True

    async def _approve(self, issue: IssueSnapshot, task: Task | None) -> None:
        """Have a held commit published, if somebody who may has put the label on since it was named."""
        services, label = self.services, self.services.settings.content.approval_label
        if task is None or task.state is not TaskState.BLOCKED or not intake.has_label(issue.labels, label):
            return
        hold = holds.get(services.store, task)
        if hold is None or hold.seen_event is None or hold.token != task.token:
            return
        event = await services.github.trigger(self.repository.full_name, issue.number, label)
        if not isinstance(event, LabelEvent):
            self._forget()  # the event is later than the label: look again
            return
        if event.trigger.event_id <= hold.seen_event:
            return
        standing = await self._judge.standing(event.actor)
        found = intake.override(label, event.trigger, standing=standing, policy=self._judge.policy)
        if not found.permitted:
            log.warning("approval not taken", task=task.name, label=label, by=found.by)
            return
        now = services.now()
        record = self._judge.audit(
            Decided.APPROVED,
            f"the change {hold.head[:12]} may be published",
            standing=standing,
            event_id=event.trigger.event_id,
            snapshot="",
            details={"head": hold.head},
        )
        with services.store.together():  # no approval without its record
            holds.approve(services.store, task, hold, by=found.by, event_id=event.trigger.event_id, now=now)
            services.store.transition(
                task.task_id,
                expected=TaskState.BLOCKED,
                state=advance(TaskState.BLOCKED, Event.APPROVED),
                cause=None,
                wake_at=None,
                now=now,
                outbox=("pull_request", "report"),
            )
            services.store.add_decision(record, task_id=task.task_id, now=now)
        log.info("change approved", task=task.name, by=found.by, head=hold.head)

    def _record(self, verdict: Verdict, known: Task | None) -> None:
        decided = verdict.decided
        name = task_name(self.repository, decided.issue.number)
        if isinstance(decided, Refused):
            self._record_refusal(decided, verdict.record, name, known)
        else:
            self._record_admission(decided, verdict.record, name)

    def _record_refusal(self, refused: Refused, record: AuditRecord, name: str, known: Task | None) -> None:
        services, now = self.services, self.services.now()
        done = services.store.record_refusal(
            refused,
            name=name,
            now=now,
            record=record,
            tells=services.settings.admission.comment_on_refusal,
        )
        if done.is_news:
            _log_decision(name, record)
        if known is None or done.task.cause != known.cause:
            log.warning("refused", task=name, repo=refused.issue.repo, reason=refused.reason)
        is_open = known is not None and not known.state.is_terminal and not intake.is_refused(known)
        if known is not None and is_open and known.held != refused.reason:
            # The label that had been approved is off; whoever put it on again may not start work.
            sha = fingerprint(refused.issue.title, refused.issue.body)
            self._hold(known, refused.reason, sha, replace(record, decision=Decided.PAUSED.value))

    def _record_admission(self, verdict: TaskRequest, record: AuditRecord, name: str) -> None:
        now = self.services.now()
        upserted = self.services.store.upsert_task(
            verdict, name=name, now=now, report_at=now + self.services.report_delay, record=record
        )
        if upserted.is_news:
            _log_decision(name, record)
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


def _culprit(editors: tuple[Standing, ...], policy: Policy) -> Standing | None:
    """Whom the record of an edit is about: the first that may not start work, else the first."""
    return next((each for each in editors if not policy.admits(each)), next(iter(editors), None))


def _log_decision(name: str, record: AuditRecord) -> None:
    """The same as the record in the store, in one line. No text and no secret is in it."""
    standing = record.standing
    log.info(
        "decided",
        task=name,
        decision=record.decision,
        reason=record.reason,
        actor=standing.actor.login if standing else "",
        actor_id=standing.actor.user_id if standing else 0,
        actor_kind=standing.actor.kind if standing else "",
        by_app=standing.actor.by_app if standing else False,
        permission=standing.permission if standing else "",
        role=standing.role if standing else "",
        label_event=record.event_id,
        snapshot=record.snapshot,
        config=record.config_version,
    )
