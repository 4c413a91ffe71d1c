"""The live runs: prepare a workspace, start the worker, follow its stream, settle what it came to.

One coroutine per run. It decides nothing about the task: `outcome.classify` says what happened and
`retries.after_run` what follows. Every write goes through the store, fenced by the run's token, and
any exception on the way still ends in a settled, counted run.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from structlog.contextvars import bind_contextvars

from adw_modules.agents import DIALECTS, parser_for
from adw_modules.agents.stream import AgentEvent, Retry, StreamParser, StreamSummary
from adw_modules.api_logger import ClaudeAPILogger
from adw_modules.config import ProviderSettings
from adw_modules.errors import CoordinatorError, PromptError, SpawnError, WorkspaceError
from adw_modules.money.pricing import price
from adw_modules.providers import ProviderManager
from adw_modules.tasks import report
from adw_modules.tasks.model import (
    Cost,
    ExitRecord,
    FailureClass,
    GitState,
    Outcome,
    Run,
    RunOutcome,
    Task,
    TaskState,
    Usage,
)
from adw_modules.tasks.outcome import classify
from adw_modules.tasks.retries import Verdict, after_run
from coordinator.environment import worker_environment
from coordinator.launcher import LaunchSpec, WorkerHandle
from coordinator.logs import get_logger
from coordinator.prompts import PromptValues, render
from coordinator.services import Services
from coordinator.store import Settlement
from coordinator.workspaces import Workspace

log = get_logger()

FOLLOW_SECONDS = 0.5  # how often a live run's output is read
SETTLE_AGAIN_SECONDS = 2.0  # after the disk or the store would not take the end of a run
READ_CHUNK = 1 << 20
REFUSED_CREDENTIALS = frozenset({401, 403})


@dataclass(slots=True, kw_only=True)
class LiveRun:
    """What one coroutine knows of its run."""

    task: Task
    run: Run
    parser: StreamParser
    seen_at: float  # monotonic: the git fetch a new run stands on must not be older
    workspace: Workspace | None = None
    handle: WorkerHandle | None = None
    offset: int = 0
    saved_offset: int = 0
    stop: tuple[str, Outcome] | None = None
    is_stop_sent: bool = False
    is_hampered: bool = False  # the disk or the store would not take something; said once
    is_marked: bool = False  # the store knows that the worker was started
    log_file: int | None = None
    finished: asyncio.Task[None] | None = field(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A settled run: how it ended, what it took, and where it took its task."""

    record: ExitRecord | None
    outcome: RunOutcome
    verdict: Verdict
    usage: Usage
    cost: Cost
    at: datetime


