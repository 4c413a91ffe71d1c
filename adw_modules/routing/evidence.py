"""What a few results say about all that will follow: intervals, with what each of them promises.

Pure arithmetic on counts and amounts. Must not know where results come from or judge them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, stdev

_HALVINGS = 60  # of a search: more than a float can show


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


def wilson(successes: int, of: int, confidence: float) -> Interval:
    """For a rate that is looked at once (Wilson's score interval): covers the true one about that often."""
    if not of:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, spread = successes / of, z * z / of
    middle = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / of + spread / (4 * of))
    # At the ends the formula is exact, and only rounding would miss them.
    low = 0.0 if not successes else max(0.0, middle - half)
    high = 1.0 if successes == of else min(1.0, middle + half)
    return Interval(low, high)


def always_valid(successes: int, of: int, confidence: float) -> Interval:
    """For a rate that is looked at after every result, and as long as one likes: wider than Wilson's.

    The rates p that the results do not speak against: the likelihood of the results when every rate is
    equally probable, divided by that under p, is a martingale under p, so that it ever reaches
    1 / (1 - confidence) with a probability of at most 1 - confidence (Ville's inequality). Exact for
    independent results of one rate, whenever somebody stops.
    """
    if not of:
        return Interval(0.0, 1.0)
    rate = successes / of
    limit = -math.log1p(-confidence)
    mixed = math.lgamma(successes + 1) + math.lgamma(of - successes + 1) - math.lgamma(of + 2)

    def is_refuted(p: float) -> bool:
        return mixed - _log_likelihood(successes, of, p) >= limit

    low = 0.0 if not successes else _edge(is_refuted, 0.0, rate)
    high = 1.0 if successes == of else _edge(is_refuted, 1.0, rate)
    return Interval(low, high)


def _log_likelihood(successes: int, of: int, p: float) -> float:
    failures = of - successes
    if (successes and p <= 0) or (failures and p >= 1):
        return -math.inf
    return (successes * math.log(p) if successes else 0.0) + (failures * math.log1p(-p) if failures else 0.0)


def _edge(is_outside: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where the answer changes, to the side that is too wide."""
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if is_outside(middle):
            outside = middle
        else:
            inside = middle
    return outside


def median_interval(values: Sequence[float], confidence: float) -> Interval | None:
    """For the median of all, whatever the amounts are distributed like; None for too few of them.

    Between two of the sorted values, chosen by counting alone: how many of the results lie below the true
    median is a matter of tossing coins. One enormous value moves it no further than any large one does.
    """
    n, tail = len(values), (1 - confidence) / 2
    below, cut = 0.5**n if n < 1000 else 0.0, -1
    if n >= 1000:  # the coins are normal by then, to less than a rank
        cut = math.floor((n - NormalDist().inv_cdf(1 - tail) * math.sqrt(n)) / 2) - 1
    else:
        for k in range(n):
            if below > tail:
                break
            cut = k
            below += math.comb(n, k + 1) * 0.5**n
    if cut < 0:
        return None
    ordered = sorted(values)
    return Interval(ordered[cut], ordered[n - 1 - cut])


def middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return median(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What results of one kind were on average, to estimate a sum of further ones."""

    count: int
    mean: float
    spread: float  # standard deviation

    @classmethod
    def of(cls, values: Sequence[float]) -> Amount | None:
        """None for fewer than two: a single value says nothing about its own spread."""
        if len(values) < 2:
            return None
        return cls(count=len(values), mean=fmean(values), spread=stdev(values))

    def variance_of_sum(self, further: int) -> float:
        """Of the sum of `further` results: chance in each of them, and that the mean is known by `count`."""
        return self.spread**2 * (further + further**2 / self.count)


def z_of(confidence: float) -> float:
    """How many standard deviations to both sides hold that share of a normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
