"""START HERE. The daemon: wiring, then one loop that observes, plans and applies.

Timers, file changes, signals, polls and ended runs only put an event on the inbox. The loop takes
what is there, reads one frozen snapshot, lets the pure plan decide, and applies it. It is the only
writer of scheduling state. Runs belong to their shims: this process may end at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adw_modules.config import Settings
from adw_modules.errors import IllegalTransition, SpawnError, StoreError
from adw_modules.providers import ProviderManager
from adw_modules.routing import ModelRouter
from adw_modules.tasks import planning
from adw_modules.tasks.intake import is_refused
from adw_modules.tasks.lifecycle import Event as TaskEvent
from adw_modules.tasks.lifecycle import advance, allows
from adw_modules.tasks.model import Outcome, Run, Task, TaskState
from coordinator.apply import apply
from coordinator.clock import utc_now
from coordinator.github import GitHub
from coordinator.launcher import Alive, Exited, Launcher, Lost, NeverStarted
from coordinator.logs import Redactor, get_logger, secret_names
from coordinator.outbox import Outbox
from coordinator.polling import RepositoryPoller, withdraw_idle
from coordinator.services import Services
from coordinator.settings import Reloaded, ReloadFailed, SettingsSource
from coordinator.store import PAUSED, StateDir, Store
from coordinator.supervisor import Supervisor

log = get_logger()

HEARTBEAT_SECONDS = 0.2  # config file and wake file are looked at this often (two stat calls)
GIT_THREADS = 4
STORE_AGAIN_SECONDS = 2.0


class Wake(StrEnum):
    """Why the loop turns."""

    START = "start"
    TICK = "tick"
    POLLED = "polled"
    RUN_ENDED = "run ended"
    CONFIG = "config"
    OPERATOR = "operator"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollDue:
    """A timer says that a repository is to be polled."""

    repository: str


class Daemon:
    """One process for one state directory. `run()` returns the exit code."""

    def __init__(
        self,
        source: SettingsSource,
        *,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = utc_now,
        once: bool = False,
        end_runs_on_interrupt: bool = False,
        workspaces: Any = None,
    ) -> None:
        self._source = source
        self._environ = dict(os.environ if environ is None else environ)
        self._now = now
        self._once = once
        self._end_runs_on_interrupt = end_runs_on_interrupt
        self._workspaces = workspaces
        self._inbox: asyncio.Queue[Wake | PollDue] = asyncio.Queue()
        self._pollers: dict[str, RepositoryPoller] = {}
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._end_runs = False
        self.was_interrupted = False
        self._wake_timer: asyncio.TimerHandle | None = None
        self._wake_signature: int = 0
        self._store_error: str | None = None
        self._seen_at: dict[int, float] = {}
        self._router: tuple[str, planning.Route] | None = None

    # -- life ---------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Work until told to stop (or, with `once`, until there is nothing left to do)."""
        with StateDir(self._source.current.state_dir) as state_dir, contextlib.ExitStack() as stack:
            await self._run(self._wire(state_dir, stack), state_dir)
        return 0

    def _wire(self, state_dir: StateDir, stack: contextlib.ExitStack) -> Services:
        settings = self._source.current.settings
        token = self._environ.get(settings.github.token_env, "")
        store = Store.open(self._source.current.database_url, now=self._now())
        stack.callback(store.close)
        threads = ThreadPoolExecutor(GIT_THREADS, thread_name_prefix="git")
        stack.callback(threads.shutdown, cancel_futures=True)
        github = GitHub(
            api_url=settings.github.api_url,
            token=token,
            timeout_seconds=settings.github.request_timeout_seconds,
            writes_per_minute=settings.github.writes_per_minute,
            now=self._now,
        )
        stack.callback(github.close)
        return Services(
            source=self._source,
            store=store,
            github=github,
            launcher=Launcher(state_dir.runs),
            workspaces=self._workspaces or make_workspaces(self._source, state_dir),
            threads=threads,
            environ=self._environ,
            redactor=Redactor.from_environ(secret_names(settings), self._environ),
            now=self._now,
        )

    async def _run(self, services: Services, state_dir: StateDir) -> None:
        self.services, self._state_dir = services, state_dir
        self.supervisor = Supervisor(services, self._run_ended)
        self.outbox = Outbox(services, lambda: self.wake(Wake.TICK) if self._once else None)
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._install_signals()
        await services.launcher.start()
        self._banner()
        self._adopt_runs()
        self._scheduler.start()
        sender = asyncio.create_task(self._publish())
        beat = asyncio.create_task(self._heartbeat())
        self._set_up_pollers()
        self.wake(Wake.START)
        try:
            await self._loop()
        finally:
            await self._shut_down(sender, beat)

    async def _publish(self) -> None:
        await self.outbox.run()

    async def _shut_down(self, sender: asyncio.Task[None], beat: asyncio.Task[None]) -> None:
        live = len(self.supervisor.live_runs)
        log.info("shutting down", live_runs=live, runs="are ended" if self._end_runs else "go on")
        beat.cancel()
        self._scheduler.shutdown(wait=False)
        for poll in self._polling.values():
            poll.cancel()
        if self._end_runs:
            self.services.workspaces.stop()  # a run that still waits for git is not to start any more
            self.supervisor.stop_all("the operator interrupted the daemon", Outcome.INTERRUPTED)
            await self.supervisor.wait_all()
        else:
            await self.supervisor.abandon()
        await self.outbox.stop()
        sender.cancel()
        self.services.workspaces.stop()  # a git server that never answers must not hold us up
        await asyncio.gather(sender, beat, *self._polling.values(), return_exceptions=True)
        await self.services.launcher.close()
        (self._state_dir.root / "daemon.json").unlink(missing_ok=True)
        log.info("stopped")

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # not in the main thread: the caller stops us by `stop()`
            loop.add_signal_handler(signal.SIGTERM, lambda: self.stop(end_runs=self._end_runs_on_interrupt))
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
            loop.add_signal_handler(signal.SIGHUP, lambda: self._check_config(force=True))

    def _interrupted(self) -> None:
        self.was_interrupted = True
        self.stop(end_runs=self._end_runs_on_interrupt)

    def stop(self, *, end_runs: bool = False) -> None:
        """Stop claiming and leave the loop; live runs go on unless `end_runs`."""
        self._stopping, self._end_runs = True, self._end_runs or end_runs
        self.wake(Wake.STOP)

    def wake(self, reason: Wake | PollDue) -> None:
        """Have the loop turn. Call on the loop's thread."""
        self._inbox.put_nowait(reason)

    # -- the loop -----------------------------------------------------------------------------------

    async def _loop(self) -> None:
        while not self._stopping:
            reasons = [await self._inbox.get()]
            while not self._inbox.empty():
                reasons.append(self._inbox.get_nowait())
            for reason in reasons:
                if isinstance(reason, PollDue):
                    self._begin_poll(reason.repository)
            if self._stopping:
                return
            try:
                self._take_requests()
                self._step()
            except StoreError as error:  # a full disk: nothing was written, nothing started; live runs go on
                self._store_refused(error)
                continue
            self._store_error = None
            if self._once and self._nothing_left():
                return

    def _store_refused(self, error: StoreError) -> None:
        """Say it once and turn again soon."""
        if str(error) != self._store_error:
            log.error("the store refuses; it is tried again", error=str(error))
        self._store_error = str(error)
        asyncio.get_running_loop().call_later(STORE_AGAIN_SECONDS, self.wake, Wake.TICK)

    def _step(self) -> None:
        """Observe, plan, apply. All decisions of one step see one snapshot and one configuration."""
        services, settings = self.services, self.services.settings
        limits = planning.Limits(
            max_concurrent=settings.coordinator.max_concurrent_workers,
            max_runs_per_issue=settings.coordinator.max_runs_per_issue,
            per_provider={
                name: provider.max_concurrent_runs
                for name, provider in settings.providers.items()
                if provider.max_concurrent_runs is not None
            },
            own_label_prefix=settings.github.status_label_prefix,
        )
        actions = self._plan(limits)
        for action in actions:
            apply(action, services, self._start_run)
        if any(isinstance(action, planning.Requeue) for action in actions):
            self.wake(Wake.TICK)  # what was put back may start at once
        if actions:
            self.outbox.kick()
        self._set_wake_timer()

    def _plan(self, limits: planning.Limits) -> list[planning.Action]:
        """Plan over as much of the queue as fills the free slots: more of it only when busy providers hold
        back what stands in front, so that a step costs the same however long the queue is."""
        services, now = self.services, self._now()
        free = max(0, limits.max_concurrent - len(self.supervisor.live_runs))
        ready_limit = free
        while True:
            snapshot = services.store.snapshot(
                now=now, ready_limit=ready_limit, config_version=services.loaded.version
            )
            actions = planning.plan(snapshot, limits=limits, route=self._route())
            acted_on = sum(1 for action in actions if not isinstance(action, planning.Requeue))
            held_back = len(snapshot.ready) - acted_on
            if not held_back or snapshot.paused or len(snapshot.ready) < ready_limit:
                return actions
            ready_limit *= 4

    def _run_ended(self) -> None:
        """A run was settled: its slot is free, and its result is waiting to be published."""
        self.outbox.kick()
        self.wake(Wake.RUN_ENDED)

    def _start_run(self, task: Task, run: Run) -> None:
        self.supervisor.start(task, run, seen_at=self._fresh_since(task))

    def _fresh_since(self, task: Task) -> float:
        """A first attempt may use the fetch that its poll began; a later one wants today's base."""
        poller = self._pollers.get(task.repo)
        if poller is not None and task.attempts <= 1 and poller.listed_at is not None:
            return poller.listed_at
        return monotonic()

    def _route(self) -> planning.Route:
        """The router for the configuration in force; made anew only when that changed."""
        loaded = self.services.loaded
        if self._router is None or self._router[0] != loaded.version:
            self._router = (
                loaded.version,
                make_route(loaded.settings, self._environ, loaded.project_root, self._now),
            )
        return self._router[1]

    def _set_wake_timer(self) -> None:
        """Turn again when the next waiting task is due."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        wake_at = self.services.store.next_wake_at()
        if wake_at is not None:
            delay = min(max(0.0, (wake_at - self._now()).total_seconds()), 3600.0)
            self._wake_timer = asyncio.get_running_loop().call_later(delay, self.wake, Wake.TICK)

    def _nothing_left(self) -> bool:
        counts = self.services.store.counts_by_state()
        waiting = counts.get(TaskState.QUEUED, 0) + counts.get(TaskState.RUNNING, 0)
        polled = all(poller.polled_once for poller in self._pollers.values()) and not self._polling
        return polled and not waiting and not self.supervisor.live_runs and self.outbox.is_idle

    # -- polls ----------------------------------------------------------------------------------------

    def _set_up_pollers(self) -> None:
        """One poller per configured repository; new ones are due at once, removed ones stop."""
        wanted = {
            repository.full_name: repository for repository in self.services.settings.all_repositories()
        }
        for gone in self._pollers.keys() - wanted.keys():
            del self._pollers[gone]
            if self._scheduler.get_job(gone):
                self._scheduler.remove_job(gone)
        for name, repository in wanted.items():
            known = self._pollers.get(name)
            if known is not None and known.repository == repository:
                continue
            self._pollers[name] = RepositoryPoller(
                services=self.services, repository=repository, withdraw=self._withdraw
            )
            self.wake(PollDue(repository=name))

    def _begin_poll(self, name: str) -> None:
        poller = self._pollers.get(name)
        if poller is None or name in self._polling:
            return
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
            if not self._once and self._pollers.get(name) is poller:
                due = poller.schedule_next(self._now())
                self._scheduler.add_job(
                    self.wake,
                    "date",
                    run_date=due,
                    args=[PollDue(repository=name)],
                    id=name,
                    replace_existing=True,
                    misfire_grace_time=None,  # a late poll is still a poll
                )
            self._write_status()
            if has_news or self._once:
                self.wake(Wake.POLLED)
                self.outbox.kick()

    def _withdraw(self, task: Task, reason: str) -> None:
        """End the work on a task whose issue went away."""
        if task.state is TaskState.RUNNING:
            run = next((run for t, run in self.services.store.open_runs() if t.task_id == task.task_id), None)
            if run is not None:
                self.supervisor.stop(run.run_id, reason, Outcome.CANCELLED)
        elif withdraw_idle(self.services, task, reason):
            self.outbox.kick()

    # -- start: runs that outlived the last daemon ------------------------------------------------------

    def _adopt_runs(self) -> None:
        for task, run in self.services.store.open_runs():
            try:
                self._adopt(task, run)
            except SpawnError as error:  # stays as it is until the next start; the others go on
                log.error("a run cannot be judged", task=task.name, run=run.run_id, error=str(error))

    def _adopt(self, task: Task, run: Run) -> None:
        state = self.services.launcher.adopt(Path(run.run_dir))
        log.info("found a run", task=task.name, run=run.run_id, found=type(state).__name__.lower())
        match state:
            case Alive(handle=handle):
                self.supervisor.adopt(task, run, handle)
                if run.stop_reason is not None:
                    handle.stop(run.stop_reason)
            case Exited(record=record):
                self.supervisor.settle_ended(task, run, record)
            case Lost():
                self.supervisor.settle_ended(task, run, None)
            case NeverStarted():
                self.supervisor.settle_ended(task, run, None, never_started=True)

    # -- configuration and operators --------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._check_config()
            signature = self._state_dir.wake_signature()
            if signature != self._wake_signature:
                self._wake_signature = signature
                self.wake(Wake.OPERATOR)

    def _check_config(self, *, force: bool = False) -> None:
        change = self._source.check(self._now(), force=force)
        match change:
            case Reloaded():
                log.info(
                    "configuration reloaded", version=change.loaded.version, changes=list(change.changes)
                )
                for warning in change.warnings:
                    log.warning(warning)
                self._set_up_pollers()
                self._write_status()
                self._unpark()
                self.wake(Wake.CONFIG)
            case ReloadFailed():
                log.error(
                    "configuration not taken; the last good one stays in force",
                    problems=list(change.problems),
                )
                self._write_status()
            case None:
                pass

    def _unpark(self) -> None:
        """A new configuration may route what had no route: look at parked tasks with a wake time again."""
        try:
            self.services.store.wake_blocked(self._now())
        except StoreError as error:  # they are looked at when their own time comes
            self._store_refused(error)

    def _take_requests(self) -> None:
        for request in self.services.store.pending_requests():
            answer = self._answer(request.verb, request.task_id, request.argument)
            self.services.store.finish_request(request.request_id, answer)
            log.info("operator", verb=request.verb, answer=answer)
            self.outbox.kick()

    def _answer(self, verb: str, task_id: int | None, argument: str | None) -> str:
        """Do what an operator asked for; the answer is one sentence for them."""
        store, now = self.services.store, self._now()
        if verb in ("pause", "resume"):
            store.set_state(PAUSED, "yes" if verb == "pause" else None)
            return (
                "no new runs are started until `coordinator resume`"
                if verb == "pause"
                else "runs are started again"
            )
        if verb == "reload":
            self._check_config(force=True)
            return self._source.error or "the configuration was read again"
        task = store.get_task(task_id) if task_id is not None else None
        if task is None:
            return "no such task"
        if verb == "cancel":
            if task.state.is_terminal:
                return f"{task.name} has already ended ({task.state.value})"
            self._withdraw(task, argument or "cancelled by the operator")
            return f"{task.name} is being cancelled"
        if verb == "retry":
            if is_refused(task):  # nobody trusted has approved its text, and there is none to work on
                return (
                    f"{task.name} was {task.cause}; a retry needs the label from a person with write access"
                )
            if not allows(task.state, TaskEvent.REQUEUED):
                return f"{task.name} is {task.state.value}; there is nothing to retry"
            try:
                state = advance(task.state, TaskEvent.REQUEUED)
            except IllegalTransition as error:
                return str(error)
            store.transition(
                task.task_id, expected=task.state, state=state, cause=None, wake_at=None, now=now, attempts=0,
                outbox=("report",),
            )  # fmt: skip
            return f"{task.name} is queued again"
        return f"unknown request {verb}"

    # -- what people see ---------------------------------------------------------------------------------

    def _banner(self) -> None:
        settings = self.services.settings
        log.info(
            "coordinator starts",
            config=str(self._source.current.path),
            version=self._source.current.version,
            repositories=[repository.full_name for repository in settings.all_repositories()],
            max_concurrent_workers=settings.coordinator.max_concurrent_workers,
            poll_interval_seconds=settings.coordinator.poll_interval_seconds,
            routing="enabled" if settings.routing.enabled else "disabled",
            state_dir=str(self._state_dir.root),
        )
        for warning in settings.warnings():
            log.warning(warning)
        self._write_status()

    def _write_status(self) -> None:
        """What `coordinator status` and `why` show beyond the store: a small file, replaced atomically."""
        status = {
            "pid": os.getpid(),
            "config": str(self._source.current.path),
            "config_version": self._source.current.version,
            "config_error": self._source.error,
            "github": self.services.github.ledger.as_dict(),
            "repositories": {
                name: {
                    "next_poll_at": poller.next_poll_at.isoformat() if poller.next_poll_at else None,
                    "last_error": poller.last_error,
                }
                for name, poller in self._pollers.items()
            },
        }
        target = self._state_dir.root / "daemon.json"
        temporary = target.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk must not stop the loop; the log has the same facts
            temporary.write_text(json.dumps(status))
            temporary.replace(target)


# -- wiring helpers -----------------------------------------------------------------------------------


def make_route(
    settings: Settings, environ: Mapping[str, str], project_root: Path, now: Callable[[], datetime]
) -> planning.Route:
    """Routing by the rules, with provider availability and free slots as eligibility."""
    providers = ProviderManager(settings, environ=environ, project_root=project_root)
    return ModelRouter(settings, providers=providers, now=now).decide


def make_workspaces(source: SettingsSource, state_dir: StateDir) -> Any:
    from coordinator.workspaces import Workspaces

    settings = source.current.settings
    return Workspaces(
        repos_dir=state_dir.repos,
        trees_dir=source.current.worktree_dir,
        quarantine_dir=state_dir.quarantine,
        git_user=(settings.github.git_user_name, settings.github.git_user_email),
    )
