"""Everything we write to GitHub: branch, draft pull request, sticky comment, status label.

Items are recorded in the transaction that made them necessary and are carried out here, each step
looked up before it is repeated, so that being killed between any two steps makes no second comment
and no second pull request. There is no code in Coordinator that merges or approves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from structlog.contextvars import bind_contextvars

from adw_modules.errors import (
    CoordinatorError,
    GitHubRefused,
    GitHubUnavailable,
    StoreError,
    WorkspaceError,
)
from adw_modules.security.admission import Standing
from adw_modules.security.guarded import review
from adw_modules.security.leaks import without_tokens
from adw_modules.tasks import report
from adw_modules.tasks.intake import is_refused
from adw_modules.tasks.lifecycle import Event, advance
from adw_modules.tasks.model import Outcome, Run, Task, TaskState
from adw_modules.tasks.report import RunReport
from coordinator import finds, holds, rechecks
from coordinator.faultpoints import Point, reached
from coordinator.github import LabelBuried, LabelEvent, Pull
from coordinator.logs import REDACTED, about, get_logger
from coordinator.preparing import find_workspace
from coordinator.rundir import load_summary
from coordinator.services import Services
from coordinator.store import OutboxItem
from coordinator.workspaces import Screened, Workspace

log = get_logger()

AT_ONCE = 4
GIVE_UP_AFTER = 16  # tries of a refused write: a day and a bit with the back-off below
BASE_DELAY = timedelta(seconds=15)
MAX_DELAY = timedelta(hours=4)
STORE_AGAIN = timedelta(seconds=2)
PUT_OFF = timedelta(minutes=1)  # what was never tried and is not due by then has time
STOP_SECONDS = 3.0  # for writes under way when the daemon ends, which has five seconds in all
MOST_LEAKS_TOLD = 5
WITHHELD = "(not shown: it seemed to hold a secret)"
SHOW_FAILURE = frozenset({TaskState.FAILED, TaskState.RETRY_WAIT, TaskState.BLOCKED})


@dataclass(slots=True)
class Outbox:
    """Sends what is due, a few tasks at a time, never two items of one task at once."""

    services: Services
    on_change: Callable[[], None]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def kick(self) -> None:
        """Look again now: something was added or became due."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled: send, then sleep until the next item is due or somebody kicks."""
        said: str | None = None  # the error that was logged
        while True:
            self._wake.clear()
            try:
                self._start_due()
                next_at = self.services.store.next_outbox_at()
                said = None
            except StoreError as error:
                if str(error) != said:
                    log.error("the outbox cannot be read; it is tried again", error=str(error))
                said = str(error)
                next_at = self.services.now() + STORE_AGAIN
            delay = max(0.05, (next_at - self.services.now()).total_seconds()) if next_at else None
            if self._busy:  # each finished item kicks, so there is no need to look at the clock meanwhile
                delay = None
            # Not `wait_for`: a kick in the moment of being cancelled would make it forget the cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def stop(self) -> None:
        """Let writes that are under way end; their items stay due if they do not."""
        if self._busy:
            _, left = await asyncio.wait(list(self._busy.values()), timeout=STOP_SECONDS)
            for sending in left:  # the store is about to be closed
                sending.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    @property
    def is_busy(self) -> bool:
        """Whether something is being written right now."""
        return bool(self._busy)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way or due soon; what was put off for minutes is for the next daemon as well."""
        soon = self.services.now() + PUT_OFF
        return not self._busy and self.services.store.next_outbox_at(put_off_beyond=soon) is None

    def _start_due(self) -> None:
        free = AT_ONCE - len(self._busy)
        if free <= 0:
            return
        for item in self.services.store.due_outbox(self.services.now(), AT_ONCE * 4):
            if free > 0 and item.task_id not in self._busy:
                self._busy[item.task_id] = asyncio.create_task(self._send(item))
                free -= 1

    async def _send(self, item: OutboxItem) -> None:
        try:
            await self._send_and_record(item)
        except StoreError as error:
            # What came of it could not be written down, so it is sent again; GitHub is not to be flooded.
            log.error("the outbox cannot be written; it is tried again", item=item.kind, error=str(error))
            await asyncio.sleep(STORE_AGAIN.total_seconds())
        finally:
            self._busy.pop(item.task_id, None)
            self.kick()
            self.on_change()

    async def _send_and_record(self, item: OutboxItem) -> None:
        store = self.services.store
        try:
            task = store.get_task(item.task_id)
            if task is None:
                raise CoordinatorError(f"task {item.task_id} is not in the store")
            bind_contextvars(task=task.name)
            await self._refuse_another_place(task)
            if item.kind == "pull_request":
                await self._pull_request(task, is_first_try=item.tries == 0)
            else:
                await self._report(task)
            store.outbox_done(item.item_id, item.version)
            reached(Point.PUBLISHED)
        except (GitHubUnavailable, GitHubRefused, WorkspaceError) as error:
            self._failed(item, error)
        except StoreError:
            raise
        except Exception as error:  # a bug in one item must not stop the others
            log.exception("outbox item failed", item=item.kind, task_id=item.task_id)
            self._failed(item, CoordinatorError(f"internal error: {error}"))

    async def _refuse_another_place(self, task: Task) -> None:
        """Raises GitHubRefused where the task's repository has left its name to another one."""
        if await self.services.github.repository_id(task.repo) != task.repo_id:
            text = f"{task.repo} is another repository than the one that the task is of"
            raise GitHubRefused(text, status=410)

    def _failed(self, item: OutboxItem, error: CoordinatorError) -> None:
        """Try again later, or give up on what GitHub keeps refusing."""
        store, now, text = self.services.store, self.services.now(), self.services.redactor.text(str(error))
        gone = isinstance(error, GitHubRefused) and error.status in (404, 410)
        refused_for_good = not isinstance(error, GitHubUnavailable) and (
            gone or item.tries + 1 >= GIVE_UP_AFTER
        )
        if refused_for_good:
            store.outbox_dead(item.item_id, text)
            log.error("not published", item=item.kind, error=text)
            if item.kind == "pull_request":
                self._publish_failed(item.task_id, text)
            return
        delay = min(BASE_DELAY * 2 ** min(item.tries, 12), MAX_DELAY)
        not_before = now + delay
        if isinstance(error, GitHubUnavailable) and error.retry_at is not None:
            not_before = max(error.retry_at, now)
        store.outbox_retry(item.item_id, not_before=not_before, error=text)
        log.warning("will publish later", item=item.kind, error=text, at=str(not_before))

    def _publish_failed(self, task_id: int, error: str) -> None:
        store = self.services.store
        task = store.get_task(task_id)
        if task is not None and task.state is TaskState.SUCCEEDED:
            store.transition(
                task_id,
                expected=task.state,
                state=advance(task.state, Event.PUBLISH_FAILED),
                cause=f"the work is done, but it could not be published: {error}",
                wake_at=None,
                now=self.services.now(),
                outbox=("report",),
            )

    # -- branch and pull request --------------------------------------------------------------------

    async def _pull_request(self, task: Task, *, is_first_try: bool) -> None:
        """Look again whether it may leave, push the branch, then find or open its draft pull request.

        Safe to repeat at any point.
        """
        services = self.services
        run = next((run for run in reversed(services.store.runs_of(task.task_id)) if _succeeded(run)), None)
        if run is None or task.state is not TaskState.SUCCEEDED:
            return  # withdrawn or opened again meanwhile: nothing to publish now
        reached(Point.PULL_TAKEN)
        workspace = await services.in_thread(find_workspace, services, task)
        if workspace is not None:
            known = finds.get(services.store, task)
            screened = await services.in_thread(services.screen, workspace, known.allowed, task.issue_number)
            if screened.leaks:
                self._secret_found(task, run, screened)
                return
            if known.open:
                finds.put(services.store, task, screened.head, ())
            reviewed = await self._reviewed(task, workspace, screened.head)
            if reviewed is None:
                return  # a person has to look first; the report says so
            standing = await self._still_allowed(task, is_first_try=is_first_try)
            if standing is None:
                return  # nothing leaves; the report says why
            await services.in_thread(services.push, workspace, reviewed)
            rechecks.note_push(services, task, standing, base=workspace.base_sha, head=reviewed)
            reached(Point.PUSHED)
        pull = await services.github.find_pull(task.repo, task.branch)
        if pull is None or pull.state != "open":
            if workspace is None:
                raise WorkspaceError(
                    f"the workspace of {task.name} is gone, and its branch has no pull request"
                )
            reached(Point.PULL_LOOKED_UP)
            pull = await self._create_pull(task, run, workspace)
            reached(Point.PULL_CREATED)
        services.store.record_pull(task.task_id, pull.number, pull.url)
        reached(Point.PULL_RECORDED)
        if workspace is not None:
            await services.in_thread(services.workspaces.release, workspace)
            reached(Point.RELEASED)

    async def _still_allowed(self, task: Task, *, is_first_try: bool) -> Standing | None:
        """Whoever asked for the work, as of now; None where nothing may be pushed: the task was parked."""
        store = self.services.store
        seen = await rechecks.before_push(self.services, task, is_first_look=is_first_try)
        reached(Point.RECHECKED)
        current = store.get_task(task.task_id)
        if current is None or current.state is not TaskState.SUCCEEDED or current.token != task.token:
            return None  # withdrawn or opened again while GitHub was asked
        problem = current.held or seen.problem
        if problem is None:
            return seen.standing
        cause = f"the work is done and kept, but nothing was pushed: {problem}"
        rechecks.revoke(self.services, current, cause, seen.standing)
        return None

    def _secret_found(self, task: Task, run: Run, screened: Screened) -> None:
        """Nothing is pushed. What was found is told by kind and place, to the operator and on the issue."""
        finds.put(self.services.store, task, screened.head, screened.leaks)
        leaks = list(dict.fromkeys(map(str, screened.leaks)))
        log.error("secret found", **about(task, run), found=leaks)
        told = "; ".join(leaks[:MOST_LEAKS_TOLD])
        more = f"; and {len(leaks) - MOST_LEAKS_TOLD} more" if len(leaks) > MOST_LEAKS_TOLD else ""
        look = f"`coordinator secrets show {report.argument(task)}` says more"
        self._publish_failed(task.task_id, f"it holds {told}{more}; {look}")

    async def _reviewed(self, task: Task, workspace: Workspace, head: str) -> str | None:
        """The commit that may be pushed; None after the task was parked for a person to approve it."""
        services, store = self.services, self.services.store
        content = await services.in_thread(services.content, workspace, head)
        policy = services.settings.content.policy
        findings = await services.in_thread(review, content.changes, content.tree, policy)
        known = holds.get(store, task)
        if not findings:
            if known is not None:
                holds.forget(store, task)
            return content.head
        if known is not None and known.approved_event is not None and known.head == content.head:
            return content.head
        hold = holds.put(store, task, content, findings)
        log.warning("not pushed: a person has to approve it", head=hold.head, found=hold.found)
        store.transition(
            task.task_id,
            expected=task.state,
            state=advance(task.state, Event.REVIEW_NEEDED),
            cause=services.redactor.text(holds.cause(hold, task, services.settings.content.approval_label)),
            wake_at=None,
            now=services.now(),
            outbox=("report",),
        )
        return None

    async def _create_pull(self, task: Task, run: Run, workspace: Workspace) -> Pull:
        said, _ = load_summary(Path(run.run_dir))
        title, summary = self._safe(report.pull_request_title(task)), self._safe(said)
        body = report.pull_request_body(task, self._run_report(run), summary)
        if self._holds_secret(f"{title}\n{body}"):
            title = f"gh-{task.issue_number}"
            body = report.pull_request_body(task, self._run_report(run), WITHHELD)
        pull = await self.services.github.create_pull(
            task.repo,
            branch=workspace.branch,
            base=workspace.default_branch,
            title=title,
            body=self.services.redactor.text(body),
        )
        log.info("pull request opened", **about(task, run), url=pull.url)
        return pull

    # -- sticky comment and status label --------------------------------------------------------------

    async def _report(self, task: Task) -> None:
        """Bring the one comment and the one status label up to date with the store."""
        services, github = self.services, self.services.github
        body = self._comment(task)
        comment_id = task.comment_id or await github.find_comment(
            task.repo, task.issue_number, report.marker(task)
        )
        reached(Point.COMMENT_LOOKED_UP)
        if comment_id is None or not await github.edit_comment(task.repo, comment_id, body):
            comment_id = await github.create_comment(task.repo, task.issue_number, body)
        reached(Point.COMMENT_WRITTEN)
        if comment_id != task.comment_id:
            services.store.record_comment(task.task_id, comment_id)
        if (told := report.shown_wake(task)) != task.told_wake_at:
            services.store.record_told(task.task_id, told)
        reached(Point.COMMENT_RECORDED)
        await self._hold_is_shown(task)
        prefix = services.settings.github.status_label_prefix
        if prefix and not is_refused(task):  # a refused issue gets one comment at most, and no label
            wanted = report.status_label(task.state, prefix)
            await github.set_status_label(task.repo, task.issue_number, prefix, wanted, task.labels)
            reached(Point.LABELLED)

    async def _hold_is_shown(self, task: Task) -> None:
        """Approvals count from here on: an older one was given before anybody could read of this commit."""
        store, label = self.services.store, self.services.settings.content.approval_label
        hold = holds.get(store, task) if task.state is TaskState.BLOCKED else None
        if hold is None or hold.seen_event is not None or hold.token != task.token:
            return
        event = await self.services.github.trigger(task.repo, task.issue_number, label)
        newest = event.newest_event if isinstance(event, LabelBuried) else 0
        holds.shown(store, task, hold, event.trigger.event_id if isinstance(event, LabelEvent) else newest)

    def _comment(self, task: Task) -> str:
        if is_refused(task):
            return report.refusal(task)
        runs = self.services.store.runs_of(task.task_id)
        lines: tuple[str, ...] = ()
        if runs and task.state in SHOW_FAILURE:
            _, lines = load_summary(Path(runs[-1].run_dir))
        reports = [self._run_report(run) for run in runs]
        shown = replace(task, cause=self._safe(task.cause) if task.cause else None)
        quoted = tuple(self._safe("\n".join(lines)).splitlines())
        text = report.comment(shown, reports, failure_lines=quoted)
        if self._holds_secret(text):  # in several quotes, each of them harmless
            text = report.comment(replace(task, cause=WITHHELD), reports)
        return self.services.redactor.text(text)

    def _safe(self, quote: str) -> str:
        """Words of an agent or an issue without secrets and tokens; a sentence instead if some remain."""
        clean = without_tokens(self.services.redactor.text(quote), REDACTED)
        if not self._holds_secret(clean):
            return clean
        log.error("secret found", found=["a secret in words that were to be quoted"])
        return WITHHELD

    def _holds_secret(self, text: str) -> bool:
        return self.services.redactor.scanner.holds(text) is not None

    def _run_report(self, run: Run) -> RunReport:
        store = self.services.store
        usage = store.usage_of(run.run_id)
        decision, cost = store.decision_of(run.run_id), store.cost_of(run.run_id)
        return RunReport(
            run=run,
            rule_reason=decision.reason if decision else "",
            usage=usage.total,
            usage_source=usage.source,
            cost=cost,
            duration=run.finished_at - run.started_at if run.finished_at and run.started_at else None,
        )


def _succeeded(run: Run) -> bool:
    return run.outcome is Outcome.SUCCEEDED
