"""What is wrong with a set of rules although each of them can be read. Only what is certain is said.

Shadowed: every task that matches the rule matches an earlier one before. Such a rule may be meant as a
way out when the earlier target cannot be used, and the sentence says that it is nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from adw_modules.routing.logic import Logic
from adw_modules.routing.meaning import Meaning
from adw_modules.routing.rules import Rule
from adw_modules.routing.selection import ModelRouter
from adw_modules.routing.targets import FixedTarget
from adw_modules.routing.trace import Target

_MOST_TOGETHER = 12  # earlier rules that are looked at together


@dataclass(frozen=True, slots=True)
class _Verb:
    """What a rule does with a target, and what the defaults do."""

    of_one: str
    of_many: str


LEADS, FALLS_BACK = _Verb("leads", "lead"), _Verb("falls back", "fall back")


class Kind(StrEnum):
    """What can be wrong."""

    CONTRADICTORY = "contradictory"  # no task can match
    SHADOWED = "shadowed"  # an earlier rule matches all that it matches
    UNREACHABLE = "unreachable"  # several earlier rules together do, or one that always matches
    TARGET = "target"  # it leads where nothing can run


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `rule` is None for the defaults; `others` are the rules that cause it."""

    kind: Kind
    rule: str | None
    text: str
    others: tuple[str, ...] = ()


def lint(router: ModelRouter, why_not: Callable[[str], str | None]) -> list[Finding]:
    """Everything found, in the order in which rules are tried. `why_not(provider)`: why it cannot run."""
    rules = router.rules
    meanings = [rule.condition.meaning for rule in rules]
    logic = Logic(meanings)
    found: list[Finding] = []
    for position, rule in enumerate(rules):
        wrong = _wrong(router, logic, rules, meanings, position)
        found += [wrong] if wrong else []
        found += _cannot_run(_written(router, rule), rule, why_not)
    default, *fallbacks = router.chains.defaults
    written = [(LEADS, default), *((FALLS_BACK, target) for target in fallbacks)]
    return [*found, *_cannot_run(written, None, why_not)]


def _written(router: ModelRouter, rule: Rule) -> Iterator[tuple[_Verb, Target]]:
    """All targets that stand in a rule, and what it does with each; none of what a selection finds."""
    for verb, specs in ((LEADS, rule.targets), (FALLS_BACK, rule.fallbacks)):
        for spec in specs:
            if isinstance(spec, FixedTarget):
                yield verb, router.chains.completed(spec)


def _wrong(
    router: ModelRouter, logic: Logic, rules: Sequence[Rule], meanings: Sequence[Meaning], position: int
) -> Finding | None:
    rule, meaning = rules[position], meanings[position]
    if logic.never_holds(meaning):
        text = f'rule "{rule.name}" can never match: {rule.condition.text}'
        return Finding(kind=Kind.CONTRADICTORY, rule=rule.name, text=text)
    earlier = [n for n in range(position) if not logic.excludes(meaning, meanings[n])]
    covering = next((n for n in earlier if logic.implies(meaning, [meanings[n]])), None)
    if covering is not None:
        return _shadowed(router, rule, rules[covering], always=logic.always_holds(meanings[covering]))
    if len(earlier) <= _MOST_TOGETHER and logic.implies(meaning, [meanings[n] for n in earlier]):
        needed = _needed(logic, meaning, meanings, earlier)
        return _covered(rule, [rules[n].name for n in needed])
    return None


def _shadowed(router: ModelRouter, rule: Rule, earlier: Rule, *, always: bool) -> Finding:
    target = "what it selects" if earlier.selects else str(router.target_of(earlier))
    why = (
        f'"{earlier.name}" stands before it and always matches'
        if always
        else f'whatever matches it matches "{earlier.name}" before'
    )
    if earlier.targets == rule.targets or (target == str(router.target_of(rule)) and not rule.selects):
        result = "is never chosen"
        why += ", with the same target"
    else:
        result = f"is only chosen while {target} cannot be used"
    return Finding(
        kind=Kind.UNREACHABLE if always else Kind.SHADOWED,
        rule=rule.name,
        text=f'rule "{rule.name}" {result}: {why}',
        others=(earlier.name,),
    )


def _covered(rule: Rule, others: list[str]) -> Finding:
    names = ", ".join(f'"{name}"' for name in others)
    text = (
        f'rule "{rule.name}" is only chosen while their targets cannot be used: '
        f"whatever matches it matches one of {names} before"
    )
    return Finding(kind=Kind.UNREACHABLE, rule=rule.name, text=text, others=tuple(others))


def _needed(logic: Logic, meaning: Meaning, meanings: Sequence[Meaning], earlier: list[int]) -> list[int]:
    """Those of `earlier` that it takes: without any of them something would be left for the rule."""
    needed = list(earlier)
    for each in earlier:
        fewer = [n for n in needed if n != each]
        if logic.implies(meaning, [meanings[n] for n in fewer]):
            needed = fewer
    return needed


def _cannot_run(
    written: Iterable[tuple[_Verb, Target]], rule: Rule | None, why_not: Callable[[str], str | None]
) -> Iterator[Finding]:
    for verb, target in written:
        reason = why_not(target.provider)
        if reason:
            who = f'rule "{rule.name}" {verb.of_one}' if rule else f"the defaults {verb.of_many}"
            yield Finding(
                kind=Kind.TARGET,
                rule=rule.name if rule else None,
                text=f"{who} to {target}, which cannot run: {reason}",
            )