class Supervisor:
    """Owns every live run of this daemon. `on_change` is called on the loop after each settled run."""

    def __init__(self, services: Services, on_change: Callable[[], None]) -> None:
        self._services = services
        self._on_change = on_change
        self._live: dict[int, LiveRun] = {}
        self._is_ending = False

    # -- what the daemon asks ---------------------------------------------------------------------

    def start(self, task: Task, run: Run, *, seen_at: float) -> None:
        """Begin a claimed run."""
        self._begin(LiveRun(task=task, run=run, parser=self._parser(run), seen_at=seen_at), adopted=False)

    def adopt(self, task: Task, run: Run, handle: WorkerHandle) -> None:
        """Take over a run that outlived the previous daemon."""
        live = LiveRun(task=task, run=run, parser=self._parser(run), seen_at=0.0, handle=handle)
        live.saved_offset = run.stream_offset
        self._begin(live, adopted=True)

    def settle_ended(
        self, task: Task, run: Run, record: ExitRecord | None, *, never_started: bool = False
    ) -> None:
        """Settle a run that ended (or vanished) while no daemon was watching."""
        live = LiveRun(task=task, run=run, parser=self._parser(run), seen_at=0.0)
        live.saved_offset = run.stream_offset
        live.finished = asyncio.create_task(self._settle_guarded(live, record, never_started=never_started))
        self._live[run.run_id] = live

    def stop(self, run_id: int, reason: str, outcome: Outcome) -> None:
        """Ask a live run to end; the request is durable before any signal is sent."""
        live = self._live.get(run_id)
        self._services.store.request_stop(run_id, reason=reason, outcome=outcome, now=self._services.now())
        if live is None or live.stop is not None:
            return
        live.stop = (reason, outcome)
        log.info("stopping", task=live.task.name, run=run_id, reason=reason)
        self._send_stop(live)

    def _send_stop(self, live: LiveRun) -> None:
        """Pass a stop on to the shim. While the disk is full that fails; each look at the run repeats it."""
        if live.stop is None or live.handle is None or live.is_stop_sent:
            return
        try:
            live.handle.stop(live.stop[0])
            live.is_stop_sent = True
        except SpawnError as error:
            self._hampered(live, error)

    def _hampered(self, live: LiveRun, error: Exception) -> None:
        if not live.is_hampered:
            live.is_hampered = True
            log.error("a live run cannot be written down; it is tried again", error=str(error))

    def stop_all(self, reason: str, outcome: Outcome) -> None:
        """Ask every live run to end, and try no longer to settle what the disk refuses: we end as well."""
        self._is_ending = True
        for run_id in list(self._live):
            self.stop(run_id, reason, outcome)

    async def wait_all(self) -> None:
        """Until every live run is settled."""
        while pending := [live.finished for live in self._live.values() if live.finished]:
            await asyncio.wait(pending)

    async def abandon(self) -> None:
        """Stop following; workers go on under their shims and the next daemon adopts them."""
        tasks = [live.finished for live in self._live.values() if live.finished]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def live_runs(self) -> list[LiveRun]:
        return list(self._live.values())

    # -- one run, start to end --------------------------------------------------------------------

    def _parser(self, run: Run) -> StreamParser:
        provider = self._services.settings.providers.get(run.provider)
        return parser_for(provider.agent if provider else "generic")

    def _begin(self, live: LiveRun, *, adopted: bool) -> None:
        self._live[live.run.run_id] = live
        live.finished = asyncio.create_task(self._execute(live, adopted=adopted))

    async def _execute(self, live: LiveRun, *, adopted: bool) -> None:
        bind_contextvars(task=live.task.name, run=live.run.run_id)
        try:
            handle = live.handle if adopted and live.handle else await self._launch(live)
        except (WorkspaceError, PromptError, SpawnError) as error:
            await self._settle_guarded(live, None, failure=_not_started(live, error))
            return
        except Exception as error:  # one broken run must end as a counted run, not stop the others
            log.exception("run could not be started")
            await self._settle_guarded(live, None, failure=_not_started(live, error))
            return
        self._send_stop(live)  # asked for while the workspace was being made
        record = await self._follow(live, handle)
        await self._settle_guarded(live, record)

    async def _launch(self, live: LiveRun) -> WorkerHandle:
        """Workspace, prompt, worker; returns when the agent process has been started durably."""
        services, task, run = self._services, live.task, live.run
        repository = services.repository(task.repo)
        if repository is None:
            raise WorkspaceError(f"{task.repo} is no longer configured; nothing was started")
        auth = services.git_auth

        def prepare() -> Workspace:
            now = services.now()
            mirror = services.workspaces.ensure_mirror(
                repository.full_name, repository.remote_url, auth, now=now
            )
            return services.workspaces.prepare(
                mirror,
                task.name,
                task.branch,
                default_branch=None,
                auth=auth,
                now=now,
                not_older_than=live.seen_at,
            )

        live.workspace = await self._in_thread(prepare)
        provider = services.settings.providers.get(run.provider)
        if provider is None:
            raise SpawnError(f"provider {run.provider} is no longer configured")
        live.handle = await services.launcher.launch(self._spec(live, provider, live.workspace))
        live.run = replace(run, started_at=services.now())
        log.info(
            "worker started",
            provider=run.provider,
            model=run.model,
            pid=live.handle.child_pid,
            attempt=run.attempt,
        )
        return live.handle

    def _spec(self, live: LiveRun, provider: ProviderSettings, workspace: Workspace) -> LaunchSpec:
        services, task, run = self._services, live.task, live.run
        coordinator = services.settings.coordinator
        run_dir = Path(run.run_dir)
        manager = ProviderManager(
            services.settings, environ=services.environ, project_root=services.loaded.project_root
        )
        argv = manager.get_provider(run.provider).build_command(
            run_dir / "prompt.md", run.model, run_dir / "output.jsonl", workspace=workspace.path
        )
        # The worker stands in the workspace: a bare name must not be looked up there.
        argv[0] = manager.availability(run.provider).program or argv[0]
        marker = secrets.token_hex(16)
        return LaunchSpec(
            task=task.name,
            token=run.token,
            argv=tuple(argv),
            cwd=str(workspace.path),
            env=worker_environment(
                provider,
                services.environ,
                DIALECTS[provider.agent],
                marker=marker,
                run_dir=run_dir,
                attempt=run.attempt,
            ),
            marker=marker,
            prompt=self._prompt(live, workspace),
            deadline_at=services.now() + timedelta(hours=coordinator.worker_timeout_hours),
            stall=timedelta(minutes=coordinator.stall_timeout_minutes),
            stop_signal=provider.stop_signal,
            grace=timedelta(seconds=coordinator.stop_grace_seconds),
        )

    def _prompt(self, live: LiveRun, workspace: Workspace) -> str:
        task, run = live.task, live.run
        return render(
            self._services.loaded.prompts_dir,
            values=PromptValues(
                issue_number=task.issue_number,
                title=task.snapshot_title,
                body=task.snapshot_body,
                repo=task.repo,
                branch=workspace.branch,
                labels=task.labels,
                attempt=run.attempt,
                previous_failure=task.cause if run.attempt > 1 else None,
                default_branch=workspace.default_branch,
            ),
        )

    async def _follow(self, live: LiveRun, handle: WorkerHandle) -> ExitRecord | None:
        """Read the stream while the worker lives. Returns its exit record; None when it was lost."""
        waiting = asyncio.ensure_future(handle.wait())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=FOLLOW_SECONDS)
                if done:
                    return waiting.result()
                self._look(live)  # not for runs shorter than a tick: settling them says it all
        finally:
            waiting.cancel()

    def _look(self, live: LiveRun) -> None:
        """Take in what is new. A full disk or a locked store holds up our records, never the run."""
        try:
            self._send_stop(live)
            self._read_output(live)
            self._save_progress(live)
        except (CoordinatorError, OSError) as error:
            self._hampered(live, error)

    # -- the stream -------------------------------------------------------------------------------

    def _read_output(self, live: LiveRun) -> None:
        """Feed what is new in output.log to the parser and append it to the task's log."""
        path = Path(live.run.run_dir) / "output.log"
        try:
            with path.open("rb") as stream:
                stream.seek(live.offset)
                while chunk := stream.read(READ_CHUNK):
                    self._append_log(live, chunk, at=live.offset)
                    live.offset += len(chunk)
                    for event in live.parser.feed(chunk):
                        self._on_event(live, event)
        except FileNotFoundError:
            return  # never started, or the run directory was tampered with: the exit record decides

    def _append_log(self, live: LiveRun, chunk: bytes, *, at: int) -> None:
        fresh = chunk[max(0, live.saved_offset - at) :]  # an adopted run's log already holds the beginning
        if not fresh:
            return
        if live.log_file is None:
            path = self._services.loaded.log_dir / f"{live.task.name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            live.log_file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(live.log_file, fresh)

    def _on_event(self, live: LiveRun, event: AgentEvent) -> None:
        if isinstance(event, Retry):
            log.warning("provider error", status=event.error_status, error=event.error, attempt=event.attempt)
            if event.error_status in REFUSED_CREDENTIALS:  # an agent CLI would go on trying for minutes
                reason = f"{live.run.provider} refused the credentials ({event.error_status} {event.error})"
                self.stop(live.run.run_id, reason, Outcome.AUTH_FAILED)

    def _save_progress(self, live: LiveRun) -> None:
        if not live.is_marked and live.handle is not None:
            self._services.store.mark_started(
                live.run.run_id,
                now=live.run.started_at or self._services.now(),
                shim_pid=live.handle.shim_pid,
                child_pid=live.handle.child_pid,
            )
            live.is_marked = True
        if live.offset > live.saved_offset:
            usage = live.parser.finish().usage
            self._services.store.save_progress(
                live.run.run_id, live.run.token, offset=live.offset, usage=usage
            )
            live.saved_offset = live.offset

    # -- settling ---------------------------------------------------------------------------------

    async def _settle_guarded(
        self,
        live: LiveRun,
        record: ExitRecord | None,
        *,
        failure: RunOutcome | None = None,
        never_started: bool = False,
    ) -> None:
        """Settle the run, however often the disk or the store refuses: until then it keeps its slot."""
        bind_contextvars(task=live.task.name, run=live.run.run_id)
        try:
            while True:
                try:
                    outcome = failure or await self._outcome(live, record, never_started=never_started)
                    return self._finish(live, record, outcome)
                except (CoordinatorError, OSError) as error:
                    self._hampered(live, error)
                if self._is_ending:
                    return None  # the next daemon finds the run and settles it
                await asyncio.sleep(SETTLE_AGAIN_SECONDS)
        finally:
            if live.log_file is not None:
                os.close(live.log_file)
            self._live.pop(live.run.run_id, None)
            self._on_change()

    async def _outcome(self, live: LiveRun, record: ExitRecord | None, *, never_started: bool) -> RunOutcome:
        stop = live.stop or _recorded_stop(live.run)
        if stop and (never_started or record is None):
            return _stopped(stop)  # gone, as it was meant to be
        if never_started:
            return RunOutcome(
                outcome=Outcome.NEVER_STARTED, detail="the daemon ended before the agent was started"
            )
        self._read_output(live)
        summary = live.parser.finish()
        git, workspace_error = None, None
        try:
            git = await self._in_thread(self._keep_work, live) if record is not None else None
        except WorkspaceError as error:
            workspace_error = error
        verdict = self._classify(live, record, summary, git, stop)
        if workspace_error is not None and verdict.failure_class is FailureClass.WORKSPACE:
            return _preparation_failure(
                workspace_error
            )  # nothing else explains it: a stop, a limit, an exit code
        return verdict

    def _keep_work(self, live: LiveRun) -> GitState | None:
        """What the agent left, committed on the task's branch. Blocks; runs in a thread.

        Committed whatever the outcome: a retry goes on from it, and no clean-up can take it for rubbish.
        """
        workspaces = self._services.workspaces
        workspace = live.workspace or find_workspace(self._services, live.task)
        if workspace is None:
            return None
        state = workspaces.state(workspace)
        if state.has_changes:
            workspaces.commit_leftovers(workspace, commit_message(live.task))
        return state

    def _classify(
        self,
        live: LiveRun,
        record: ExitRecord | None,
        summary: StreamSummary,
        git: GitState | None,
        stop: tuple[str, Outcome] | None,
    ) -> RunOutcome:
        return classify(
            record,
            summary,
            git,
            stop_outcome=stop[1] if stop else None,
            stop_reason=stop[0] if stop else None,
            now=self._services.now(),
            fast_exit_seconds=self._services.settings.retries.fast_exit_seconds,
            stderr_tail=stderr_tail(Path(live.run.run_dir)),
        )

    def _finish(self, live: LiveRun, record: ExitRecord | None, outcome: RunOutcome) -> None:
        services, now = self._services, self._services.now()
        summary = live.parser.finish()
        cost = price(summary.usage, services.settings.models, provider=live.run.provider)
        verdict = after_run(
            live.task,
            outcome,
            policy=services.settings.retries,
            max_attempts=services.settings.coordinator.max_attempts,
            now=now,
        )
        settlement = Settlement(
            state=verdict.state,
            cause=services.redactor.text(verdict.cause) if verdict.cause else None,
            wake_at=verdict.wake_at,
            attempts=verdict.attempts,
            outbox=("pull_request", "report") if verdict.state is TaskState.SUCCEEDED else ("report",),
        )
        save_summary(Path(live.run.run_dir), summary, services.redactor.text)  # before anybody may quote it
        started_at = live.run.started_at or (record.started_at if record else None)
        if not services.store.finish(
            replace(live.run, started_at=started_at),
            outcome=outcome,
            usage=summary.usage,
            cost=cost,
            settlement=settlement,
            now=now,
        ):
            log.warning("a result came too late and was not taken", outcome=outcome.outcome.value)
            return
        ended = Ended(record=record, outcome=outcome, verdict=verdict, usage=summary.usage, cost=cost, at=now)
        try:
            self._log_call(live, ended)
        except OSError as error:  # the run is settled; the store has the same figures
            log.warning("the daily log of calls could not be written", error=str(error))
        log_finished(ended, services.settings.coordinator.max_attempts)

    def _log_call(self, live: LiveRun, ended: Ended) -> None:
        record = ended.record
        duration = (record.ended_at - record.started_at).total_seconds() if record else 0.0
        ClaudeAPILogger(self._services.loaded.log_dir, []).log_call(
            at=ended.at,
            task_id=live.task.name,
            token=live.run.token,
            attempt=live.run.attempt,
            provider=live.run.provider,
            model=live.run.model,
            usage=ended.usage,
            cost=ended.cost,
            duration_seconds=duration,
            outcome=ended.outcome.outcome.value,
            exit_code=ended.outcome.exit_code,
        )

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        future: Future[Any] = self._services.threads.submit(function, *args)
        return await asyncio.wrap_future(future)


