"""The face of the store: each public method is one transaction, and each fact is one method.

Synchronous on purpose: the daemon's loop is the only writer and a commit takes a fraction of a millisecond.
No SQL stands here and no policy: what should happen next is decided in `adw_modules.tasks`.
Every method raises StoreError, in one sentence, when the database cannot do its part: nothing was written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from adw_modules.catalogue.book import PriceRecord
from adw_modules.catalogue.changes import Change
from adw_modules.catalogue.model import CatalogueModel
from adw_modules.catalogue.rankings import RunResult
from adw_modules.errors import IllegalTransition
from adw_modules.money.budget import Allowance, Amounts, Book, Budgets, PastRun, Refusal, Warned
from adw_modules.money.reports import Grouping, Period, Report
from adw_modules.routing.circuits import Circuit
from adw_modules.routing.memory import Experience
from adw_modules.routing.rates import Asked
from adw_modules.routing.replay import History, Recorded
from adw_modules.routing.trace import Target
from adw_modules.routing.trials import TrialRun
from adw_modules.security.admission import Actor, AuditRecord
from adw_modules.tasks.model import (
    Cost,
    IssueSnapshot,
    Outcome,
    Override,
    Priority,
    Refused,
    Run,
    RunOutcome,
    Snapshot,
    Task,
    TaskRequest,
    TaskState,
    Usage,
)
from coordinator.faultpoints import Point, reached
from coordinator.store import (
    audit,
    catalogue,
    control,
    costs,
    decisions,
    history,
    outbox,
    runs,
    schema,
    tasks,
)
from coordinator.store import budgets as budget
from coordinator.store import health as health_rows
from coordinator.store.database import Database, open_database
from coordinator.store.records import (
    PAUSED,
    AlertRecord,
    ChangeRecord,
    DecidedRecord,
    Decision,
    DecisionRecord,
    EndedRun,
    EventRecord,
    OperatorRequest,
    OutboxItem,
    OutboxKind,
    ResearchRecord,
    Settlement,
    SyncRecord,
    SyncResult,
    Totals,
    Upserted,
)


class Store:
    """Tasks, runs and everything that must survive the process. One connection, used from one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ledger = budget.Ledger()

    @classmethod
    def open(
        cls, url_or_path: str | Path, *, now: datetime, migrate: bool = True, thoroughly: bool = False
    ) -> Self:
        """Open for writing; creates or upgrades the schema. A daemon has all of it checked (`thoroughly`).

        Commands that write beside a running daemon pass `migrate=False`: another schema is refused then.
        """
        return cls._ready(
            open_database(url_or_path, thoroughly=thoroughly),
            lambda database: schema.bring_to_head(database, now) if migrate else schema.check(database),
        )

    @classmethod
    def open_readonly(cls, url_or_path: str | Path) -> Self:
        """Open for reading, also while a daemon writes; every writing method then raises StoreError."""
        return cls._ready(open_database(url_or_path, readonly=True), schema.check)

    @classmethod
    def _ready(cls, database: Database, prepare: Callable[[Database], None]) -> Self:
        try:
            prepare(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # --- issues become tasks -------------------------------------------------------------------

    def upsert_task(
        self,
        request: TaskRequest,
        *,
        name: str,
        now: datetime,
        report_at: datetime | None = None,
        record: AuditRecord | None = None,
    ) -> Upserted:
        """Make, refresh or re-open the one task of an admitted issue. `name` counts only when it is made.

        The news is not reported before `report_at` (now), so that what follows soon is one report with it.
        After a power loss the next daemon polls the issue again, so the commit does not wait for the disk.
        """
        with self._database.write(is_urgent=False) as conn:
            upserted = tasks.upsert(conn, request, name, now, report_at or now, record=record)
            reached(Point.ADMITTING)
            return upserted

    def refresh_issue(
        self,
        repo_id: int,
        issue: IssueSnapshot,
        priority: Priority,
        now: datetime,
        *,
        overrides: tuple[Override, ...] = (),
        wakes: bool = False,
    ) -> None:
        """Follow a known issue's title, labels and priority without looking at its trigger.

        `wakes`: a task that waits for a target until some time is due now.
        """
        with self._database.write() as conn:
            tasks.refresh(conn, replace(issue, repo_id=repo_id), priority, now, overrides, wakes=wakes)

    def record_refusal(
        self,
        refused: Refused,
        *,
        name: str,
        now: datetime,
        record: AuditRecord | None = None,
        tells: bool = False,
    ) -> Upserted:
        """Remember an issue that may not become a task: blocked, with a cause that begins "refused: ".

        `tells`: a new reason goes to GitHub, as one comment that is edited. The task that comes back is
        unchanged when the reason is the last one.
        """
        with self._database.write() as conn:
            return tasks.refuse(conn, refused, name, now, record, tells=tells)

    def hold(self, task_id: int, *, cause: str, seen_sha: str, now: datetime, record: AuditRecord) -> bool:
        """Pause an open task until a newer trigger; its run is the caller's to stop. False: it has ended."""
        with self._database.write() as conn:
            return tasks.hold(conn, task_id, now, record, cause=cause, seen_sha=seen_sha)

    def recheck(self, task_id: int, *, seen_sha: str, now: datetime, record: AuditRecord) -> None:
        """Remember that another text of an open task was looked into, and that the task goes on."""
        with self._database.write() as conn:
            tasks.recheck(conn, task_id, seen_sha, now, record)

    def add_decision(self, record: AuditRecord, *, task_id: int | None, now: datetime) -> bool:
        """Keep a further decision about a task. False where it is the last one once more."""
        with self._database.write() as conn:
            return decisions.add(conn, record, now, task_id=task_id)

    def decisions_of(self, task_id: int, limit: int) -> list[DecidedRecord]:
        """The newest decisions about who may start a task, oldest of them first."""
        with self._database.read() as conn:
            return decisions.of_task(conn, task_id, limit)

    def admitted_by(self, task_id: int, event_id: int) -> Actor | None:
        """The account that this label event was admitted for; None where that was not kept."""
        with self._database.read() as conn:
            return decisions.admitted_by(conn, task_id, event_id)

    def tasks_for_issues(self, repo_id: int, numbers: Collection[int]) -> dict[int, Task]:
        """The known ones of these issues, by issue number."""
        with self._database.read() as conn:
            return tasks.for_issues(conn, repo_id, numbers)

    def open_tasks(self, repo_id: int) -> list[Task]:
        """The tasks of a repository that are not terminal, by issue number."""
        with self._database.read() as conn:
            return tasks.still_open(conn, repo_id)

    def mark_unlisted(self, repo_id: int, present_numbers: Collection[int], now: datetime) -> list[Task]:
        """Compare with a complete listing: marks finished tasks that left it, returns open ones."""
        with self._database.write() as conn:
            return tasks.mark_unlisted(conn, repo_id, frozenset(present_numbers), now)

    # --- planning and runs ---------------------------------------------------------------------

    def snapshot(self, *, now: datetime, ready_limit: int, config_version: str) -> Snapshot:
        """The facts of one planning step. Its cost does not depend on the number of finished tasks."""
        with self._database.read() as conn:
            return Snapshot(
                now=now,
                paused=control.get(conn, PAUSED) is not None,
                running=tuple(runs.live(conn)),
                ready=tasks.ready(conn, ready_limit),
                due=tasks.due(conn, now),
                config_version=config_version,
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is written within happens, or none of it, and the disk is waited for once.

        What follows from it outside the store has to wait for the end of the block.
        """
        with self._database.write():
            yield

    def claim(
        self,
        task_id: int,
        *,
        decision: Decision,
        config_version: str,
        run_dir_of: Callable[[Task, int], str],
        now: datetime,
        report_at: datetime | None = None,
        budgets: Budgets | None = None,
    ) -> tuple[Task, Run] | None:
        """Start the next run of a queued task: attempts, runs and token rise before anything is spawned.

        `run_dir_of(task, token)` names the run directory; the news is not reported before `report_at` (now).
        With `budgets`, what the run may take is reserved in the same transaction.
        None when somebody else was faster, or has just reserved what was left of a budget.
        """
        with self._database.write() as conn:
            reserved = None
            if budgets is not None:
                budget.lock(conn)
                task = tasks.one(conn, task_id)
                found = None if task is None else self._admit(conn, budgets, task, decision, now)
                if not isinstance(found, Amounts):
                    return None
                reserved = found
            claimed = runs.claim(
                conn,
                task_id,
                decision=decision,
                config_version=config_version,
                run_dir_of=run_dir_of,
                now=now,
                reserved=reserved,
            )
            if claimed is not None:
                outbox.add(conn, task_id, OutboxKind.REPORT, now, report_at)
                text = f"run {claimed[1].token} on {decision.provider}/{decision.model}"
                audit.add(conn, now, "claimed", text, task_id=task_id, run_id=claimed[1].run_id)
                reached(Point.CLAIMING)
            return claimed

    def runs_begun(self, *, after: int, since: datetime) -> list[tuple[int, int, int, int]]:
        """Each later run that began since then: its id, those of its repository, author and labeller."""
        with self._database.read() as conn:
            return runs.begun(conn, after, since)

    def ended_runs(self) -> list[EndedRun]:
        """All runs that have ended, those first that ended first."""
        with self._database.read() as conn:
            return runs.ended(conn)

    def tasks_with_news(self) -> frozenset[int]:
        """The tasks of which GitHub has not been told everything."""
        with self._database.read() as conn:
            return outbox.tasks_with_news(conn)

    def forget_events(self, *, before: datetime, most: int) -> int:
        """Remove at most so many lines of history of tasks that are finished; how many there were."""
        with self._database.write(is_urgent=False) as conn:
            return audit.forget(conn, before, most)

    def count_old_events(self, *, before: datetime, most: int) -> int:
        """How many lines `forget_events` would remove."""
        with self._database.read() as conn:
            return audit.count_old(conn, before, most)

    def mark_started(
        self, run_id: int, *, now: datetime, shim_pid: int | None, child_pid: int | None
    ) -> bool:
        """The worker process exists. False when the run has ended already."""
        with self._database.write() as conn:
            marked = runs.mark_started(conn, run_id, now, shim_pid, child_pid)
            reached(Point.START_MARKING)
            return marked

    def save_progress(
        self, run_id: int, token: int, *, offset: int, usage: Usage | None, spent: Amounts | None = None
    ) -> bool:
        """How far the output is counted (bytes) and, if given, the tokens so far and what budgets count.

        False when fenced out.
        """
        with self._database.write() as conn:
            return runs.save_progress(conn, run_id, token, offset=offset, usage=usage, spent=spent)

    def request_stop(
        self, run_id: int, *, reason: str, outcome: Outcome, now: datetime, until: datetime | None = None
    ) -> bool:
        """Write down that a live run is to stop, before any signal is sent. Only the first request counts.

        `until`: when its task may be looked at again, for what a budget stops.
        """
        with self._database.write() as conn:
            task_id = runs.ask_to_stop(conn, run_id, reason, outcome, until)
            if task_id is not None:
                audit.add(conn, now, "stop_requested", reason, task_id=task_id, run_id=run_id)
            return task_id is not None

    def finish(
        self,
        run: Run,
        *,
        outcome: RunOutcome,
        usage: Usage,
        cost: Cost,
        settlement: Settlement,
        now: datetime,
    ) -> bool:
        """End a run: its record (with `run.started_at`), usage, cost, the task's state, the outbox together.

        False when this run is not the task's live one any more (another token, ended): nothing is written.
        """
        _refuse_running(settlement.state)
        with self._database.write() as conn:
            if not runs.settle(
                conn, run, outcome=outcome, usage=usage, cost=cost, settlement=settlement, now=now
            ):
                return False
            self._enqueue(conn, run.task_id, settlement.outbox, now)
            text = f"{outcome.outcome}, task {settlement.state}: {outcome.detail}"
            audit.add(conn, now, "finished", text, task_id=run.task_id, run_id=run.run_id)
            reached(Point.SETTLING)
            return True

    def transition(
        self,
        task_id: int,
        *,
        expected: TaskState,
        state: TaskState,
        cause: str | None,
        wake_at: datetime | None,
        now: datetime,
        start_over: bool = False,
        report_at: datetime | None = None,
        token: int | None = None,
        outbox: tuple[str, ...] = (),
    ) -> bool:
        """Move a task that has no live run. False when it is not in the expected state any more.

        `report_at`: when `outbox` is due, if not now. `start_over` sets what counts towards the limits since
        the last trigger to 0. `token` is the highest that was ever given out, where an older copy of the
        database has forgotten it.
        Only `claim` leads into `running` and only `finish` out of it: anything else raises IllegalTransition.
        """
        _refuse_running(expected, state)
        values: dict[str, Any] = {"state": state, "cause": cause, "wake_at": wake_at, "updated_at": now}
        if start_over:
            values |= tasks.FRESH_COUNTS
        if token is not None:
            values["token"] = token
        with self._database.write() as conn:
            if not tasks.move(conn, task_id, expected=expected, **values):
                return False
            self._enqueue(conn, task_id, outbox, now, report_at)
            if state is not expected:  # a task that stays parked would fill the trail with its waking
                audit.add(conn, now, state.value, cause or f"was {expected}", task_id=task_id)
            return True

    def next_wake_at(self) -> datetime | None:
        """When the next waiting or blocked task is due (may be past); None when none has a time."""
        with self._database.read() as conn:
            return tasks.next_wake_at(conn)

    def wake_blocked(self, now: datetime) -> None:
        """Make all blocked tasks that have a wake time due now: what blocked them may have changed."""
        with self._database.write() as conn:
            tasks.wake_blocked(conn, now)

    def wake_limited(self, now: datetime, config_version: str) -> None:
        """Make tasks due now that wait after a rate limit, if another configuration sent them there."""
        with self._database.write() as conn:
            tasks.wake_limited(conn, now, config_version)

    def release(self, provider: str, model: str, now: datetime) -> None:
        """A target (all of a provider where `model` is "") may be asked again: whoever waits for the end of
        its limit or refusal is due now. The back-off of a task's own failures stays as long as it was."""
        with self._database.write() as conn:
            tasks.release(conn, provider, model, now)

    def count_crash(self, task_id: int, now: datetime) -> int:
        """A daemon ended in the middle of handling this running task; how many have, one after the other."""
        with self._database.write() as conn:
            crashes = tasks.count_crash(conn, task_id)
            audit.add(conn, now, "daemon_ended", f"while it handled the task ({crashes})", task_id=task_id)
            return crashes

    def clock_was_set_back(self, step: timedelta) -> None:
        """Move the ends of all waits by the (negative) step of the clock: they last no longer for it."""
        with self._database.write() as conn:
            tasks.shift_waits(conn, step)
            outbox.shift_waits(conn, step)

    def circuits(self) -> dict[tuple[str, str], Circuit]:
        """The circuit of each provider and model that anything was heard of."""
        with self._database.read() as conn:
            return health_rows.circuits(conn)

    def save_circuits(self, changed: Iterable[Circuit]) -> None:
        """Keep these circuits as they are now."""
        with self._database.write() as conn:
            health_rows.save(conn, changed)

    def open_runs(self) -> list[tuple[Task, Run]]:
        """All live runs with their tasks, oldest first."""
        with self._database.read() as conn:
            return runs.live(conn)

    def tokens(self) -> dict[str, int]:
        """The highest token that each task was given, by its name."""
        with self._database.read() as conn:
            return tasks.tokens(conn)

    # --- budgets -------------------------------------------------------------------------------

    def budget_book(self, budgets: Budgets, now: datetime) -> Book:
        """All that the budgets have given in their current periods, and what is reserved."""
        with self._database.read() as conn:
            return budget.book(conn, self._ledger, budgets, now)

    def keep_budget_steps(self) -> None:
        """Keep how much runs use between two records, if `budget_book` has seen more than ever before.

        The next daemon keeps room for it.
        """
        if self._ledger.is_step_news:
            with self._database.write() as conn:
                budget.keep_steps(conn, self._ledger)

    def past_runs(self, provider: str, model: str) -> Sequence[PastRun]:
        """What the newest ended runs of a provider and model used. After `budget_book`."""
        with self._database.read() as conn:
            return budget.past(conn, self._ledger, provider, model)

    def allow(self, allowance: Allowance, *, text: str) -> int:
        """Raise a budget for a while, and ask the daemon to look again at what it refused; the request's id.

        `text` is what the audit trail says.
        """
        with self._database.write() as conn:
            budget.allow(conn, allowance)
            audit.add(conn, allowance.at, "budget_allowed", text)
            return control.ask(conn, "budget", None, text, allowance.at)

    def take_back(self, name: str, pot: str | None, *, text: str, now: datetime) -> int:
        """End what was allowed beyond a budget, for one pot of it or (None) all; the number of exceptions.

        `text` is what the audit trail says.
        """
        with self._database.write() as conn:
            count = budget.take_back(conn, name, pot, now)
            if count:
                audit.add(conn, now, "budget_taken_back", text)
            return count

    def warn_of_budget(self, warned: Warned, *, text: str, now: datetime) -> bool:
        """Remember that a share of a budget is used. False when it was said before in this period."""
        with self._database.write() as conn:
            is_news = budget.is_news(conn, warned)
            if is_news:
                audit.add(conn, now, "budget_warning", text)
            return is_news

    def _admit(
        self, conn: Connection, budgets: Budgets, task: Task, decision: Decision, now: datetime
    ) -> Amounts | Refusal:
        book = budget.book(conn, self._ledger, budgets, now)
        subject = budgets.subject(task, decision.provider)
        past = budget.past(conn, self._ledger, decision.provider, decision.model)
        return budgets.admit(book, subject, budgets.estimate(subject, past), now=now)

    # --- outbox --------------------------------------------------------------------------------

    def due_outbox(self, now: datetime, limit: int) -> list[OutboxItem]:
        """What may be sent now: pull requests first, then reports, each by age."""
        with self._database.read() as conn:
            return outbox.due(conn, now, limit)

    def outbox_done(self, item_id: int, version: int) -> bool:
        """This version has been written to GitHub. False when newer news came meanwhile: it stays pending."""
        with self._database.write() as conn:
            is_done = outbox.done(conn, item_id, version)
            reached(Point.PUBLISHING)
            return is_done

    def outbox_retry(self, item_id: int, *, not_before: datetime, error: str) -> None:
        """Sending failed; look at it again then."""
        with self._database.write() as conn:
            outbox.retry(conn, item_id, not_before, error)

    def outbox_dead(self, item_id: int, error: str, *, version: int | None = None) -> bool:
        """GitHub refuses it for good. With a version: False, and still pending, when newer news came."""
        with self._database.write() as conn:
            return outbox.give_up(conn, item_id, error, version)

    def dead_outbox(self) -> list[OutboxItem]:
        """What could not be written to GitHub, newest first."""
        with self._database.read() as conn:
            return outbox.dead(conn)

    def next_outbox_at(self, *, put_off_beyond: datetime | None = None) -> datetime | None:
        """The earliest moment at which something may be sent (may be past); None when nothing is pending.

        `put_off_beyond`: what was never tried and is only due after that does not count.
        """
        with self._database.read() as conn:
            return outbox.next_at(conn, put_off_beyond=put_off_beyond)

    def record_comment(self, task_id: int, comment_id: int) -> None:
        """The sticky comment of the issue."""
        with self._database.write() as conn:
            tasks.change(conn, task_id, comment_id=comment_id)

    def record_told(self, task_id: int, wake_at: datetime | None) -> None:
        """The time of the next look that the comment shows now."""
        with self._database.write() as conn:
            tasks.change(conn, task_id, told_wake_at=wake_at)

    def record_pull(self, task_id: int, number: int, url: str) -> None:
        """The pull request of the issue."""
        with self._database.write() as conn:
            tasks.change(conn, task_id, pr_number=number, pr_url=url)

    # --- operator, daemon state, audit ---------------------------------------------------------

    def add_request(self, verb: str, task_id: int | None, argument: str | None, now: datetime) -> int:
        """Ask the running daemon for something; the id to read its answer by."""
        with self._database.write() as conn:
            return control.ask(conn, verb, task_id, argument, now)

    def pending_requests(self) -> list[OperatorRequest]:
        """Requests without an answer, oldest first."""
        with self._database.read() as conn:
            return control.pending(conn)

    def finish_request(self, request_id: int, answer: str) -> None:
        """Answer a request, once: a second answer is ignored."""
        with self._database.write() as conn:
            control.answer(conn, request_id, answer)

    def request_answer(self, request_id: int) -> str | None:
        """The daemon's answer; None while there is none."""
        with self._database.read() as conn:
            return control.answer_to(conn, request_id)

    def get_state(self, key: str) -> str | None:
        """A fact about the daemon; None when it is not set."""
        with self._database.read() as conn:
            return control.get(conn, key)

    def set_state(self, key: str, value: str | None) -> None:
        """Keep a fact about the daemon; None forgets it. `records.PAUSED` is the one the snapshot reads."""
        with self._database.write() as conn:
            control.put(conn, key, value)

    def add_event(self, task_id: int | None, run_id: int | None, kind: str, text: str, now: datetime) -> None:
        """Add a line to the audit trail."""
        with self._database.write() as conn:
            audit.add(conn, now, kind, text, task_id=task_id, run_id=run_id)

    def events_for(self, task_id: int, limit: int) -> list[EventRecord]:
        """The newest lines about a task, oldest of them first."""
        with self._database.read() as conn:
            return audit.of_task(conn, task_id, limit)

    # --- catalogue of models -------------------------------------------------------------------

    def catalogue(self) -> dict[str, CatalogueModel]:
        """The models that the last good sync listed, by id; empty before the first one."""
        with self._database.read() as conn:
            return catalogue.listed(conn)

    def take_catalogue(
        self,
        models: Mapping[str, CatalogueModel],
        *,
        changes: Iterable[Change],
        keep: Collection[str] = (),
        etag: str | None,
        left_out: int,
        now: datetime,
    ) -> int:
        """Make this the catalogue; the id of the sync. Models in `keep` stay although they are not in it."""
        with self._database.write() as conn:
            before = catalogue.listed(conn)
            sync_id = catalogue.add_sync(
                conn, now, SyncResult.SYNCED, etag=etag, models=len(models), left_out=left_out
            )
            catalogue.take(conn, sync_id, now, models, before=before, keep=frozenset(keep))
            catalogue.add_changes(conn, sync_id, now, changes)
            return sync_id

    def catalogue_unchanged(self, *, etag: str | None, now: datetime) -> int:
        """OpenRouter said that nothing has changed: all prices are still valid."""
        with self._database.write(is_urgent=False) as conn:
            catalogue.seen_all_but(conn, now)
            return catalogue.add_sync(conn, now, SyncResult.UNCHANGED, etag=etag)

    def catalogue_failed(self, problem: str, *, now: datetime) -> int:
        """The catalogue could not be read; the last one stays as it is."""
        with self._database.write(is_urgent=False) as conn:
            return catalogue.add_sync(conn, now, SyncResult.FAILED, problem=problem)

    def last_sync(self, *, good: bool = False) -> SyncRecord | None:
        """The last attempt to read the catalogue, or the last that did not fail."""
        with self._database.read() as conn:
            return catalogue.last_sync(conn, good=good)

    def catalogue_changes(self, *, since: datetime | None = None) -> list[ChangeRecord]:
        """What syncs since then have changed; without a time what the last sync with a list has."""
        with self._database.read() as conn:
            if since is not None:
                return catalogue.changes(conn, sync_id=None, since=since)
            last = catalogue.last_changing_sync(conn)
            return [] if last is None else catalogue.changes(conn, sync_id=last.sync_id, since=None)

    def price_history(self, model_id: str) -> list[PriceRecord]:
        """All prices that were ever listed for exactly this id, oldest first."""
        with self._database.read() as conn:
            return catalogue.price_history(conn, model_id)

    def models_new_since(self, since: datetime) -> list[str]:
        """The ids that were listed for the first time after this moment and still are."""
        with self._database.read() as conn:
            return catalogue.new_since(conn, since)

    def add_research(self, records: Iterable[ResearchRecord], alerts: Mapping[str, str]) -> None:
        """Keep one research, all of one time, and an alert (model id -> text) for each model it found new."""
        found = list(records)
        with self._database.write() as conn:
            catalogue.add_research(conn, found)
            if found:
                catalogue.add_alerts(conn, found[0].at, alerts)

    def last_research_at(self) -> datetime | None:
        """When models were last researched; None when they never were."""
        with self._database.read() as conn:
            return catalogue.last_research_at(conn)

    def latest_research(self) -> list[ResearchRecord]:
        """All answers of the last research."""
        with self._database.read() as conn:
            return catalogue.latest_research(conn)

    def open_alerts(self) -> list[AlertRecord]:
        """New models that GitHub has not been told of, oldest first."""
        with self._database.read() as conn:
            return catalogue.open_alerts(conn)

    def alerts_told(self, alert_ids: Iterable[int], *, now: datetime, error: str | None = None) -> None:
        """These alerts are done with: told, or given up with an error."""
        with self._database.write() as conn:
            catalogue.alerts_told(conn, alert_ids, now, error)

    def run_results(self, since: datetime) -> list[RunResult]:
        """What every run that ended since then came to."""
        with self._database.read() as conn:
            return catalogue.run_results(conn, since)

    def last_end(self) -> datetime | None:
        """When the last run ended: as long as it is the same, `experience` is."""
        with self._database.read() as conn:
            return catalogue.last_end(conn)

    def experience(self, since: datetime, *, most: int, own_prefix: str = "") -> list[Experience]:
        """The newest runs that ended since then with their tasks, in one statement.

        Labels that begin with `own_prefix` are left out.
        """

        def is_shown(label: str) -> bool:
            return not own_prefix or not label.startswith(own_prefix)

        with self._database.read() as conn:
            return catalogue.experience(conn, since, most, is_shown)

    # --- reading for people --------------------------------------------------------------------

    def find_task(self, repo: str | None, number: int) -> list[Task]:
        """The tasks of issue `number`: in one repository ("owner/name"), or in all of them."""
        with self._database.read() as conn:
            return tasks.by_number(conn, repo, number)

    def tasks(self, states: Collection[TaskState] | None = None, limit: int = 1000) -> list[Task]:
        """Tasks in these states (None: all), newest first."""
        with self._database.read() as conn:
            return tasks.in_states(conn, tuple(TaskState) if states is None else states, limit)

    def get_task(self, task_id: int) -> Task | None:
        """One task by our own id."""
        with self._database.read() as conn:
            return tasks.one(conn, task_id)

    def runs_of(self, task_id: int) -> list[Run]:
        """All runs of a task, oldest first."""
        with self._database.read() as conn:
            return runs.of_task(conn, task_id)

    def decision_of(self, run_id: int) -> DecisionRecord | None:
        """Why a run went to its provider and model."""
        with self._database.read() as conn:
            return runs.decision_of(conn, run_id)

    def decided(self, *, since: datetime | None = None, limit: int | None = None) -> list[Recorded]:
        """The decisions that led to runs, newest first, with what came of them."""
        with self._database.read() as conn:
            return list(history.decided(conn, since, limit))

    def history(self) -> dict[Target, History]:
        """What the newest ended runs say of their targets."""
        with self._database.read() as conn:
            return history.history(conn)

    def trial_runs(self, experiment: str) -> list[TrialRun]:
        """All runs of the tasks that were in an arm of that experiment, oldest first."""
        with self._database.read() as conn:
            return list(history.trial_runs(conn, experiment))

    def asked_since(self, since: datetime) -> list[Asked]:
        """The runs that live or ended since then, with their tokens so far."""
        with self._database.read() as conn:
            return runs.asked_since(conn, since)

    def usage_of(self, run_id: int) -> Usage:
        """Tokens of a run as last saved; of unknown source when nothing was."""
        with self._database.read() as conn:
            return runs.usage_of(conn, run_id)

    def cost_of(self, run_id: int) -> Cost | None:
        """What an ended run cost; None while it is live."""
        with self._database.read() as conn:
            return runs.cost_of(conn, run_id)

    def counts_by_state(self) -> dict[TaskState, int]:
        """How many tasks are in each state; every state is a key."""
        with self._database.read() as conn:
            return tasks.counts(conn)

    def totals(self, since: datetime) -> Totals:
        """Tokens and cost of the runs that ended since then."""
        with self._database.read() as conn:
            return runs.totals(conn, since)

    def costs(self, by: Sequence[Grouping], period: Period, *, own_prefix: str = "") -> Report:
        """What the runs that ended in a period cost. Labels that begin with `own_prefix` do not count."""

        def is_shown(label: str) -> bool:
            return not own_prefix or not label.startswith(own_prefix)

        with self._database.read() as conn:
            return costs.report_of(conn, by, period, is_shown)

    @staticmethod
    def _enqueue(
        conn: Connection, task_id: int, kinds: tuple[str, ...], now: datetime, at: datetime | None = None
    ) -> None:
        for kind in kinds:
            outbox.add(conn, task_id, kind, now, at)


def _refuse_running(*states: TaskState) -> None:
    if TaskState.RUNNING in states:
        raise IllegalTransition("a task is running exactly while it has a live run: use claim and finish")
