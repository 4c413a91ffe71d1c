"""Operators' requests: rows that commands leave in the store. Each is carried out once, and answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from adw_modules.security.leaks import without_tokens
from adw_modules.tasks.intake import is_refused
from adw_modules.tasks.lifecycle import Event, advance, allows
from adw_modules.tasks.model import Task
from coordinator import finds, identity
from coordinator.breakers import Breakers, Probed
from coordinator.logs import REDACTED, get_logger
from coordinator.services import Services
from coordinator.store import PAUSED, OperatorRequest

log = get_logger()

KILL_RUNS = "kill-runs"  # argument of the request to stop


class Stop(Protocol):
    """Ends the daemon, and its runs if wanted."""

    def __call__(self, *, end_runs: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """Answers them. Only the loop calls it, so that a request is a decision like any other."""

    services: Services
    withdraw: Callable[[Task, str], None]  # ends the work on a task
    reload: Callable[[], str | None]  # reads the configuration again; what is wrong with it
    stop: Stop
    tidy: Callable[[], str]  # begins housekeeping; what to answer
    drain: Callable[[bool], None]  # start no more runs and end with the last one; False: no longer
    started_at: datetime  # of this daemon: it takes no order to end that was meant for an earlier one
    on_answer: Callable[[], None]
    breakers: Breakers

    def take_requests(self) -> None:
        """Carry out what is pending."""
        for request in self.services.store.pending_requests():
            answer = self._answer(request)
            self.services.store.finish_request(request.request_id, answer)
            log.info("operator", verb=request.verb, answer=answer)
            self.on_answer()

    def _answer(self, request: OperatorRequest) -> str:
        match request.verb:
            case "pause":
                self.services.store.set_state(PAUSED, "yes")
                return "no new runs are started until `coordinator resume`"
            case "resume":
                self.services.store.set_state(PAUSED, None)
                self.drain(False)
                return "runs are started again"
            case "stop" | "drain" if request.created_at < self.started_at:
                return "that was meant for an earlier daemon"
            case "stop":
                end_runs = request.argument == KILL_RUNS
                self.stop(end_runs=end_runs)
                return "the daemon ends" + (" its runs and itself" if end_runs else "; live runs go on")
            case "drain":
                self.drain(True)
                return "no new runs are started; the daemon ends with its last run"
            case "budget":
                self.services.store.wake_blocked(self.services.now())
                return f"{request.argument}; what budgets refused is looked at again"
            case "pause-provider" | "resume-provider":
                return self._steer_provider(request.verb, request.argument or "")
            case "probed-provider":
                return self._take_probe(request.argument or "")
            case "accept":
                identity.accept(self.services.store, request.argument or "")
                return f"{request.argument} is taken as it is at the next poll"
            case "housekeeping":
                return self.tidy()
            case "reload":
                return self.reload() or "the configuration was read again"
        task = self.services.store.get_task(request.task_id) if request.task_id is not None else None
        if task is None:
            return "no such task"
        match request.verb:
            case "cancel":
                return self._cancel(task, request.argument or "cancelled by the operator")
            case "retry":
                return self._retry(task)
            case "allow-find":
                return self._allow_find(task, request.argument or "")
            case _:
                return f"unknown request {request.verb}"

    def _steer_provider(self, verb: str, name: str) -> str:
        if verb == "pause-provider":
            self.breakers.pause(name)
            return f"no new runs of {name} are started until `coordinator providers resume {name}`"
        self.breakers.resume(name)
        return f"{name} is asked again"

    def _take_probe(self, written: str) -> str:
        try:
            probed = Probed.read(written)
        except (ValueError, KeyError, TypeError):  # of another version
            return "what the probe showed cannot be read"
        return self.breakers.note_probe(probed)

    def _cancel(self, task: Task, reason: str) -> str:
        if task.state.is_terminal:
            return f"{task.name} has already ended ({task.state.value})"
        self.withdraw(task, reason)
        return f"{task.name} is being cancelled"

    def _allow_find(self, task: Task, written: str) -> str:
        try:
            asked = json.loads(written)
            name, reason = str(asked["find"]), str(asked["reason"])
        except (ValueError, KeyError, TypeError):  # of another version
            return "what was asked for cannot be read"
        services = self.services
        version = services.loaded.version
        reason = without_tokens(services.redactor.text(reason), REDACTED)
        return finds.allow(services.store, task, name, reason, config_version=version, now=services.now())

    def _retry(self, task: Task) -> str:
        if is_refused(task):  # nobody trusted has approved its text, and there is none to work on
            return f"{task.name} was {task.cause}; a retry needs the label from a person with write access"
        if task.held is not None:  # the approved text is not the one that stands there
            return f"{task.name} is paused: {task.held}"
        if not allows(task.state, Event.REQUEUED):
            return f"{task.name} is {task.state.value}; there is nothing to retry"
        self.services.store.transition(
            task.task_id,
            expected=task.state,
            state=advance(task.state, Event.REQUEUED),
            cause=None,
            wake_at=None,
            now=self.services.now(),
            start_over=True,
            outbox=("report",),
        )
        return f"{task.name} is queued again"
