"""Whether a target may be used now: checkers, asked one after the other inside the selection.

A checker answers None or a `Refusal`. Each is pure and made for one decision; what it knows (circuits, live
runs, budgets) is handed to it. Must not choose: the order of targets is that of the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from adw_modules.routing.attributes import Attrs
from adw_modules.routing.trace import Target


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a target cannot be used now. `until`: when that changes by itself, if that is known.

    `is_busy`: the end of a live run changes it, so that the task keeps its place in the queue.
    `is_over_budget`: the target could do it, but nothing is left to spend; the sentence says so by itself.
    `may_end`: it may end at any time without anybody telling us, as when a program is installed.
    """

    reason: str
    until: datetime | None = None
    is_busy: bool = False
    is_over_budget: bool = False
    may_end: bool = False

    def __str__(self) -> str:
        return self.reason


Checker = Callable[[Target, Attrs], Refusal | None]


def all_of(*checkers: Checker) -> Checker:
    """One checker of several: the first refusal counts, and the rest are not asked."""

    def check(target: Target, attrs: Attrs) -> Refusal | None:
        for checker in checkers:
            refusal = checker(target, attrs)
            if refusal is not None:
                return refusal
        return None

    return check


def earliest(refusals: list[Refusal]) -> datetime | None:
    """When the first of them ends by itself; None when none is known to."""
    return min((refusal.until for refusal in refusals if refusal.until is not None), default=None)
