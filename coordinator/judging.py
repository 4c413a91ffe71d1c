"""One issue: who asked for the work, may they, and what exactly did they approve? Asks GitHub and decides.

Must not write anything into the store: what follows from a verdict is the poller's to write down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from adw_modules.config import ResolvedRepository
from adw_modules.routing import overrides
from adw_modules.security import admission
from adw_modules.security.admission import (
    GHOST,
    Actor,
    AuditRecord,
    Decided,
    IssueText,
    KeptComment,
    Policy,
    Standing,
    fingerprint,
)
from adw_modules.tasks import intake
from adw_modules.tasks.model import IssueSnapshot, Override, Refused, Task, TaskRequest, Trigger
from coordinator.github import IssueGone, LabelBuried, LabelEvent, LabelTakenOff, SeenText
from coordinator.logs import get_logger
from coordinator.services import Services, task_name
from coordinator.standing import standing_of

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about one issue, and the record of it."""

    decided: TaskRequest | Refused
    record: AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Judges the issues of one repository and label.

    `may_go_on` is asked with what GitHub has answered so far, before anything is decided. `follow` gets an
    issue whose label is the one that its task was admitted by.
    """

    services: Services
    repository: ResolvedRepository
    may_go_on: Callable[[IssueSnapshot, Trigger | None, SeenText], bool]
    follow: Callable[[IssueSnapshot, Task], Awaitable[None]]

    @property
    def policy(self) -> Policy:
        return self.services.settings.admission.policy

    async def judge(self, issue: IssueSnapshot, task: Task | None) -> Verdict | None:
        """Who set the label, may they, and is the text the one they saw? None: there is nothing to decide."""
        is_new = task is None or intake.is_refused(task)
        asked = asyncio.create_task(self._text(issue)) if is_new else None  # meanwhile
        if asked is not None:  # nobody may be left to ask what went wrong with it
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            event, standing = await self._labeller(issue)
            if task is not None and event is not None and event.event_id == task.trigger_event_id:
                await self.follow(issue, task)
                return None
            if event is not None and event.labelled_at > issue.updated_at:
                # The listing is older than the label: what it approves is the issue as it is now.
                fresh = await self.services.github.issue(self.repository.full_name, issue.number)
                if isinstance(fresh, IssueGone) or intake.withdrawal(fresh, self.repository.label):
                    return None  # the next listing says what has become of it
                issue = fresh
            seen = await (asked or self._text(issue))
        finally:
            if asked is not None:
                asked.cancel()
        if seen is not None and not self.may_go_on(issue, event, seen):
            return None
        return await self._verdict(issue, task, event, standing, seen)

    async def _text(self, issue: IssueSnapshot) -> SeenText | None:
        return await self.services.github.text(self.repository.full_name, issue.number)

    async def _labeller(self, issue: IssueSnapshot) -> tuple[Trigger | None, Standing]:
        """Who put the label on, and what they may do now. Without any event: whoever opened the issue."""
        name = self.repository.full_name
        event = await self.services.github.trigger(name, issue.number, self.repository.label)
        match event:
            case LabelEvent():
                return event.trigger, await self.standing(event.actor)
            case LabelTakenOff() | LabelBuried():
                return None, Standing(actor=GHOST)
            case None:
                # GitHub's lists do not say what kind of account the author is; its permission will.
                author = Actor(login=issue.author, user_id=issue.author_id, kind=issue.author_kind)
                return intake.created_with_label(issue), await self.standing(author)

    async def _verdict(
        self,
        issue: IssueSnapshot,
        task: Task | None,
        event: Trigger | None,
        standing: Standing,
        seen: SeenText | None,
    ) -> Verdict:
        policy = self.policy
        editors: tuple[Standing, ...] = ()
        comments: tuple[KeptComment, ...] = ()
        text = seen.text if seen else IssueText(title=issue.title, body=issue.body)
        if event is not None and policy.admits(standing):
            if seen is None:
                text = await self._compared(issue, event, standing)
            editors = await self.editors(text, event.labelled_at, known=standing)
            comments = await self._comments(issue, event)
        decided = intake.admit(
            issue,
            event,
            standing=standing,
            policy=policy,
            text=text,
            editors=editors,
            comments=comments,
        )
        if isinstance(decided, TaskRequest):
            decided = replace(decided, overrides=await self.overrides(issue, task))
        return Verdict(decided=decided, record=self._record_of(decided, standing))

    async def _compared(self, issue: IssueSnapshot, event: Trigger, standing: Standing) -> IssueText:
        """Where GraphQL says nothing. An edit in the very second of the label would not show: so the author,
        who can make one without any rights, has to be somebody who may start work."""
        author = Actor(login=issue.author, user_id=issue.author_id, kind=issue.author_kind)
        is_same_second = issue.updated_at == event.labelled_at and author.user_id != standing.actor.user_id
        if is_same_second and not self.policy.admits(await self.standing(author)):
            return of_unknown_editors(issue)
        return admission.compared(
            issue.title, issue.body, updated_at=issue.updated_at, approved_at=event.labelled_at
        )

    async def editors(
        self, text: IssueText, since: datetime | None, known: Standing | None = None
    ) -> tuple[Standing, ...]:
        """What those may do who changed the text since. Of more than a few nobody is asked for anything."""
        found = text.editors_since(since) if since is not None else ()
        others = [each for each in found if known is None or each != known.actor]
        if len(others) > admission.MAX_EDITORS:
            return ()
        return tuple(await asyncio.gather(*(self.standing(each) for each in others)))

    async def _comments(self, issue: IssueSnapshot, event: Trigger) -> tuple[KeptComment, ...]:
        """What was said before the label by those who may start work; never asked for again."""
        if not self.services.settings.admission.comments:
            return ()
        github = self.services.github
        me = await github.whoami()
        found = admission.before(
            await github.comments(self.repository.full_name, issue.number),
            event.labelled_at,
            but=me.user_id,
        )
        standings = await asyncio.gather(*(self.standing(each) for each in admission.authors(found)))
        allowed = intake.may_start(standings, self.policy)
        return admission.kept(found, may_start=allowed.__contains__)

    async def standing(self, actor: Actor) -> Standing:
        return await standing_of(self.services, self.repository.full_name, actor)

    def audit(
        self,
        decision: Decided,
        reason: str,
        *,
        standing: Standing | None,
        event_id: int | None,
        snapshot: str,
        details: dict[str, object],
    ) -> AuditRecord:
        return AuditRecord(
            decision=decision.value,
            reason=reason,
            config_version=self.services.loaded.version,
            standing=standing,
            event_id=event_id,
            snapshot=snapshot,
            details=details,
        )

    def _record_of(self, decided: TaskRequest | Refused, standing: Standing) -> AuditRecord:
        trigger, issue = decided.trigger, decided.issue
        is_admitted = isinstance(decided, TaskRequest)
        comments = decided.comments if isinstance(decided, TaskRequest) else ()
        return self.audit(
            Decided.ADMITTED if is_admitted else Decided.REFUSED,
            f"the label was put on by {standing.actor.login}" if is_admitted else _reason(decided),
            standing=standing,
            event_id=trigger.event_id if trigger else None,
            snapshot=fingerprint(issue.title, issue.body, comments),
            details={"comments": len(comments)} if comments else {},
        )

    async def overrides(self, issue: IssueSnapshot, task: Task | None) -> tuple[Override, ...]:
        """The labels that ask for a target. GitHub is asked once who put each there, as long as it stays."""
        settings = self.services.settings
        own = settings.github.status_label_prefix.casefold()
        others = [label for label in issue.labels if not own or not label.casefold().startswith(own)]
        known = {each.label: each for each in (task.overrides if task else ())}
        asking = overrides.asking(others, settings.routing.override_labels)
        return tuple([known.get(label) or await self._override(issue, label) for label in asking])

    async def _override(self, issue: IssueSnapshot, label: str) -> Override:
        event = await self.services.github.trigger(self.repository.full_name, issue.number, label)
        trigger, standing = None, Standing(actor=GHOST)
        if isinstance(event, LabelEvent):
            trigger, standing = event.trigger, await self.standing(event.actor)
        found = intake.override(label, trigger, standing=standing, policy=self.policy)
        if not found.permitted:
            name = task_name(self.repository, issue.number)
            log.warning("override not taken", task=name, label=label, by=found.by)
        return found


def of_unknown_editors(issue: IssueSnapshot) -> IssueText:
    """The text of an issue of which nobody can say who changed it."""
    why = "nobody can say whether the text was edited after the label"
    return IssueText(title=issue.title, body=issue.body, unknown=why)


def _reason(decided: TaskRequest | Refused) -> str:
    return decided.reason if isinstance(decided, Refused) else ""
