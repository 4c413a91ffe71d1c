"""From the end of a worker to the store: what it came to, its work kept, its task moved, its figures written.

`outcome.classify` says what happened and `retries.after_run` what follows; here is only what they need to
know and where the answers go. The write is fenced by the run's token. Must not touch a live process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from adw_modules.agents.stream import StreamSummary
from adw_modules.api_logger import ClaudeAPILogger
from adw_modules.catalogue import CataloguePrices
from adw_modules.errors import PromptError, WorkspaceError
from adw_modules.money.budget import RECHECK_RESERVED, reserved_for
from adw_modules.money.pricing import price
from adw_modules.money.sellers import terms_of
from adw_modules.money.usage import named
from adw_modules.routing import Target
from adw_modules.routing.failover import ContextWindow, Elsewhere, elsewhere, left
from adw_modules.security.network import advice
from adw_modules.tasks import report
from adw_modules.tasks.model import (
    Cost,
    ExitRecord,
    FailedTarget,
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
from adw_modules.tasks.retries import Verdict, after_run, own_back_off
from coordinator.budgeting import Room
from coordinator.faultpoints import Point, reached
from coordinator.logs import get_logger
from coordinator.network import refusals_of
from coordinator.preparing import find_workspace
from coordinator.rundir import earlier_success, save_summary, stderr_tail
from coordinator.selecting import listing_of
from coordinator.services import Services
from coordinator.store import Settlement
from coordinator.workspaces import Workspace

log = get_logger()

MOST_FAILURES = 50  # of one task and trigger that are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why we had a run stopped, and what it counts as."""

    reason: str
    outcome: Outcome
    until: datetime | None = None  # for a budget: when the task may be looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """All that is known of a run whose worker is gone."""

    task: Task
    run: Run
    record: ExitRecord | None  # None: there was no worker, or nobody saw it end
    stop: Stop | None
    workspace: Workspace | None  # None: find it
    summary: StreamSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What an ending came to: outcome, where it takes the task, what it used and cost."""

    outcome: RunOutcome
    verdict: Verdict
    usage: Usage
    cost: Cost
    at: datetime
    moves_on_to: tuple[Target, ...] = ()  # what is left of its chain, where another target may do better


# -- outcomes that need no look at the work -----------------------------------------------------------


def recorded_stop(run: Run) -> Stop | None:
    """A stop that an earlier daemon asked for, durable in the store."""
    if run.stop_reason is None or run.stop_outcome is None:
        return None
    return Stop(reason=run.stop_reason, outcome=run.stop_outcome, until=run.stop_until)


def not_started(error: Exception, stop: Stop | None) -> RunOutcome:
    """A run that was to stop while it was being prepared has stopped, whatever else went wrong with it."""
    return _stopped(stop) if stop else _preparation_failure(error)


def without_worker(record: ExitRecord | None, stop: Stop | None, *, never_started: bool) -> RunOutcome | None:
    """The outcome of a run that nothing more can be learned about; None when there is more to look at."""
    if stop and (never_started or record is None):
        return _stopped(stop)  # gone, as it was meant to be
    if never_started:
        return RunOutcome(
            outcome=Outcome.NEVER_STARTED, detail="the daemon ended before the agent was started"
        )
    return None


def poisoned(crashes: int) -> RunOutcome:
    """A run that nobody looks at any more, because each daemon that did has ended."""
    detail = (
        f"{crashes} daemons in a row ended while they handled it (coordinator.max_crashes_per_task); "
        "its output was not read again"
    )
    return RunOutcome(outcome=Outcome.FAILED, failure_class=FailureClass.POISON, detail=detail)


def _stopped(stop: Stop) -> RunOutcome:
    return RunOutcome(outcome=stop.outcome, detail=f"stopped: {stop.reason}")


def _preparation_failure(error: Exception) -> RunOutcome:
    classes: Mapping[type[Exception], FailureClass] = {
        WorkspaceError: FailureClass.WORKSPACE,
        PromptError: FailureClass.PROMPT,
    }
    failure_class = classes.get(type(error), FailureClass.SPAWN)
    detail = str(error) or type(error).__name__
    return RunOutcome(outcome=Outcome.FAILED, failure_class=failure_class, detail=detail)


# -- the outcome of a worker that ran -----------------------------------------------------------------


async def judge(services: Services, ending: Ending) -> RunOutcome:
    """Keep what the agent left, then say what it came to."""
    git, workspace_error = None, None
    try:
        if ending.record is not None:
            git = await services.in_thread(_keep_work, services, ending)
            reached(Point.WORK_KEPT)
    except WorkspaceError as error:
        workspace_error = error
    settled_before = earlier_success(Path(ending.run.run_dir)) if git is None and ending.record else None
    if settled_before is not None:
        return settled_before  # its workspace is gone because its work is published
    outcome = classify(
        ending.record,
        ending.summary,
        git,
        stop_outcome=ending.stop.outcome if ending.stop else None,
        stop_reason=ending.stop.reason if ending.stop else None,
        now=services.now(),
        fast_exit_seconds=services.settings.retries.fast_exit_seconds,
        stderr_tail=stderr_tail(Path(ending.run.run_dir)),
    )
    if workspace_error is not None and outcome.failure_class is FailureClass.WORKSPACE:
        # Nothing else explains it: a stop, a limit, an exit code.
        return _preparation_failure(workspace_error)
    return _with_advice(outcome, Path(ending.run.run_dir))


def _with_advice(outcome: RunOutcome, run_dir: Path) -> RunOutcome:
    """Whoever reads why a run has failed also reads what it could not reach, which may be why."""
    hint = "" if outcome.outcome is Outcome.SUCCEEDED else advice(refusals_of(run_dir))
    return replace(outcome, detail=f"{outcome.detail.removesuffix('.')}; {hint}") if hint else outcome


def _keep_work(services: Services, ending: Ending) -> GitState | None:
    """What the agent left, committed on the task's branch. Blocks; runs in a thread.

    Committed whatever the outcome: a retry goes on from it, and no clean-up can take it for rubbish.
    """
    workspace = ending.workspace or find_workspace(services, ending.task)
    if workspace is None:
        return None
    return services.workspaces.keep_work(workspace, commit_message(ending.task))


def commit_message(task: Task) -> str:
    """Names the task and the issue; nothing of the issue's text goes into git's trailers."""
    return f"{report.pull_request_title(task)}\n\nFixes #{task.issue_number}"


# -- into the store, then into the logs ---------------------------------------------------------------


def finish(services: Services, ending: Ending, outcome: RunOutcome) -> None:
    """Write the end of the run and the next state of its task, in one transaction; then log it."""
    if outcome.outcome is Outcome.OVER_BUDGET and ending.stop is not None:
        outcome = replace(outcome, retry_at=ending.stop.until)
    elif outcome.outcome is Outcome.OVER_BUDGET and _is_by_our_limit(services, ending):
        outcome = replace(outcome, retry_at=services.now() + RECHECK_RESERVED)
    outcome = replace(outcome, detail=services.redactor.text(outcome.detail))  # an agent's words may be in it
    settled = _settled(services, ending, outcome)
    reached(Point.OUTCOME_JUDGED)
    # Before anybody quotes it.
    save_summary(Path(ending.run.run_dir), ending.summary, services.redactor.text, outcome)
    reached(Point.SUMMARY_SAVED)
    started_at = ending.run.started_at or (ending.record.started_at if ending.record else None)
    if not services.store.finish(
        replace(ending.run, started_at=started_at),
        outcome=outcome,
        usage=settled.usage,
        cost=settled.cost,
        settlement=_settlement(services, ending, settled),
        now=settled.at,
    ):
        log.warning("a result came too late and was not taken", outcome=outcome.outcome.value)
        return
    reached(Point.SETTLED)
    try:
        _log_call(services, ending, settled)
        reached(Point.CALL_LOGGED)
    except OSError as error:  # the run is settled; the store has the same figures
        log.warning("the daily log of calls could not be written", error=str(error))
    _log_finished(ending, settled, services.settings.coordinator.max_attempts)


def _is_by_our_limit(services: Services, ending: Ending) -> bool:
    """Whether the agent stopped itself at what budgets had left for it; not at an option of its template."""
    final, providers = ending.summary.final, services.providers()
    if final is None or ending.run.provider not in providers.names or not reserved_for(ending.run).tokens:
        return False
    return providers.get_provider(ending.run.provider).has_added_limit(final.subtype)


def _left(services: Services, ending: Ending, outcome: RunOutcome) -> list[Target]:
    """The targets that the task may move on to at once after this outcome."""
    where = elsewhere(outcome, ending.summary.api_error_status)
    if where is Elsewhere.NOWHERE:  # most ends: nothing has to be read for them
        return []
    decision = services.store.decision_of(ending.run.run_id)
    chain = decision.targets if decision else []
    failed = Target(ending.run.provider, ending.run.model)
    found = left(where, failed, chain, ending.task.failed_on, _context_windows(services))
    if found and outcome.outcome is Outcome.OVER_BUDGET:
        room = Room(services.store, services.settings, services.now(), without=ending.run.run_id)
        return [target for target in found if room.has(ending.task, target)]
    return found


def _looks_around(task: Task, outcome: RunOutcome) -> bool:
    """Whether to look at the whole chain instead of waiting for the last of it: the first may be sooner."""
    is_waiting = outcome.outcome in {Outcome.RATE_LIMITED, Outcome.AUTH_FAILED}
    is_waiting |= outcome.outcome is Outcome.OVER_BUDGET and outcome.retry_at is not None
    return is_waiting and bool(task.failed_on)


def _context_windows(services: Services) -> ContextWindow:
    known = {Target(each.provider, each.name): each.context_window for each in services.settings.models}
    listing = listing_of(services.settings, services.store)

    def window(target: Target) -> int | None:
        return known.get(target) or (listing.context_of(target) if listing else None)

    return window


def _failed_on(
    services: Services, ending: Ending, outcome: RunOutcome, verdict: Verdict, now: datetime
) -> tuple[FailedTarget, ...]:
    """Where the task has failed since its last trigger, with this outcome. A success forgets it."""
    if elsewhere(outcome, ending.summary.api_error_status) is Elsewhere.NOWHERE:
        return () if verdict.state is TaskState.SUCCEEDED else ending.task.failed_on
    run, window = ending.run, _context_windows(services)(Target(ending.run.provider, ending.run.model))
    is_too_long = outcome.failure_class is FailureClass.PROMPT_TOO_LONG
    failed = FailedTarget(
        provider=run.provider,
        model=run.model,
        why=(outcome.failure_class or outcome.outcome).value,
        until=own_back_off(max(1, verdict.attempts), outcome, services.settings.retries, now),
        needs_context=window + 1 if is_too_long and window else None,
    )
    return (*ending.task.failed_on, failed)[-MOST_FAILURES:]


def _settled(services: Services, ending: Ending, outcome: RunOutcome) -> Settled:
    settings, now = services.settings, services.now()
    to = tuple(_left(services, ending, outcome))
    usage, cost = bill(services, ending.run, ending.summary.usage)
    return Settled(
        outcome=outcome,
        verdict=after_run(
            ending.task,
            outcome,
            policy=settings.retries,
            max_attempts=settings.coordinator.max_attempts,
            now=now,
            moves_on=bool(to) or _looks_around(ending.task, outcome),
        ),
        moves_on_to=to,
        usage=usage,
        cost=cost,
        at=now,
    )


def bill(services: Services, run: Run, usage: Usage) -> tuple[Usage, Cost]:
    """What the run used (so far), and what that cost at the prices of its time."""
    loaded = services.loaded
    terms = terms_of(
        run.provider,
        loaded.settings.providers,
        model=run.model,
        config_version=loaded.version,
        catalogue=CataloguePrices(services.store.price_history),
    )
    usage = named(usage, terms.asked)
    began = run.started_at or run.claimed_at
    return usage, price(usage, loaded.settings.models, at=began, terms=terms)


def _settlement(services: Services, ending: Ending, settled: Settled) -> Settlement:
    task, verdict, outcome = ending.task, settled.verdict, settled.outcome
    # Nothing of the run itself was ever handled: who ends the daemons may be this task all the same.
    is_unhandled = outcome.outcome is Outcome.NEVER_STARTED or outcome.failure_class is FailureClass.POISON
    return Settlement(
        state=verdict.state,
        cause=services.redactor.text(verdict.cause) if verdict.cause else None,
        wake_at=verdict.wake_at,
        attempts=verdict.attempts,
        lost=verdict.lost,
        crashes=task.crashes if is_unhandled else 0,
        failed_on=_failed_on(services, ending, outcome, verdict, settled.at),
        outbox=("pull_request", "report") if verdict.state is TaskState.SUCCEEDED else ("report",),
    )


def _log_call(services: Services, ending: Ending, settled: Settled) -> None:
    record, run = ending.record, ending.run
    ClaudeAPILogger(services.loaded.log_dir, []).log_call(
        at=settled.at,
        task_id=ending.task.name,
        token=run.token,
        attempt=run.attempt,
        provider=run.provider,
        model=run.model,
        usage=settled.usage,
        cost=settled.cost,
        duration_seconds=(record.ended_at - record.started_at).total_seconds() if record else 0.0,
        outcome=settled.outcome.outcome.value,
        exit_code=settled.outcome.exit_code,
    )


def _log_finished(ending: Ending, settled: Settled, max_attempts: int) -> None:
    """The lines operators tail for: how it ended, what it took, what happens next."""
    outcome, verdict, usage = settled.outcome, settled.verdict, settled.usage
    log.info(
        "worker finished",
        outcome=outcome.outcome.value,
        detail=outcome.detail,
        tokens=report.tokens_text(usage.total, usage.source),
        cost=report.cost_text(settled.cost),
    )
    match verdict.state:
        case TaskState.RETRY_WAIT if settled.moves_on_to:
            log.info(
                "moves on",
                attempt=f"{verdict.attempts}/{max_attempts}",
                failed=f"{ending.run.provider}/{ending.run.model}",
                left=[str(target) for target in settled.moves_on_to],
            )
        case TaskState.RETRY_WAIT if verdict.wake_at:
            wait = report.duration_text(verdict.wake_at - settled.at)
            log.info("will retry", attempt=f"{verdict.attempts}/{max_attempts}", backoff=wait)
        case TaskState.FAILED:
            log.error("failed permanently", cause=verdict.cause)
        case TaskState.BLOCKED:
            log.warning("blocked", cause=verdict.cause)
        case _:
            pass
