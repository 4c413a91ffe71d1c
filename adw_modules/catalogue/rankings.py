"""What our own runs say about models: how often they succeed, how long they take, what a success costs.

Owns the arithmetic. Must not judge with too few runs: the number of runs is always told with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from statistics import median

from adw_modules.tasks.model import Outcome

# How a run ended for reasons that are not the model's: it says nothing about the model.
NOT_THE_MODEL = frozenset(
    {
        Outcome.CANCELLED,
        Outcome.INTERRUPTED,
        Outcome.LOST,
        Outcome.NEVER_STARTED,
        Outcome.RATE_LIMITED,
        Outcome.AUTH_FAILED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What counts of one ended run. Money is in US dollars; None where nobody knows."""

    provider: str
    model: str
    outcome: Outcome
    duration: timedelta | None
    cost: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One model on one provider. `cost_per_success` is unknown while one of its runs has no known cost."""

    provider: str
    model: str
    runs: int  # that say something about the model
    successes: int
    median_duration: timedelta | None
    cost: Decimal | None  # of all those runs
    runs_of_unknown_cost: int

    @property
    def success_rate(self) -> float:
        return self.successes / self.runs

    @property
    def cost_per_success(self) -> Decimal | None:
        if self.cost is None or not self.successes:
            return None
        return self.cost / self.successes


def rank(results: Iterable[RunResult]) -> list[Ranking]:
    """One entry for each provider and model, best success rate first, then those with more runs."""
    groups: defaultdict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for result in results:
        if result.outcome not in NOT_THE_MODEL:
            groups[result.provider, result.model].append(result)
    ranked = [_ranking(provider, model, runs) for (provider, model), runs in groups.items()]
    return sorted(ranked, key=lambda each: (-each.success_rate, -each.runs, each.provider, each.model))


def _ranking(provider: str, model: str, runs: Sequence[RunResult]) -> Ranking:
    durations = [run.duration.total_seconds() for run in runs if run.duration is not None]
    costs = [run.cost for run in runs if run.cost is not None]
    unknown = len(runs) - len(costs)
    return Ranking(
        provider=provider,
        model=model,
        runs=len(runs),
        successes=sum(run.outcome is Outcome.SUCCEEDED for run in runs),
        median_duration=timedelta(seconds=median(durations)) if durations else None,
        cost=None if unknown else sum(costs, Decimal(0)),
        runs_of_unknown_cost=unknown,
    )
