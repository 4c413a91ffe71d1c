"""START HERE. The daemon: wiring, then one loop that observes, plans and applies.

Timers, file changes, signals, polls and ended runs only put an event on the inbox. The loop takes
what is there, reads one frozen snapshot, lets the pure plan decide, and applies it. It is the only
writer of scheduling state. Runs belong to their shims: this process may end at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from time import monotonic

from adw_modules.errors import ConfigError, SpawnError, StoreDamaged, StoreError
from adw_modules.tasks.model import Outcome, Run, Task, TaskState
from adw_modules.tasks.planning import Requeue
from coordinator import enclosing, lastgood, ownerless, statusfile
from coordinator.apply import apply, withdraw_idle
from coordinator.breakers import Breakers
from coordinator.catalogjobs import CatalogueJob, CatalogueJobs
from coordinator.clock import Steps, utc_now
from coordinator.housekeeping import Housekeeping, HousekeepingDue
from coordinator.logs import Redactor, get_logger, secret_values
from coordinator.operators import Operators
from coordinator.outbox import Outbox
from coordinator.planner import Planner
from coordinator.rechecks import BeforeStart
from coordinator.schedule import PollDue, PollSchedule
from coordinator.services import Services, open_services
from coordinator.settings import Reloaded, ReloadFailed, SettingsSource
from coordinator.store import DAEMON, StateDir
from coordinator.supervisor import Supervisor
from coordinator.systemd.notify import Notifier
from coordinator.webhook import WebhookServer
from coordinator.workspaces import Workspaces

log = get_logger()

HEARTBEAT_SECONDS = 0.2  # config file and wake file are looked at this often (two stat calls)
STORE_AGAIN_SECONDS = 2.0
LONGEST_NAP_SECONDS = 3600.0
MIGRATION_SECONDS = 900.0  # what opening a store of an older version may take, at most
ADOPTION_SECONDS = 6.0  # the same for judging one run of the last daemon
END_SECONDS = 20.0  # to put everything away, once the runs that end with the daemon are settled
DRAIN_REPORT_SECONDS = 10.0  # a drained daemon still sends what is due within this time
RUNNING, ENDED = "running", "ended"  # values of the store's fact about the daemon


class Choice(StrEnum):
    """What to do with live runs when Ctrl-C is pressed on a terminal."""

    LEAVE = "leave"  # exit; they go on, and the next daemon takes them over
    END = "end"  # end them, then exit
    CONTINUE = "continue"  # do not exit at all


Ask = Callable[[Sequence[str]], Awaitable[Choice]]  # given the names of the tasks whose runs are live


class Wake(StrEnum):
    """Why the loop turns."""

    START = "start"
    TICK = "tick"
    POLLED = "polled"
    RUN_ENDED = "run ended"
    CONFIG = "config"
    OPERATOR = "operator"
    RECHECKED = "rechecked"  # GitHub has said whether a task may be started again
    HEALTH = "health"  # a target may be used that could not, or the other way round
    STOP = "stop"
    WATCHDOG = "watchdog"  # for nothing else but to show that it turns


Reason = Wake | PollDue | CatalogueJob | HousekeepingDue


class Daemon:
    """One process for one state directory. `run()` returns the exit code.

    The parts below are made by `run`, under the lock on the state directory; they are there once `up` is set.
    """

    services: Services
    planner: Planner
    breakers: Breakers
    supervisor: Supervisor
    outbox: Outbox
    polls: PollSchedule
    operators: Operators
    catalogue: CatalogueJobs
    housekeeping: Housekeeping
    _state_dir: StateDir

    def __init__(
        self,
        source: SettingsSource,
        *,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = utc_now,
        once: bool = False,
        end_runs_on_interrupt: bool = False,
        ask: Ask | None = None,
        workspaces: Workspaces | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._source = source
        self._environ = dict(os.environ if environ is None else environ)
        self._now = now
        self._started_at = now()
        self._once = once
        self._end_runs_on_interrupt = end_runs_on_interrupt
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._workspaces = workspaces
        self._redactor = redactor  # the log's own, so that both learn what a reload brings
        self._inbox: asyncio.Queue[Reason] = asyncio.Queue()
        self._stopping = False
        self._draining = False
        self._is_in_order = False  # the loop has come to its end, not to a fault
        self._end_runs = False
        self._wake_timer: asyncio.TimerHandle | None = None
        self.webhook: WebhookServer | None = None
        self._wake_signature: int = 0
        self._store_error: str | None = None
        self._notifier = Notifier(self._environ)
        self._clock_steps = Steps(utc_now)  # of the machine's clock, whatever `now` tells
        self.up = asyncio.Event()
        self.was_interrupted = False

    async def run(self) -> int:
        """Work until told to stop (or, with `once`, until there is nothing left to do)."""
        self._notifier.starting("opens the store", seconds=MIGRATION_SECONDS)
        with (
            StateDir(self._source.current.state_dir) as state_dir,
            open_services(
                self._source,
                state_dir,
                environ=self._environ,
                now=self._now,
                workspaces=self._workspaces,
                redactor=self._redactor,
            ) as services,
        ):
            self._assemble(services, state_dir)
            self.up.set()
            await self._live()
        return 0

    def _assemble(self, services: Services, state_dir: StateDir) -> None:
        self.services, self._state_dir = services, state_dir
        self.breakers = Breakers(services, lambda: self.wake(Wake.HEALTH))
        self.breakers.follow_settings()
        self.rechecks = BeforeStart(services=services, on_answer=self._rechecked)
        self.planner = Planner(services, self.breakers, self.rechecks)
        self.supervisor = Supervisor(services, self.breakers, self._run_ended)
        self.outbox = Outbox(services, lambda: self.wake(Wake.TICK) if self._once or self._draining else None)
        self.polls = PollSchedule(
            services,
            due=self.wake,
            polled=self._polled,
            withdraw=self._withdraw,
            pause=self._pause,
            repeats=not self._once,
        )
        self.operators = Operators(
            services=services,
            withdraw=self._withdraw,
            reload=self._reload,
            stop=self.stop,
            drain=self.drain,
            tidy=lambda: self.housekeeping.ask(),  # noqa: PLW0108  it is made below
            breakers=self.breakers,
            started_at=self._started_at,
            on_answer=self.outbox.kick,
        )
        self.catalogue = CatalogueJobs(services, due=self.wake)
        self.housekeeping = Housekeeping(services, state_dir, due=self.wake)

    async def _live(self) -> None:
        self._install_signals()
        await self._open_webhook()
        await self.services.launcher.start()
        await self._look_at_sandbox()
        self._banner()
        self._say_adoption_begins()
        await self.supervisor.adopt_all(after_crash=self._last_one_crashed())
        self._end_newer_runs()
        self._stop_held_runs()
        self.polls.start()
        sender = asyncio.create_task(self.outbox.run())
        beat = asyncio.create_task(self._heartbeat())
        self.polls.follow_settings()
        if not self._once:
            self.catalogue.follow_settings()
            self.housekeeping.follow_settings()
        if self.webhook is not None:
            await self.webhook.serve()
        self._unpark()  # the last daemon may have had another configuration, environment or machine
        self.wake(Wake.START)
        try:
            await self._loop()
            self._is_in_order = True
        finally:
            await self._shut_down(sender, beat)

    async def _open_webhook(self) -> None:
        """Take its port before anything is begun: who has it is the operator's to find out."""
        settings = self.services.settings.webhook
        if settings.enabled and not self._once:
            secrets = self._environ.get(settings.secret_env, "")
            self.webhook = WebhookServer(settings, secrets, self.polls.hint)
            await self.webhook.open()

    def _end_newer_runs(self) -> None:
        """What lives beyond an older copy of the store has no owner and never will have one."""
        try:
            for live in ownerless.end_newer(self._state_dir, self.services.store, self._now()):
                log.error("ending a run that the store does not know", task=live.task, run_dir=str(live.path))
        except StoreError as error:  # looked at again at the next start; `doctor` lists it
            log.error("a run that the store does not know cannot be ended", error=str(error))

    def _stop_held_runs(self) -> None:
        """The last daemon may have ended after it had paused a task and before it had stopped its run."""
        for task, run in self.services.store.open_runs():
            if task.held is not None and run.stop_reason is None:
                self._pause(task, task.held)

    # -- the loop: observe -> plan -> apply ---------------------------------------------------------

    async def _loop(self) -> None:
        while not self._stopping:
            reasons = await self._next_reasons()
            for reason in reasons:
                if isinstance(reason, PollDue):
                    self.polls.begin(reason)
                elif isinstance(reason, CatalogueJob):
                    self.catalogue.begin(reason)
                elif isinstance(reason, HousekeepingDue):
                    self.housekeeping.begin()
            if self._stopping:
                return
            try:
                if any(
                    reason is not Wake.RUN_ENDED for reason in reasons
                ):  # requests ring a bell of their own
                    self.operators.take_requests()
                if self._stopping:
                    return
                self._step()
            except StoreError as error:  # a full disk: nothing was written, nothing started; live runs go on
                self._store_refused(error)
                self._turned()
                continue
            self._store_error = None
            self._turned()
            if (self._once and self._nothing_left()) or (self._draining and self._is_drained()):
                return

    def _step(self) -> None:
        """All decisions of one step see one snapshot and one configuration."""
        is_claiming = not self._draining and self._asking is None
        actions = self.planner.plan(live_runs=len(self.supervisor.live_runs), claiming=is_claiming)
        apply(actions, self.services, self._start_run)
        if any(isinstance(action, Requeue) for action in actions):
            self.wake(Wake.TICK)  # what was put back may start at once
        if actions:
            self.outbox.kick()
        self._set_wake_timer()

    def _start_run(self, task: Task, run: Run) -> None:
        """A first attempt may use the fetch that its poll began; a later one wants today's base."""
        listed_at = self.polls.listed_at(task.repo) if task.attempts <= 1 else None
        self.supervisor.start(task, run, seen_at=monotonic() if listed_at is None else listed_at)

    def _store_refused(self, error: StoreError) -> None:
        """Say it once and turn again soon. What is damaged stays so until a restart on a good copy."""
        if str(error) != self._store_error:
            told = (
                "the database is damaged; nothing new is started"
                if isinstance(error, StoreDamaged)
                else "the store refuses; it is tried again"
            )
            log.error(told, error=str(error))
        self._store_error = str(error)
        asyncio.get_running_loop().call_later(STORE_AGAIN_SECONDS, self.wake, Wake.TICK)

    def _nothing_left(self) -> bool:
        counts = self.services.store.counts_by_state()
        waiting = counts.get(TaskState.QUEUED, 0) + counts.get(TaskState.RUNNING, 0)
        is_quiet = not waiting and not self.supervisor.live_runs
        return self.polls.has_polled_all and is_quiet and self.outbox.is_idle

    def _is_drained(self) -> bool:
        if self.supervisor.live_runs or self.outbox.is_busy:
            return False
        next_at = self.services.store.next_outbox_at()
        return next_at is None or next_at > self._now() + timedelta(seconds=DRAIN_REPORT_SECONDS)

    # -- why it turns -------------------------------------------------------------------------------

    def wake(self, reason: Reason) -> None:
        """Have the loop turn. Call on the loop's thread."""
        self._inbox.put_nowait(reason)

    async def _next_reasons(self) -> list[Reason]:
        reasons = [await self._inbox.get()]
        while not self._inbox.empty():
            reasons.append(self._inbox.get_nowait())
        return reasons

    def _set_wake_timer(self) -> None:
        """Turn again when the next waiting task is due."""
        if self._wake_timer is not None:
            self._wake_timer.cancel()
            self._wake_timer = None
        wake_at = self.services.store.next_wake_at()
        if wake_at is not None:
            delay = min(max(0.0, (wake_at - self._now()).total_seconds()), LONGEST_NAP_SECONDS)
            self._wake_timer = asyncio.get_running_loop().call_later(delay, self.wake, Wake.TICK)

    def _run_ended(self) -> None:
        """A run was settled: its slot is free, and its result is waiting to be published."""
        self.outbox.kick()
        self.wake(Wake.RUN_ENDED)

    def _rechecked(self) -> None:
        """A task may be started again, or was parked and that is to be told."""
        self.outbox.kick()
        self.wake(Wake.RECHECKED)

    def _polled(self, has_news: bool) -> None:
        self._write_status()
        if has_news or self._once:
            self.wake(Wake.POLLED)
            self.outbox.kick()

    def _withdraw(self, task: Task, reason: str) -> None:
        """End the work on a task whose issue went away, or that an operator cancels."""
        task = self.services.store.get_task(task.task_id) or task  # its run may have ended since it was read
        if task.state is TaskState.RUNNING:
            run = next((run for t, run in self.services.store.open_runs() if t.task_id == task.task_id), None)
            if run is not None:
                self.supervisor.stop(run.run_id, reason, Outcome.CANCELLED)
        elif withdraw_idle(self.services, task, reason):
            self.outbox.kick()

    def _pause(self, task: Task, reason: str) -> None:
        """Stop the run of a task that was held, if it has one; its work is kept, and planning parks it."""
        run = next((run for t, run in self.services.store.open_runs() if t.task_id == task.task_id), None)
        if run is not None:
            self.supervisor.stop(run.run_id, reason, Outcome.INTERRUPTED)
        self.outbox.kick()

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._check_clock()
            self._check_config()
            signature = self._state_dir.wake_signature()
            if signature != self._wake_signature:
                self._wake_signature = signature
                self.wake(Wake.OPERATOR)
            if self._notifier.is_feeding_due():
                self.wake(
                    Wake.WATCHDOG
                )  # the loop feeds it, not this task: only a loop that turns may live on

    def _check_clock(self) -> None:
        """No wait lasts longer because the clock was set back; set forward, those under way end early, once.

        Workers notice neither: their limits are the shims', on a clock that nobody sets.
        """
        step = self._clock_steps.look()
        if step is None:
            return
        log.warning("the clock was set", by_seconds=round(step.total_seconds()))
        if step < timedelta():
            self.services.github.clock_was_set_back(step)
            self.breakers.clock_was_set_back(step)
            try:
                self.services.store.clock_was_set_back(step)
            except StoreError as error:
                self._store_refused(error)
        self.polls.clock_was_set(step)
        if not self._once:
            self.catalogue.follow_settings()
        self.outbox.kick()
        self.wake(Wake.TICK)

    # -- configuration ------------------------------------------------------------------------------

    def _reload(self) -> str | None:
        self._check_config(force=True)
        return self._source.error

    def _check_config(self, *, force: bool = False) -> None:
        change = self._source.check(self._now(), force=force)
        match change:
            case Reloaded():
                self.services.redactor.learn(secret_values(change.loaded.settings, self._environ))
                log.info(
                    "configuration reloaded", version=change.loaded.version, changes=list(change.changes)
                )
                for warning in change.warnings:
                    log.warning(warning)
                lastgood.keep(self._state_dir.root, self._source.good_text)
                self.breakers.follow_settings()
                self.polls.follow_settings()
                if not self._once:
                    self.catalogue.follow_settings()
                    self.housekeeping.follow_settings()
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

    def _hung_up(self) -> None:
        self._notifier.reloading()
        self._reload()
        self._notifier.reloaded()
        self.wake(Wake.CONFIG)  # what systemd shows of us is said at the end of a turn

    def _unpark(self) -> None:
        """A new configuration may route what had no route: look at parked tasks with a wake time again."""
        try:
            self.services.store.wake_blocked(self._now())
            self.services.store.wake_limited(self._now(), self._source.current.version)
        except StoreError as error:  # they are looked at when their own time comes
            self._store_refused(error)

    # -- the end ------------------------------------------------------------------------------------

    def drain(self, wanted: bool = True) -> None:
        """Start no more runs, and leave the loop once the live ones are settled and reported."""
        self._draining = wanted
        self._write_status()
        self.wake(Wake.OPERATOR)

    def stop(self, *, end_runs: bool = False) -> None:
        """Stop claiming and leave the loop; live runs go on unless `end_runs`."""
        self._stopping, self._end_runs = True, self._end_runs or end_runs
        self.wake(Wake.STOP)

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError):  # not in the main thread: the caller stops us by `stop()`
            loop.add_signal_handler(signal.SIGTERM, lambda: self.stop(end_runs=self._end_runs_on_interrupt))
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _interrupted(self) -> None:
        """Ctrl-C. Ask about live runs where somebody can be asked; pressed again it means: leave them."""
        names = [live.task.name for live in self.supervisor.live_runs]
        if self._ask is None or self._asking is not None or not names:
            self.was_interrupted = True
            self.stop(end_runs=self._end_runs_on_interrupt)
        else:
            self._asking = asyncio.get_running_loop().create_task(self._ask_about_runs(self._ask, names))

    async def _ask_about_runs(self, ask: Ask, names: Sequence[str]) -> None:
        try:
            choice = await ask(names)
        finally:
            self._asking = None
        if choice is Choice.CONTINUE:
            self.wake(Wake.TICK)
            return
        self.was_interrupted = True
        self.stop(end_runs=choice is Choice.END)

    def _last_one_crashed(self) -> bool:
        """Whether the daemon before this one ended without saying so. Until it ends, neither has this one."""
        state = self.services.store
        has_crashed = state.get_state(DAEMON) == RUNNING
        state.set_state(DAEMON, RUNNING)
        if has_crashed:
            log.warning("the last daemon did not end in order", next="its runs are looked at")
        return has_crashed

    def _say_how_it_ends(self) -> None:
        if not self._is_in_order:
            return
        with contextlib.suppress(StoreError):  # then the next one takes this for a crash: harmless
            self.services.store.set_state(DAEMON, ENDED)

    async def _shut_down(self, sender: asyncio.Task[None], beat: asyncio.Task[None]) -> None:
        live = len(self.supervisor.live_runs)
        log.info("shutting down", live_runs=live, runs="are ended" if self._end_runs else "go on")
        self._notifier.stopping(
            f"stopping; live runs: {live}",
            seconds=self.supervisor.longest_end + END_SECONDS if self._end_runs else 0.0,
        )
        beat.cancel()
        if self._asking is not None:
            self._asking.cancel()
        if self.webhook is not None:
            await self.webhook.stop()
        self.polls.stop()
        self.catalogue.stop()
        self.housekeeping.stop()
        if self._end_runs:
            self.services.workspaces.stop()  # a run that still waits for git is not to start any more
            self.supervisor.stop_all("the operator interrupted the daemon", Outcome.INTERRUPTED)
            await self.supervisor.wait_all()
        else:
            await self.supervisor.abandon()
        self.rechecks.stop()
        await self.outbox.stop()
        sender.cancel()
        self.services.workspaces.stop()  # a git server that never answers must not hold us up
        parts = (self.polls.wait(), self.catalogue.wait(), self.housekeeping.wait())
        await asyncio.gather(sender, beat, *parts, return_exceptions=True)
        await self.services.launcher.close()
        self._say_how_it_ends()
        statusfile.remove(self._state_dir.root)
        log.info("stopped")

    # -- what systemd sees --------------------------------------------------------------------------

    def _say_adoption_begins(self) -> None:
        runs = len(self.services.store.open_runs())
        self._notifier.starting(f"takes over {runs} runs", seconds=30.0 + ADOPTION_SECONDS * runs)

    def _turned(self) -> None:
        """The loop has come round: the first time the service is ready, each time the watchdog is fed.

        Also while the store refuses: the loop turns, and a restart would find the same disk.
        """
        if self._notifier.is_heard:
            self._notifier.turned(self._one_line())

    def _one_line(self) -> str:
        live = len(self.supervisor.live_runs)
        try:
            counts = self.services.store.counts_by_state()
        except StoreError:
            return f"live runs: {live}; the store refuses"
        queued, waiting = counts.get(TaskState.QUEUED, 0), counts.get(TaskState.RETRY_WAIT, 0)
        broken = "; the changed configuration was not taken" if self._source.error else ""
        draining = "draining; " if self._draining else ""
        return f"{draining}live runs: {live}, queued: {queued}, waiting for a retry: {waiting}{broken}"

    # -- what people see ----------------------------------------------------------------------------

    async def _look_at_sandbox(self) -> None:
        """Once for the life of this process. Raises ConfigError where there has to be one and is none."""
        if self.services.settings.sandbox.mode == "off":
            return
        try:
            found = await self.services.in_thread(enclosing.wanted, self.services)
        except SpawnError as error:
            raise ConfigError(str(error)) from error
        if found.box is None:
            log.warning("workers run without a sandbox", reason=found.problem)

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
        lastgood.keep(self._state_dir.root, self._source.good_text)
        self._write_status()

    def _write_status(self) -> None:
        status = {
            "pid": os.getpid(),
            "started_at": self._started_at.isoformat(),
            "config": str(self._source.current.path),
            "config_version": self._source.current.version,
            "config_error": self._source.error,
            "draining": self._draining,
            "github": self.services.github.ledger.as_dict(),
            "repositories": self.polls.as_dict(),
            "webhook": self.webhook.as_dict() if self.webhook else None,
        }
        statusfile.write(self._state_dir.root, status)
