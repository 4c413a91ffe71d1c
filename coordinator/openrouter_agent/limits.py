"""How far one run may go.

Owns the limits and the sentence for each that is reached. Looked at before every request: what a request
then takes comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from coordinator.openrouter_agent.records import Ending, Subtype
from coordinator.openrouter_agent.tally import Tally

TURNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None: no limit."""

    turns: int | None = TURNS  # requests that were answered
    tokens: int | None = None  # of all requests together, cache reads included
    cost_usd: Decimal | None = None
    seconds: float | None = None

    def reached(self, turns: int, tally: Tally) -> Ending | None:
        """The end of the run if a limit forbids the next request."""
        if self.turns is not None and turns >= self.turns:
            text = f"The limit of {self.turns} turns is reached (--max-turns)."
            return Ending(subtype=Subtype.MAX_TURNS, reason="max_turns", text=text)
        if self.cost_usd is not None and tally.least_cost >= self.cost_usd:
            text = f"The limit of ${self.cost_usd} is reached: ${tally.least_cost} were charged (--max-cost)."
            return Ending(subtype=Subtype.MAX_BUDGET, reason="budget_exhausted", text=text)
        if self.tokens is not None and tally.total.total >= self.tokens:
            text = (
                f"The limit of {self.tokens} tokens is reached: {tally.total.total} were used (--max-tokens)."
            )
            return Ending(subtype=Subtype.ERROR, reason="budget_exhausted", text=text)
        return None

    def timed_out(self) -> Ending:
        minutes = (self.seconds or 0) / 60
        text = f"The time limit of {minutes:g} minutes is reached (--timeout)."
        return Ending(subtype=Subtype.ERROR, reason="timeout", text=text)