def log_finished(ended: Ended, max_attempts: int) -> None:
    """The lines operators tail for: how it ended, what it took, what happens next."""
    outcome, verdict, usage = ended.outcome, ended.verdict, ended.usage
    log.info(
        "worker finished",
        outcome=outcome.outcome.value,
        detail=outcome.detail,
        tokens=report.tokens_text(usage.total, usage.source),
        cost=report.cost_text(ended.cost.usd),
    )
    match verdict.state:
        case TaskState.RETRY_WAIT if verdict.wake_at:
            wait = report.duration_text(verdict.wake_at - ended.at)
            log.info("will retry", attempt=f"{verdict.attempts}/{max_attempts}", backoff=wait)
        case TaskState.FAILED:
            log.error("failed permanently", cause=verdict.cause)
        case TaskState.BLOCKED:
            log.warning("blocked", cause=verdict.cause)
        case _:
            pass


def _not_started(live: LiveRun, error: Exception) -> RunOutcome:
    """A run that was to stop while it was being prepared has stopped, whatever else went wrong with it."""
    return _stopped(live.stop) if live.stop else _preparation_failure(error)


def _stopped(stop: tuple[str, Outcome]) -> RunOutcome:
    reason, outcome = stop
    return RunOutcome(outcome=outcome, detail=f"stopped: {reason}")


