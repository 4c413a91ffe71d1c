"""Whether another target helps after a failure, and which are left. Pure.

A task moves on at once only to a target it has not failed on since its last trigger, so that moves end with
the chain. Everything else waits as it always did. Attempts and runs are bounded as without any fallback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from adw_modules.routing.eligibility import Checker, Refusal
from adw_modules.routing.trace import Target
from adw_modules.tasks.model import FailedTarget, FailureClass, Outcome, RunOutcome

ContextWindow = Callable[[Target], int | None]  # tokens; None where nobody has said


class Elsewhere(StrEnum):
    """Where else a task that has failed may succeed with the same input."""

    NOWHERE = "nowhere"
    ANYWHERE = "anywhere"
    LARGER = "larger"  # only where the context is larger


# About the target, not about the task: the same input may do well elsewhere.
_OF_THE_TARGET = frozenset(
    {
        FailureClass.API_ERROR,
        FailureClass.FAST_EXIT,
        FailureClass.NO_RESULT,
        FailureClass.SPAWN,
    }
)
# A refusal of the request itself: whoever gets the same input refuses it, too.
_REQUEST_REFUSED = frozenset({400, 405, 406, 409, 410, 411, 412, 414, 415, 416, 417, 422, 431, 451})


def elsewhere(outcome: RunOutcome, status: int | None) -> Elsewhere:
    """What kind of target helps. `status`: the HTTP status that the agent gave up on, if there was one."""
    match outcome.outcome:
        case Outcome.RATE_LIMITED | Outcome.AUTH_FAILED | Outcome.STALLED:
            return Elsewhere.ANYWHERE
        case Outcome.OVER_BUDGET if outcome.retry_at is not None:  # a budget's, which may be of the provider
            return Elsewhere.ANYWHERE
        case Outcome.FAILED if outcome.failure_class is FailureClass.PROMPT_TOO_LONG:
            return Elsewhere.LARGER
        case Outcome.FAILED if outcome.failure_class in _OF_THE_TARGET and status not in _REQUEST_REFUSED:
            return Elsewhere.ANYWHERE
    return Elsewhere.NOWHERE


def left(
    where: Elsewhere,
    failed: Target,
    chain: Iterable[Mapping[str, Any]],
    visited: Iterable[FailedTarget],
    window: ContextWindow,
) -> list[Target]:
    """The targets of a stored chain (`target`, `eligible`, `until`) that a task may move on to at once."""
    if where is Elsewhere.NOWHERE:
        return []
    been = {failed, *(Target(each.provider, each.model) for each in visited)}
    found = [_parsed(each["target"]) for each in chain if _may_come(each)]
    least = window(failed)
    return [
        target
        for target in dict.fromkeys(found)
        if target not in been and (where is Elsewhere.ANYWHERE or _is_larger(window(target), least))
    ]


def _may_come(entry: Mapping[str, Any]) -> bool:
    """What was refused without an end in sight (disabled, no key) is no place to go at once."""
    return entry["eligible"] is not False or entry.get("until") is not None


def _parsed(text: str) -> Target:
    provider, _, model = text.partition("/")
    return Target(provider, model)


def _is_larger(window: int | None, least: int | None) -> bool:
    return window is not None and least is not None and window > least


def not_failed_here(failed_on: Iterable[FailedTarget], window: ContextWindow, now: datetime) -> Checker:
    """Refuses targets that the task has just failed on, and contexts too small for its prompt."""
    just = {Target(each.provider, each.model): each for each in failed_on}
    needed = max((each.needs_context or 0 for each in just.values()), default=0)

    def check(target: Target, _attrs: Mapping[str, Any]) -> Refusal | None:
        failed = just.get(target)
        if failed is not None and failed.needs_context is not None:
            return Refusal(f"the task failed there ({failed.why})")
        if failed is not None and now < failed.until:
            return Refusal(f"the task failed there ({failed.why})", until=failed.until)
        if needed and (window(target) or 0) < needed:
            return Refusal(f"its context is not known to hold {needed:,} tokens")
        return None

    return check
