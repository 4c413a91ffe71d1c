"""Looking again: may whoever asked for the work still do so, and is it still asked for? Rule 6.

Before anything is pushed (`before_push`) and before anything but a first run of a task is started
(`BeforeStart`). What GitHub cannot say at the moment is asked again later; nothing is concluded from that.
Must not push or start anything itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from time import monotonic
from types import MappingProxyType

from adw_modules.errors import CoordinatorError, GitHubUnavailable, StoreError, WorkspaceError
from adw_modules.security.admission import GHOST, Actor, AuditRecord, Decided, Standing
from adw_modules.tasks import intake
from adw_modules.tasks.lifecycle import Event, advance, allows
from adw_modules.tasks.model import IssueSnapshot, Snapshot, Task
from coordinator.github import IssueGone, LabelEvent
from coordinator.logs import get_logger
from coordinator.services import Services
from coordinator.standing import standing_of

log = get_logger()

FRESH_SECONDS = 60.0  # as long as an answer holds for starts; before a push it is always asked for
ASK_AGAIN = timedelta(seconds=15)  # where GitHub names no time
STORE_AGAIN_SECONDS = 2.0
AGAIN = "whoever may start work can take the label off and put it on again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Who asked for the work and what they may do now. `problem`: why it must not go on."""

    standing: Standing
    problem: str | None


async def before_push(services: Services, task: Task, *, is_first_look: bool) -> Seen:
    """Ask GitHub about account, issue, label and who sees the repository.

    Raises GitHubUnavailable and GitHubRefused where it does not say, and at first for an issue that it does
    not find: a list and a GET can disagree for a moment.
    """
    issue, standing, closed = await asyncio.gather(
        services.github.issue(task.repo, task.issue_number),
        _standing(services, task),
        _closed(services, task),
    )
    if is_first_look and isinstance(issue, IssueGone) and issue.reason == "not found":
        raise GitHubUnavailable(f"GitHub does not find {task.repo}#{task.issue_number}; it is asked again")
    problem = _not_asked_for(services, task, issue) or _revoked(services, task, standing) or closed
    return Seen(standing=standing, problem=problem)


def revoke(services: Services, task: Task, cause: str, standing: Standing) -> None:
    """Park a task that must not go on, and keep a record of why. Its work stays where it is."""
    services.store.transition(
        task.task_id,
        expected=task.state,
        state=advance(task.state, Event.REVOKED),
        cause=services.redactor.text(cause),
        wake_at=None,
        now=services.now(),
        outbox=("report",),
    )
    _record(services, task, standing, decision=Decided.REVOKED, reason=cause)
    log.warning("revoked", task=task.name, cause=cause)


def note_push(services: Services, task: Task, standing: Standing, *, base: str, head: str) -> None:
    """Keep a record of what was pushed, for whom and with whose token."""
    scope = services.github.scope(task.repo)
    details = {"base": base, "head": head, "token": scope}
    _record(services, task, standing, decision=Decided.RECHECKED, reason="pushed", details=details)


def _record(
    services: Services,
    task: Task,
    standing: Standing,
    *,
    decision: Decided,
    reason: str,
    details: Mapping[str, object] = MappingProxyType({}),
) -> None:
    record = AuditRecord(
        decision=decision.value,
        reason=reason,
        config_version=services.loaded.version,
        standing=standing,
        event_id=task.trigger_event_id,
        snapshot=task.text_sha,
        details=dict(details),
    )
    services.store.add_decision(record, task_id=task.task_id, now=services.now())


async def _standing(services: Services, task: Task) -> Standing:
    """Of the account whose label event the task was admitted for."""
    return await standing_of(services, task.repo, await _actor(services, task))


async def _actor(services: Services, task: Task) -> Actor:
    """As it was admitted; of a task from before that was kept, GitHub's events still tell."""
    known = services.store.admitted_by(task.task_id, task.trigger_event_id)
    repository = services.repository(task.repo)
    if known is not None or repository is None:
        return known or GHOST
    event = await services.github.trigger(task.repo, task.issue_number, repository.label)
    if isinstance(event, LabelEvent) and event.trigger.event_id == task.trigger_event_id:
        return event.actor
    return GHOST