def _preparation_failure(error: Exception) -> RunOutcome:
    classes: Mapping[type[Exception], FailureClass] = {
        WorkspaceError: FailureClass.WORKSPACE,
        PromptError: FailureClass.PROMPT,
    }
    failure_class = classes.get(type(error), FailureClass.SPAWN)
    detail = str(error) or type(error).__name__
    return RunOutcome(outcome=Outcome.FAILED, failure_class=failure_class, detail=detail)


def _recorded_stop(run: Run) -> tuple[str, Outcome] | None:
    """A stop that an earlier daemon asked for, durable in the store."""
    if run.stop_reason is None or run.stop_outcome is None:
        return None
    return run.stop_reason, run.stop_outcome


def commit_message(task: Task) -> str:
    """Names the task and the issue; nothing of the issue's text goes into git's trailers."""
    return f"{report.pull_request_title(task)}\n\nFixes #{task.issue_number}"


def find_workspace(services: Services, task: Task) -> Workspace | None:
    """The task's worktree as an earlier daemon left it; None when there is none (any more). Blocks."""
    repository = services.repository(task.repo)
    if repository is None:
        return None
    mirror = services.workspaces.ensure_mirror(
        repository.full_name, repository.remote_url, services.git_auth, now=services.now()
    )
    return services.workspaces.find(mirror, task.name, task.branch)


# -- what a run leaves beside the shim's files ----------------------------------------------------


def stderr_tail(run_dir: Path, lines: int = 20) -> tuple[str, ...]:
    """The last lines the agent wrote to stderr, oldest first; empty when it wrote none."""
    try:
        with (run_dir / "stderr.log").open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 16_384))
            return tuple(stream.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()


def save_summary(run_dir: Path, summary: StreamSummary, redact: Callable[[str], str]) -> None:
    """What the pull request and the comment quote: the agent's own words and its last lines."""
    said = {
        "format": 1,
        "result": redact(summary.final.result_text) if summary.final else "",
        "last_lines": [redact(line) for line in summary.last_lines],
    }
    try:
        (run_dir / "summary.json").write_text(json.dumps(said))
    except OSError as error:
        log.warning("the agent's summary could not be kept", error=str(error))


def load_summary(run_dir: Path) -> tuple[str, tuple[str, ...]]:
    """(what the agent said it did, its last lines); empty when nothing was kept."""
    try:
        said = json.loads((run_dir / "summary.json").read_text())
        return str(said["result"]), tuple(str(line) for line in said["last_lines"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ()
