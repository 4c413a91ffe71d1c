"""How the token records of one run add up to one `Usage`.

Owns the rule which record counts. Must not know any program's field names or any price.

Two kinds of record come in. A *call* is what one model request used, seen while it runs; the same call
is often told several times, and the output of a call that is still running is only a lower bound.
A *report* is what the program itself says it has used; it settles every call seen before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from adw_modules.tasks.model import ModelUsage, Usage, UsageSource

# Records of one call stand close together, so only the newest calls must stay open for correction.
OPEN_CALLS = 1000
UNNAMED = "unknown"  # the model of a program that does not say which one it used


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    model: str
    usage: ModelUsage
    settled: bool = False  # a later report has counted it


@dataclass(slots=True)
class _Prompts:
    """The prompts of one model's calls that were seen, in tokens."""

    longest: int = 0
    total: int = 0

    def note(self, before: int, now: int) -> None:
        """A call's prompt has this many tokens; `before` is what was known of the same call."""
        self.longest = max(self.longest, now)
        self.total += now - before


class UsageLedger:
    """Adds up one run's records, in the order in which the program wrote them."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}  # open calls by message id, oldest first
        self._old_calls: dict[str, ModelUsage] = {}  # unsettled ones that left the window
        self._reported: dict[str, ModelUsage] | None = None
        self._reported_cost: Decimal | None = None
        self._prompts: dict[str, _Prompts] = {}
        self._leaves_out = False

    def leaves_out(self) -> None:
        """The reports are known to leave something out: they are only a lower bound."""
        self._leaves_out = True

    def call(self, message_id: str, model: str, usage: ModelUsage) -> None:
        """Note one record of one model call. Repeats raise its numbers, never add to them."""
        known = self._calls.get(message_id)
        prompts = self._prompts.setdefault(model, _Prompts())
        if known is not None:
            usage = _larger(known.usage, usage)
            prompts.note(known.usage.prompt, usage.prompt)
            self._calls[message_id] = _Call(model=model, usage=usage, settled=known.settled)
            return
        prompts.note(0, usage.prompt)
        self._calls[message_id] = _Call(model=model, usage=usage)
        if len(self._calls) > OPEN_CALLS:
            self._retire(self._calls.pop(next(iter(self._calls))))

    def report(self, by_model: dict[str, ModelUsage], cost: Decimal | None, *, cumulative: bool) -> None:
        """Take the program's own numbers: of the whole process (`cumulative`), or since its last report.

        A report without tokens means that none were used; it does not settle calls that used some.
        """
        if cumulative or self._reported is None:
            self._reported, self._reported_cost = dict(by_model), cost
        else:
            self._reported = _sum(self._reported, by_model)
            self._reported_cost = _add_costs(self._reported_cost, cost)
        if any(usage.total for usage in by_model.values()):
            self._settle()

    def usage(self) -> Usage:
        """The reported numbers plus the calls no report has counted (then the source is `derived`)."""
        open_calls = dict(self._old_calls)
        for call in self._calls.values():
            if not call.settled and call.usage.total:  # a call without numbers says nothing
                open_calls = _sum(open_calls, {call.model: call.usage})
        source = self._source(open_calls)
        by_model = {} if source is UsageSource.UNKNOWN else _sum(self._reported or {}, open_calls)
        cost = None if open_calls or self._leaves_out else self._reported_cost
        return Usage(
            source=source,
            by_model=by_model,
            reported_cost_usd=cost,
            longest_prompt={model: self._longest_prompt(model, used) for model, used in by_model.items()},
        )

    def _longest_prompt(self, model: str, used: ModelUsage) -> int:
        """What was reported beyond the calls that were seen may have been a single one."""
        seen = self._prompts.get(model, _Prompts())
        return max(seen.longest, used.prompt - seen.total)

    def _source(self, open_calls: dict[str, ModelUsage]) -> UsageSource:
        if open_calls:
            return UsageSource.DERIVED
        if not self._leaves_out:
            return UsageSource.UNKNOWN if self._reported is None else UsageSource.REPORTED
        is_any = any(usage.total for usage in (self._reported or {}).values())
        return UsageSource.DERIVED if is_any else UsageSource.UNKNOWN

    def _settle(self) -> None:
        self._old_calls = {}
        for message_id, call in self._calls.items():
            self._calls[message_id] = _Call(model=call.model, usage=call.usage, settled=True)

    def _retire(self, call: _Call) -> None:
        if not call.settled and call.usage.total:
            known = self._old_calls.get(call.model)
            self._old_calls[call.model] = call.usage if known is None else known + call.usage


def inclusive(
    *, input_total: int, cache_read: int, output_total: int, cache_write: int = 0, reasoning: int = 0
) -> ModelUsage:
    """Usage in the convention of OpenAI and Google: the input includes what the cache had, and the output
    the reasoning. A part can never be more than its whole, whatever was written."""
    read = min(cache_read, input_total)
    written = min(cache_write, input_total - read)
    return ModelUsage(
        input=input_total - read - written,
        cache_read=read,
        cache_write_5m=written,
        output=output_total,
        reasoning=min(reasoning, output_total),
    )


def named(usage: Usage, asked: str | None) -> Usage:
    """The usage of a program that does not name its model, under the name it was `asked` to use."""
    if asked is None or UNNAMED not in usage.by_model:
        return usage
    rest = {model: used for model, used in usage.by_model.items() if model != UNNAMED}
    longest = {model: prompt for model, prompt in usage.longest_prompt.items() if model != UNNAMED}
    unnamed = usage.by_model[UNNAMED]
    longest[asked] = max(longest.get(asked, 0), usage.longest_prompt.get(UNNAMED, unnamed.prompt))
    return replace(usage, by_model=_sum(rest, {asked: unnamed}), longest_prompt=longest)


def _sum(left: dict[str, ModelUsage], right: dict[str, ModelUsage]) -> dict[str, ModelUsage]:
    total = dict(left)
    for model, usage in right.items():
        total[model] = total.get(model, ModelUsage()) + usage
    return total


def _larger(left: ModelUsage, right: ModelUsage) -> ModelUsage:
    # The split of cache writes is missing in some records of a call, so the total and the part are compared.
    one_hour = max(left.cache_write_1h, right.cache_write_1h)
    return ModelUsage(
        input=max(left.input, right.input),
        cache_read=max(left.cache_read, right.cache_read),
        cache_write_5m=max(left.cache_write, right.cache_write) - one_hour,
        cache_write_1h=one_hour,
        output=max(left.output, right.output),
        reasoning=max(left.reasoning, right.reasoning),
    )


def _add_costs(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return None if left is None or right is None else left + right
