"""Chance that repeats: numbers drawn from a text, the same for ever and on every machine.

Owns the way from a hash to a distribution. Must not hold state, and must not be used for secrets. A draw
depends on nothing but its own text, so that a further candidate changes no other candidate's draws.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from statistics import NormalDist

_BITS = 52  # a float holds so many exactly, and still tells 1 - 2**-53 from 1
_STANDARD = NormalDist()
_MOST_TRIES = 100  # each succeeds with more than 95 %


def uniform(*key: str) -> float:
    """One number in (0, 1), without either end."""
    return next(_stream("\0".join(key)))


def normal(mean: float, deviation: float, *key: str) -> float:
    """One number of that normal distribution."""
    return mean + deviation * _STANDARD.inv_cdf(uniform(*key))


def beta(successes: float, failures: float, *key: str) -> float:
    """One number of the Beta distribution with these parameters, each of them 1 or more."""
    won = _gamma(successes, _stream("\0".join((*key, "won"))))
    lost = _gamma(failures, _stream("\0".join((*key, "lost"))))
    return won / (won + lost)


def _stream(key: str) -> Iterator[float]:
    count = 0
    while True:
        digest = hashlib.sha256(f"{key}\0{count}".encode(errors="replace")).digest()
        for start in range(0, 32, 8):
            yield ((int.from_bytes(digest[start : start + 8]) >> (64 - _BITS)) + 0.5) / 2**_BITS
        count += 1


def _gamma(shape: float, numbers: Iterator[float]) -> float:
    """Marsaglia and Tsang's method (2000), for shapes of 1 and more."""
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    for _ in range(_MOST_TRIES):
        x = _STANDARD.inv_cdf(next(numbers))
        v = (1 + c * x) ** 3
        if v > 0 and math.log(next(numbers)) < x * x / 2 + d - d * v + d * math.log(v):
            return d * v
    return d  # the mode, nearly; never seen
