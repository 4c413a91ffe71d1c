"""Rules as the operator wrote them, made ready: condition compiled, order fixed. Must not choose a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adw_modules.errors import ConfigError
from adw_modules.routing.attributes import is_integer, show
from adw_modules.routing.clauses import Condition, ConditionError
from adw_modules.routing.conditions import compile_condition, compile_conditions
from adw_modules.routing.targets import FixedTarget, SelectTarget, TargetSpec, target_spec

DEFAULT_PRIORITY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ordered condition with its targets: its own, then `fallbacks`.

    `provider` and `model` are those of its first own target, as far as they are written: a missing half comes
    from the defaults. `is_spread`: which of its own targets comes first is drawn by the task, by weight.
    """

    name: str
    priority: int  # higher is tried first
    condition: Condition
    written: Mapping[str, object] | str | None  # the condition as configured, for people
    provider: str | None
    model: str | None
    reason: str | None
    targets: tuple[TargetSpec, ...] = ()
    fallbacks: tuple[TargetSpec, ...] = ()
    is_spread: bool = False
    requires: tuple[str, ...] = ()
    experiment: tuple[str, str] | None = None  # whose arm it is: the names of both

    @property
    def selects(self) -> str | None:
        """The word of the selection that finds its own targets for each task; None where they are written."""
        first = self.targets[0] if self.targets else None
        return first.select if isinstance(first, SelectTarget) else None


def compile_rules(written: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules in the order they are tried: higher priority first, file order on ties.

    Raises ConfigError with one sentence for each rule that cannot be used.
    """
    rules, problems = [], []
    for number, table in enumerate(written, start=1):
        name = table.get("name") or f"rule-{number}"
        try:
            rules.append(_rule(name, table))
        except ConditionError as error:
            problems.append(f'routing rule "{name}": {error}')
    if problems:
        raise ConfigError(problems)
    return tuple(sorted(rules, key=lambda rule: -rule.priority))


def _rule(name: str, table: Mapping[str, Any]) -> Rule:
    targets = _own_targets(table)
    first = targets[0]
    return Rule(
        name=name,
        priority=_priority(table.get("priority")),
        condition=condition_of(table),
        written=table.get("conditions") or table.get("condition"),
        provider=first.provider if isinstance(first, FixedTarget) else None,
        model=first.model if isinstance(first, FixedTarget) else None,
        reason=table.get("reason"),
        targets=targets,
        fallbacks=tuple(map(target_spec, table.get("fallbacks") or ())),
        is_spread=bool(table.get("targets")),
        requires=tuple(table.get("requires") or ()),
    )


def condition_of(table: Mapping[str, Any]) -> Condition:
    """The condition of a table in either spelling; without one it always holds. Raises ConditionError."""
    conditions, condition = table.get("conditions"), table.get("condition")
    if conditions is not None and condition is not None:
        raise ConditionError("both condition and conditions are given; keep one of them")
    return _structured(conditions) if condition is None else _string(condition)


def _own_targets(table: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    """One of the three spellings; without any it is the default target."""
    provider, model = table.get("provider"), table.get("model")
    one, several = table.get("target"), table.get("targets")
    given = [bool(provider or model), one is not None, bool(several)]
    if sum(given) > 1:
        raise ConditionError("a rule has provider and model, or target, or targets; keep one of them")
    if one is not None:
        return (target_spec(one),)
    if several:
        return tuple(map(_member, several))
    return (FixedTarget(provider=provider, model=model),)


def _member(written: object) -> FixedTarget:
    spec = target_spec(written)
    if not isinstance(spec, FixedTarget):
        raise ConditionError("targets are spread by weight, and none of them can be a selection; use target")
    return spec


def _priority(value: object) -> int:
    if value is None:
        return DEFAULT_PRIORITY
    if not is_integer(value):
        raise ConditionError(f"priority is a whole number, not {show(value)}")
    return value


def _structured(conditions: object) -> Condition:
    if not isinstance(conditions, Mapping | None):
        raise ConditionError(
            'conditions is a table, such as { priority = "critical" }; for text use condition'
        )
    return compile_conditions(conditions) if conditions else Condition()


def _string(condition: object) -> Condition:
    if not isinstance(condition, str):
        raise ConditionError('condition is a text, such as "priority == 0"; for a table use conditions')
    return compile_condition(condition)