async def _closed(services: Services, task: Task) -> str | None:
    """Why nothing may be done in the repository as everybody can see it by now."""
    repository = services.repository(task.repo)
    if repository is None:
        raise WorkspaceError(f"{task.repo} is no longer configured; nothing was pushed")
    if repository.may_be_public:
        return None
    services.openness.note(task.repo, is_public=await services.github.is_public(task.repo, now=True))
    return services.openness.why_closed(repository)


def _not_asked_for(services: Services, task: Task, issue: IssueSnapshot | IssueGone) -> str | None:
    if isinstance(issue, IssueGone):
        return f"the issue is gone ({issue.reason})"
    repository = services.repository(task.repo)
    return intake.withdrawal(issue, repository.label) if repository else None


def _revoked(services: Services, task: Task, standing: Standing) -> str | None:
    found = intake.revoked(task, standing, services.settings.admission.policy)
    return f"{found}; {AGAIN}" if found else None


@dataclass(slots=True, kw_only=True)
class BeforeStart:
    """Has a task that ran before wait until GitHub has said that its account may still start work.

    Everything on the loop's thread. A first run is not held up: admission has asked for it.
    """

    services: Services
    on_answer: Callable[[], None]
    _sound: dict[int, tuple[int, float]] = field(default_factory=dict)  # task: label event, monotonic
    _asking: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many tasks are being asked about."""
        return len(self._asking)

    def sift(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without the tasks that have to wait; GitHub is being asked about them from now on."""
        if not any(task.runs for task in snapshot.ready):
            return snapshot
        return replace(snapshot, ready=tuple(task for task in snapshot.ready if self._lets_through(task)))

    def stop(self) -> None:
        """Ask no more: the store is about to be closed."""
        for asking in self._asking.values():
            asking.cancel()

    def _lets_through(self, task: Task) -> bool:
        if not task.runs or intake.is_refused(task) or self._is_sound(task):
            return True
        if task.task_id not in self._asking:
            self._asking[task.task_id] = asyncio.create_task(self._ask(task))
        return False

    def _is_sound(self, task: Task) -> bool:
        event_id, at = self._sound.get(task.task_id, (None, 0.0))
        return event_id == task.trigger_event_id and monotonic() - at < FRESH_SECONDS

    async def _ask(self, task: Task) -> None:
        try:
            await self._judge(task)
        except StoreError as error:
            log.error("the store refuses; it is tried again", error=str(error))
            await asyncio.sleep(STORE_AGAIN_SECONDS)
        finally:
            self._asking.pop(task.task_id, None)
            self.on_answer()

    async def _judge(self, task: Task) -> None:
        problem: str | None = None
        error: Exception | None = None
        standing = Standing(actor=GHOST)
        try:
            standing = await _standing(self.services, task)
            problem = _revoked(self.services, task, standing)
        except CoordinatorError as found:
            error = found
        except Exception as found:  # a bug must not hold a slot for ever
            log.exception("looking again failed", task=task.name)
            error = found
        current = self.services.store.get_task(task.task_id)
        if current is None or current.trigger_event_id != task.trigger_event_id:
            return  # another trigger, which was judged on its own
        if error is not None:
            self._later(current, error)
        elif problem is None:
            self._note_sound(current)
        elif allows(current.state, Event.REVOKED):
            revoke(self.services, current, f"not started again: {problem}", standing)

    def _note_sound(self, task: Task) -> None:
        now = monotonic()
        self._sound = {key: each for key, each in self._sound.items() if now - each[1] < FRESH_SECONDS}
        self._sound[task.task_id] = (task.trigger_event_id, now)

    def _later(self, task: Task, error: Exception) -> None:
        """Out of the way of others until it may be asked again; GitHub is not told, it is no news."""
        if not allows(task.state, Event.PARKED):
            return
        services, now = self.services, self.services.now()
        named = error.retry_at if isinstance(error, GitHubUnavailable) else None
        cause = services.redactor.text(f"GitHub did not say whether it may still be worked on: {error}")
        services.store.transition(
            task.task_id,
            expected=task.state,
            state=advance(task.state, Event.PARKED),
            cause=cause,
            wake_at=max(named or now + ASK_AGAIN, now),
            now=now,
        )
        log.warning("parked", task=task.name, cause=cause, next_look=str(named or now + ASK_AGAIN))
