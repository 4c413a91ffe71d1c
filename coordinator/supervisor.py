"""The live runs: start or adopt them, follow their output, stop them, have them settled.

One coroutine per run. It decides nothing about the task: `preparing.py` says what is started, `settling.py`
what its end means. Any exception on the way still ends in a settled, counted run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from structlog.contextvars import bind_contextvars, bound_contextvars

from adw_modules.agents import DIALECTS, with_exit_code
from adw_modules.agents.stream import AgentEvent, RateLimit, Retry, ToolUse
from adw_modules.errors import CoordinatorError, PromptError, SpawnError, StoreError, WorkspaceError
from adw_modules.health import RunEnd, health_event
from adw_modules.tasks.model import ExitRecord, Outcome, Run, RunOutcome, Task, Usage, UsageSource
from adw_modules.tasks.planning import tokens_used_up
from coordinator import budgeting, settling
from coordinator.breakers import Breakers
from coordinator.budgeting import budgets_of
from coordinator.faultpoints import Point, reached
from coordinator.footprint import Footprint
from coordinator.launcher import (
    Alive,
    Exited,
    Lost,
    NeverStarted,
    RunState,
    WorkerHandle,
    recorded_agent,
)
from coordinator.logs import about, get_logger
from coordinator.network import RefusalLog
from coordinator.output import RunOutput
from coordinator.preparing import launch_spec, prepare_workspace, run_folders
from coordinator.rundir import is_small, seal
from coordinator.services import Services
from coordinator.settling import Ending, Stop
from coordinator.workspaces import Workspace

log = get_logger()

FOLLOW_SECONDS = 0.5  # how often a live run's output is read
PIECES_PER_LOOK = 64  # 16 MB: progress is saved, and the end of the run seen, between two looks
END_SECONDS = 10.0  # beyond twice `stop_grace_seconds`, for a run that is ended to be settled
SETTLE_AGAIN_SECONDS = 2.0  # after the disk or the store would not take the end of a run
REFUSED_CREDENTIALS = frozenset({401, 403})


@dataclass(slots=True, kw_only=True)
class LiveRun:
    """What one coroutine knows of its run."""

    task: Task
    run: Run
    output: RunOutput
    agent: str  # the dialect it speaks
    refusals: RefusalLog  # of its sandbox's proxy
    seen_at: float  # monotonic: the git fetch a new run stands on must not be older
    workspace: Workspace | None = None
    handle: WorkerHandle | None = None
    stop: Stop | None = None
    is_stop_sent: bool = False
    is_hampered: bool = False  # the disk or the store would not take something; said once
    is_marked: bool = False  # the store knows that the worker was started
    metered: int | None = None  # tokens that count in some minute already; None: what is seen first is old
    footprint: Footprint | None = None  # of a run in a sandbox
    finished: asyncio.Task[None] | None = None


class Supervisor:
    """Owns every live run of this daemon. `on_change` is called on the loop after each settled run."""

    def __init__(self, services: Services, breakers: Breakers, on_change: Callable[[], None]) -> None:
        self._services = services
        self._breakers = breakers
        self._on_change = on_change
        self._live: dict[int, LiveRun] = {}
        self._is_ending = False
        self._reading = asyncio.Lock()  # one piece of output at a time, in turn, whatever the backlogs

    # -- what the daemon asks ---------------------------------------------------------------------

    def start(self, task: Task, run: Run, *, seen_at: float) -> None:
        """Begin a claimed run."""
        self._breakers.starts(run.provider, run.model)  # now: the next step must not start another instead
        self._begin(self._add(task, run, seen_at=seen_at))

    async def adopt_all(self, *, after_crash: bool = False) -> None:
        """Take over the runs of the previous daemon: follow those that live, settle those that ended.

        Returns when it is known of each which it is, and with budgets also what it has used by now: nothing
        is started before that is counted. `after_crash`: that daemon did not end in order, so what it was
        handling may be what ended it.
        """
        found = self._services.store.open_runs()
        adopted = await asyncio.gather(
            *(self._adopt(task, run, after_crash=after_crash) for task, run in found)
        )
        if self._services.settings.budgets:
            for live in filter(None, adopted):
                await self._catch_up(live)

    def stop(self, run_id: int, reason: str, outcome: Outcome, *, until: datetime | None = None) -> None:
        """Ask a live run to end; the request is durable before any signal is sent.

        `until`: when its task may be looked at again, for what a budget stops.
        """
        live = self._live.get(run_id)
        self._services.store.request_stop(
            run_id, reason=reason, outcome=outcome, now=self._services.now(), until=until
        )
        reached(Point.STOP_RECORDED)
        if live is None or live.stop is not None:
            return
        live.stop = Stop(reason=reason, outcome=outcome, until=until)
        log.info("stopping", **about(live.task, live.run), reason=reason)
        self._send_stop(live)

    def stop_all(self, reason: str, outcome: Outcome) -> None:
        """Ask every live run to end, and try no longer to settle what the disk refuses: we end as well."""
        self._is_ending = True
        for run_id, live in list(self._live.items()):
            try:
                self.stop(run_id, reason, outcome)
            except StoreError as error:  # a full disk: it ends all the same, and the shim says why
                self._hampered(live, error)
                live.stop = live.stop or Stop(reason=reason, outcome=outcome)
                self._send_stop(live)

    async def wait_all(self) -> None:
        """Until every live run that was told to end is settled.

        Not for ever: with a full disk a shim keeps its run until it can write how that ended.
        """
        until = time.monotonic() + self.longest_end
        while pending := [live.finished for live in self._live.values() if live.finished]:
            await asyncio.wait(pending, timeout=max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                await self.abandon()
                return

    @property
    def longest_end(self) -> float:
        """Seconds that `wait_all` may take."""
        return 2 * self._services.settings.coordinator.stop_grace_seconds + END_SECONDS

    async def abandon(self) -> None:
        """Stop following; workers go on under their shims and the next daemon adopts them."""
        tasks = [live.finished for live in self._live.values() if live.finished]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def live_runs(self) -> list[LiveRun]:
        return list(self._live.values())

    # -- runs of the previous daemon --------------------------------------------------------------

    async def _adopt(self, task: Task, run: Run, *, after_crash: bool) -> LiveRun | None:
        """Each run waits for itself only: what a dead one has left behind may take seconds to end.

        What it returns has output that somebody will read.
        """
        try:
            state = await self._services.in_thread(self._services.launcher.adopt, Path(run.run_dir))
            return self._take_over(task, run, state, after_crash=after_crash)
        except SpawnError as error:  # stays as it is until the next start; the others go on
            log.error("a run cannot be judged", **about(task, run), error=str(error))
            return None

    def _take_over(self, task: Task, run: Run, state: RunState, *, after_crash: bool) -> LiveRun | None:
        log.info("found a run", **about(task, run), found=type(state).__name__.lower())
        reached(Point.ADOPTED)
        if after_crash and not isinstance(state, Alive):
            # Being followed is not being handled: only what was about to start or to be settled is suspect.
            crashes = self._services.store.count_crash(task.task_id, self._services.now())
            reached(Point.CRASH_COUNTED)
            task = replace(task, crashes=crashes)
            if crashes >= self._services.settings.coordinator.max_crashes_per_task:
                self._settle_ended(task, run, None, failure=settling.poisoned(crashes))
                return None
        match state:
            case Alive(handle=handle):
                self._begin(self._add(task, run, handle=handle))
                if run.stop_reason is not None:
                    handle.stop(run.stop_reason)
            case Exited(record=record):
                self._settle_ended(task, run, record)
            case Lost():
                self._settle_ended(task, run, None)
            case NeverStarted():
                # Where the store knows of a start, it is only the run directory that is gone.
                self._settle_ended(task, run, None, never_started=run.started_at is None)
        return self._live[run.run_id]

    def _settle_ended(
        self,
        task: Task,
        run: Run,
        record: ExitRecord | None,
        *,
        failure: RunOutcome | None = None,
        never_started: bool = False,
    ) -> None:
        live = self._add(task, run)
        live.finished = asyncio.create_task(
            self._settle_guarded(live, record, failure=failure, never_started=never_started)
        )

    # -- one run, start to end --------------------------------------------------------------------

    def _add(
        self, task: Task, run: Run, *, seen_at: float = 0.0, handle: WorkerHandle | None = None
    ) -> LiveRun:
        agent = self._agent_of(run)
        dialect = DIALECTS[agent]
        output = RunOutput(
            source=Path(run.run_dir) / "output.log",
            log=self._services.loaded.log_dir / f"{task.name}.jsonl",
            parser=dialect.parser(),
            saved_offset=run.stream_offset,
            counted_offset=run.stream_offset,
            redactor=self._services.redactor,
            side_file=dialect.side_file,
            model=run.model,
            most_bytes=self._services.settings.limits.max_output_mb * 1_000_000,
        )
        live = LiveRun(
            task=task,
            run=run,
            output=output,
            agent=agent,
            refusals=RefusalLog(Path(run.run_dir)),
            seen_at=seen_at,
            handle=handle,
        )
        self._live[run.run_id] = live
        return live

    def _agent_of(self, run: Run) -> str:
        """What the run was started with: its provider may be another one by now, or gone."""
        recorded = recorded_agent(Path(run.run_dir))
        if recorded is not None and recorded in DIALECTS:
            return recorded
        provider = self._services.settings.providers.get(run.provider)
        return provider.agent if provider else "generic"

    def _begin(self, live: LiveRun) -> None:
        live.finished = asyncio.create_task(self._execute(live))

    async def _execute(self, live: LiveRun) -> None:
        bind_contextvars(**about(live.task, live.run))
        try:
            handle = live.handle or await self._launch(live)
        except Exception as error:  # one broken run must end as a counted run, not stop the others
            if not isinstance(error, WorkspaceError | PromptError | SpawnError):
                log.exception("run could not be started")
            await self._settle_guarded(live, None, failure=settling.not_started(error, live.stop))
            return
        self._send_stop(live)  # asked for while the workspace was being made
        record = await self._follow(live, handle)
        reached(Point.END_SEEN)
        await self._settle_guarded(live, record)

    async def _launch(self, live: LiveRun) -> WorkerHandle:
        """Returns when the agent process has been started durably."""
        services, task, run = self._services, live.task, live.run
        live.workspace = await services.in_thread(
            prepare_workspace, services, task, not_older_than=live.seen_at
        )
        reached(Point.WORKSPACE_READY)
        live.handle = await services.launcher.launch(launch_spec(services, task, run, live.workspace))
        reached(Point.SHIM_ANSWERED)
        live.run = replace(run, started_at=services.now())
        live.metered = 0
        log.info(
            "worker started",
            provider=run.provider,
            model=run.model,
            pid=live.handle.child_pid,
            attempt=run.attempt,
        )
        return live.handle

    async def _follow(self, live: LiveRun, handle: WorkerHandle) -> ExitRecord | None:
        """Read the output while the worker lives. Returns its exit record; None when it was lost."""
        waiting = asyncio.ensure_future(handle.wait())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=FOLLOW_SECONDS)
                if done:
                    return waiting.result()
                await self._look(live)  # not for runs shorter than a tick: settling them says it all
        finally:
            waiting.cancel()

    async def _look(self, live: LiveRun) -> None:
        """Take in what is new. A full disk or a locked store holds up our records, never the run."""
        try:
            self._send_stop(live)
            self._check_output(live)
            live.refusals.look()
            await self._read_output(live, pieces=PIECES_PER_LOOK)
            reached(Point.PROGRESS_READ)
            self._save_progress(live)
            await self._check_disk(live)
        except (CoordinatorError, OSError) as error:
            self._hampered(live, error)

    async def _catch_up(self, live: LiveRun) -> None:
        """Count what a run has used while nobody looked, and stop what has come to the end of a budget."""
        with bound_contextvars(**about(live.task, live.run)):
            try:
                await self._read_output(live)
                if live.run.run_id not in self._live:  # settled meanwhile
                    return
                if live.handle is not None:
                    self._save_progress(live)
                elif (
                    live.output.offset > live.output.counted_offset
                ):  # it has ended: there is nothing to stop
                    self._count(live)
            except (CoordinatorError, OSError) as error:
                self._hampered(live, error)

    def _check_output(self, live: LiveRun) -> None:
        """Stop a run, adopted ones included, that prints without end."""
        if live.stop is None and live.output.is_too_much:
            self.stop(live.run.run_id, _printed_too_much(live.output), Outcome.OVER_BUDGET)

    async def _check_disk(self, live: LiveRun) -> None:
        """Stop a run in a sandbox, adopted ones included, that takes more of the disk than it may."""
        services, settings = self._services, self._services.settings.sandbox
        if settings.mode == "off" or live.stop is not None:
            return
        if live.footprint is None:
            folders = await services.in_thread(run_folders, services, live.task, live.workspace)
            live.footprint = Footprint(folders, settings.worktree_mb * 1_000_000)
        if live.footprint.is_due and await services.in_thread(live.footprint.too_much):
            reason = f"its worktree takes more than sandbox.worktree_mb ({settings.worktree_mb:,} MB)"
            self.stop(live.run.run_id, reason, Outcome.OVER_BUDGET)

    def _send_stop(self, live: LiveRun) -> None:
        """Pass a stop on to the shim. While the disk is full that fails; each look at the run repeats it."""
        if live.stop is None or live.handle is None or live.is_stop_sent:
            return
        try:
            live.handle.stop(live.stop.reason)
            live.is_stop_sent = True
            reached(Point.STOP_ASKED)
        except SpawnError as error:
            self._hampered(live, error)
            if self._is_ending:  # nobody will be there to repeat it
                live.is_stop_sent = live.handle.terminate()

    async def _read_output(self, live: LiveRun, *, pieces: int | None = None) -> None:
        """What is new, at most so many pieces. The loop turns between them: there may be hundreds of them."""
        while (pieces is None or pieces > 0) and await self._read_piece(live):
            pieces = None if pieces is None else pieces - 1
            await asyncio.sleep(0)

    async def _read_piece(self, live: LiveRun) -> bool:
        async with self._reading:
            events = live.output.read()
            for event in () if live.output.is_known else events or ():
                self._on_event(live, event)
        return events is not None

    def _on_event(self, live: LiveRun, event: AgentEvent) -> None:
        self._note_health(live, event)
        if isinstance(event, Retry):
            log.warning("provider error", status=event.error_status, error=event.error, attempt=event.attempt)
            if event.error_status in REFUSED_CREDENTIALS:  # an agent CLI would go on trying for minutes
                reason = f"{live.run.provider} refused the credentials ({event.error_status} {event.error})"
                self.stop(live.run.run_id, reason, Outcome.AUTH_FAILED)

    def _note_health(self, live: LiveRun, evidence: AgentEvent | RunEnd) -> None:
        run = live.run
        event = health_event(evidence, provider=run.provider, model=run.model, now=self._services.now())
        if event is not None:
            self._breakers.note(event)
        if isinstance(evidence, ToolUse | Retry):
            self._breakers.asked(run.provider, requests=1)
        if isinstance(evidence, RateLimit):
            self._breakers.told(run.provider, run.model, evidence)

    def _save_progress(self, live: LiveRun) -> None:
        store, run, output = self._services.store, live.run, live.output
        if not live.is_marked and live.handle is not None:
            store.mark_started(
                run.run_id,
                now=run.started_at or self._services.now(),
                shim_pid=live.handle.shim_pid,
                child_pid=live.handle.child_pid,
            )
            live.is_marked = True
            reached(Point.START_MARKED)
        if output.offset > output.counted_offset:
            usage = self._count(live)
            reached(Point.PROGRESS_SAVED)
            self._meter(live, usage)
            self._check_tokens(live, usage)
            self._check_budgets(live)

    def _count(self, live: LiveRun) -> Usage:
        """Write down what a run has used so far."""
        run, output = live.run, live.output
        usage = output.summary().usage
        budgets = budgets_of(self._services.settings)
        spent = budgeting.spent(*settling.bill(self._services, run, usage)) if budgets else None
        self._services.store.save_progress(
            run.run_id, run.token, offset=output.recorded, usage=usage, spent=spent
        )
        output.saved_offset, output.counted_offset = output.recorded, output.offset
        return usage

    def _meter(self, live: LiveRun, usage: Usage) -> None:
        """Count what is new for the provider's tokens of this minute."""
        if live.metered is not None:
            self._breakers.asked(live.run.provider, tokens=max(0, usage.total.total - live.metered))
        live.metered = usage.total.total

    def _check_tokens(self, live: LiveRun, usage: Usage) -> None:
        """Stop a run, adopted ones included, that takes its issue over the limit on tokens."""
        limit = self._services.settings.coordinator.max_tokens_per_issue
        used = live.task.tokens + usage.total.total
        if used >= limit:
            self.stop(live.run.run_id, tokens_used_up(used, limit), Outcome.OVER_BUDGET)

    def _check_budgets(self, live: LiveRun) -> None:
        """Stop what has come to the end of a budget: this run, or others that draw on the same one."""
        services, now = self._services, self._services.now()
        budgets = budgets_of(services.settings)
        if budgets is None:
            return
        book, orders = budgeting.to_stop(services.store, budgets, now)
        for order in orders:
            found = self._live.get(order.run_id)
            if found is not None and found.stop is None:
                self.stop(order.run_id, order.reason, Outcome.OVER_BUDGET, until=order.until)
        budgeting.warn(services.store, budgets, book, [budgets.subject(live.task, live.run.provider)], now)

    def _hampered(self, live: LiveRun, error: Exception) -> None:
        if not live.is_hampered:
            live.is_hampered = True
            log.error("a live run cannot be written down; it is tried again", error=str(error))

    # -- the end of a run -------------------------------------------------------------------------

    async def _settle_guarded(
        self,
        live: LiveRun,
        record: ExitRecord | None,
        *,
        failure: RunOutcome | None = None,
        never_started: bool = False,
    ) -> None:
        """Settle the run, however often the disk or the store refuses: until then it keeps its slot."""
        bind_contextvars(**about(live.task, live.run))
        try:
            while True:
                try:
                    return await self._settle(live, record, failure=failure, never_started=never_started)
                except (CoordinatorError, OSError) as error:
                    self._hampered(live, error)
                if self._is_ending:
                    return None  # the next daemon finds the run and settles it
                await asyncio.sleep(SETTLE_AGAIN_SECONDS)
        finally:
            live.output.close()
            self._live.pop(live.run.run_id, None)
            self._on_change()

    async def _seal(self, live: LiveRun) -> None:
        """From now on nothing needs the keys in the run's directory. Before it counts as settled."""
        redactor, run_dir = self._services.redactor, Path(live.run.run_dir)
        if is_small(run_dir):
            seal(run_dir, redactor)
        else:
            await self._services.in_thread(seal, run_dir, redactor)

    @staticmethod
    def _if_cut_off(live: LiveRun, outcome: RunOutcome) -> RunOutcome:
        """The outcome of a run whose output was not read to its end: nobody knows how it would have ended."""
        if not live.output.is_too_much:
            return outcome
        if outcome.outcome not in {Outcome.FAILED, Outcome.SUCCEEDED, Outcome.NO_CHANGES}:
            return outcome
        detail = _printed_too_much(live.output)
        return replace(outcome, outcome=Outcome.OVER_BUDGET, failure_class=None, detail=detail, retry_at=None)

    async def _settle(
        self, live: LiveRun, record: ExitRecord | None, *, failure: RunOutcome | None, never_started: bool
    ) -> None:
        stop = live.stop or settling.recorded_stop(live.run)
        outcome = failure or settling.without_worker(record, stop, never_started=never_started)
        if outcome is None:
            await self._read_output(live)
        summary = live.output.summary()
        if outcome is None and not live.output.is_all:
            summary = await self._services.in_thread(live.output.final_summary)
        summary = with_exit_code(live.agent, summary, record.exit_code if record else None)
        if outcome is not None and summary.usage.source is UsageSource.UNKNOWN:
            # Nobody reads the output again, but an earlier look may have counted some of it.
            summary = replace(summary, usage=self._services.store.usage_of(live.run.run_id))
        ending = Ending(
            task=live.task,
            run=live.run,
            record=record,
            stop=stop,
            workspace=live.workspace,
            summary=summary,
        )
        if outcome is None:
            outcome = await settling.judge(self._services, ending)
            if live.stop is not None and stop is None:  # asked for in the meantime: it must not be forgotten
                ending = replace(ending, stop=live.stop)
                outcome = await settling.judge(self._services, ending)
        outcome = self._if_cut_off(live, outcome)
        await self._seal(live)
        self._note_health(live, RunEnd(outcome=outcome, summary=summary))
        self._meter(live, summary.usage)
        live.refusals.close()
        settling.finish(self._services, ending, outcome)
        live.output.cut()  # last: how much it was says what became of it, should this be repeated
        try:
            self._check_budgets(live)
        except CoordinatorError as error:  # the next look at any run repeats it
            log.error("budgets could not be looked at", error=str(error))


def _printed_too_much(output: RunOutput) -> str:
    return f"it printed more than limits.max_output_mb ({output.most_bytes // 1_000_000:,} MB)"
