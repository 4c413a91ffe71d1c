"""Doing what a plan says: one function per action, no policy. Beside them, cancelling a task without a run.

Each action is conditional in the store on the state the plan saw, so an action that lost a race
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import assert_never

from adw_modules.tasks.intake import is_refused
from adw_modules.tasks.lifecycle import Event, advance
from adw_modules.tasks.model import Outcome, Run, Task, TaskState
from adw_modules.tasks.planning import Action, Dispatch, Park, Requeue
from adw_modules.tasks.report import tells_later
from adw_modules.tasks.retries import UNCOUNTED
from coordinator.budgeting import budgets_of
from coordinator.faultpoints import Point, reached
from coordinator.launcher import is_alive
from coordinator.logs import about, get_logger
from coordinator.ownerless import newest_token
from coordinator.services import Services

log = get_logger()

STILL_ENDING = timedelta(seconds=2)  # until a run that was told to end is looked at again

StartRun = Callable[[Task, Run], None]
Follow = Callable[[], None]  # what is to be done after the transaction

TOGETHER = 50  # actions in one transaction, at most


def apply(actions: Sequence[Action], services: Services, start: StartRun) -> None:
    """Carry out what one step has decided. `start` begins a run that has been claimed durably.

    Some dozens share a transaction: each would wait for the disk on its own, and hold up the loop for it.
    """
    for first in range(0, len(actions), TOGETHER):
        with services.store.together():
            some = actions[first : first + TOGETHER]
            follow = [each for action in some if (each := _apply(action, services, start)) is not None]
        with ExitStack() as all_of_them:  # a fault in one must not leave others claimed and never started
            for each in reversed(follow):
                all_of_them.callback(each)


def _apply(action: Action, services: Services, start: StartRun) -> Follow | None:
    """Write the action down. What is returned is done once that is durable."""
    match action:
        case Dispatch():
            return dispatch(action, services, start)
        case Park():
            return park(action, services)
        case Requeue():
            return requeue(action, services)
        case _:
            assert_never(action)


def dispatch(action: Dispatch, services: Services, start: StartRun) -> Follow | None:
    """Claim the task (attempt and token rise in that transaction); then log the decision, start the run."""
    if _hold(action.task, services):
        return None
    decision = action.decision

    def run_dir_of(task: Task, token: int) -> str:
        return str(services.launcher.run_dir(task.name, token))

    now, failure = services.now(), None
    if action.task.attempts:  # before the claim: what is claimed starts, whatever the store does then
        failure = _last_failure(action.task, services)
    claimed = services.store.claim(
        action.task.task_id,
        decision=decision.stored(),
        config_version=services.loaded.version,
        run_dir_of=run_dir_of,
        now=now,
        report_at=now + services.report_delay,
        budgets=budgets_of(services.settings),
    )
    return partial(_start, action, services, start, claimed, failure) if claimed is not None else None


def _start(
    action: Dispatch, services: Services, start: StartRun, claimed: tuple[Task, Run], failure: str | None
) -> None:
    reached(Point.CLAIMED)
    decision, (task, run) = action.decision, claimed
    log.info(
        decision.log_line,
        **about(task, run),
        reason=decision.reason,
        attrs=dict(decision.attrs),
    )
    if run.attempt > 1:
        log.info(
            "retry",
            **about(task, run),
            attempt=f"{run.attempt}/{services.settings.coordinator.max_attempts}",
            last_failure=failure,
        )
    start(replace(task, cause=failure), run)  # its prompt tells what went wrong before


def _last_failure(task: Task, services: Services) -> str | None:
    """What went wrong with the work, whatever the task has waited for since: a budget, a provider.

    Of the last run that counts as an attempt, else of the last at all. Work that was done and could not be
    published is another matter: only the task knows of that.
    """
    ended = [run for run in services.store.runs_of(task.task_id) if run.outcome is not None]
    if not ended or ended[-1].outcome is Outcome.SUCCEEDED:
        return task.cause
    counted = [run for run in ended if run.outcome not in {*UNCOUNTED, Outcome.SUCCEEDED}]
    last = (counted or ended)[-1]
    return services.redactor.text(last.detail) if last.detail else task.cause


def _hold(task: Task, services: Services) -> bool:
    """Keep a task from starting that has been worked on beyond what the store knows; True when it is held.

    After an older copy of the database was put back its tokens were given out before: the runs are there,
    and whether to pay for another one is for a person to say.
    """

    def run_dir_of(token: int) -> Path:
        return services.launcher.run_dir(task.name, token)

    newest = newest_token(run_dir_of, task.token)
    if newest == task.token and not is_alive(run_dir_of(task.token)):
        return False
    now, wake_at = services.now(), None
    if newest == task.token:
        cause, wake_at = f"its run {task.token} is still ending", now + STILL_ENDING
    else:
        cause = (
            f"run {newest} of it was started by a daemon whose database is gone: look at its pull request "
            f"and at {run_dir_of(newest)}, then `coordinator retry` if it is to be worked on again"
        )
        log.warning("held back: its runs are newer than the store", task=task.name, newest=newest)
    return services.store.transition(
        task.task_id,
        expected=task.state,
        state=advance(task.state, Event.PARKED),
        cause=cause,
        wake_at=wake_at,
        now=now,
        token=newest,
        outbox=("report",) if wake_at is None else (),
    )


def park(action: Park, services: Services) -> Follow | None:
    """Take a task that cannot run out of the queue, with its cause and the time of the next look."""
    now, is_news = services.now(), action.cause != action.task.cause
    again_at = None if is_news else tells_later(action.task.told_wake_at, action.wake_at, now)
    parked = services.store.transition(
        action.task.task_id,
        expected=action.task.state,
        state=advance(action.task.state, Event.PARKED),
        cause=action.cause,
        wake_at=action.wake_at,
        now=now,
        report_at=again_at,
        outbox=("report",) if is_news or again_at is not None else (),
    )
    if not parked or not is_news:
        return None
    look = str(action.wake_at or "when asked")
    return partial(log.warning, "parked", task=action.task.name, cause=action.cause, next_look=look)


def requeue(action: Requeue, services: Services) -> Follow:
    """Put a task whose waiting is over back into the queue; its cause stays for the next prompt and `why`."""
    services.store.transition(
        action.task.task_id,
        expected=action.task.state,
        state=advance(action.task.state, action.event),
        cause=action.task.cause,
        wake_at=None,
        now=services.now(),
    )
    return lambda: reached(Point.REQUEUED)


def withdraw_idle(services: Services, task: Task, reason: str) -> bool:
    """Cancel a task that has no live run. False when it is running (or already ended)."""
    if task.state is TaskState.RUNNING or task.state.is_terminal:
        return False
    changed = services.store.transition(
        task.task_id,
        expected=task.state,
        state=advance(task.state, Event.WITHDRAWN),
        cause=reason,
        wake_at=None,
        now=services.now(),
        outbox=() if is_refused(task) else ("report",),
    )
    if changed:
        log.info("cancelled", task=task.name, reason=reason)
    return changed
