"""The order of everything that says where a task goes: experiments, then authors, repositories, `[routing]`.

What an author or a repository prefers becomes rules that ask for that author or repository first, so that
the trace, `route explain` and `route lint` show it like any rule. Must not match or choose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from adw_modules.routing.chains import Chains
from adw_modules.routing.clauses import Condition
from adw_modules.routing.conditions import compile_conditions
from adw_modules.routing.experiments import experiment_rules
from adw_modules.routing.rules import Rule, compile_rules
from adw_modules.routing.targets import repeated
from adw_modules.routing.trace import Target

OF = {"author": "author", "repository": "repo"}  # whose preferences, and the attribute that tells; in order
DEFAULT = "default"
Path = tuple[str | int, ...]
Defaults = Mapping[str, str | None]


def all_rules(tables: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Every rule of a configuration in the order they are tried. Raises ConfigError.

    Within each author, repository and `[routing]`: higher priority first, file order on ties.
    """
    offered = _offered(tables)
    return (
        *experiment_rules(tables.get("experiments") or ()),
        *(rule for _, table in _sections(tables) for rule in _preferred(table, offered)),
        *compile_rules((tables.get("routing") or {}).get("rules") or ()),
    )


def label(table: Mapping[str, Any]) -> str:
    """Whose preferences they are: `author ada`."""
    return next((f"{whose} {table[whose]}" for whose in OF if table.get(whose)), "")


def loops(tables: Mapping[str, Any]) -> Iterator[tuple[Path, Target]]:
    """What a valid configuration would ask twice in the chain of an arm or of a preferred rule."""
    chains = Chains(tables)
    places: list[tuple[Path, Iterable[Rule]]] = [
        (("experiments", index), experiment_rules([table]))
        for index, table in enumerate(tables.get("experiments") or ())
    ]
    offered = _offered(tables)
    places += [(("preferences", index), _preferred(table, offered)) for index, table in _sections(tables)]
    for path, rules in places:
        for rule in rules:
            if (target := repeated(chains.of(rule))) is not None:
                yield path, target


def _sections(tables: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """With its place in the file: authors before repositories."""
    written = list(enumerate(tables.get("preferences") or ()))
    for whose in OF:
        yield from ((index, table) for index, table in written if table.get(whose))


def _offered(tables: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(each["name"] for each in tables.get("models") or () if each.get("provider"))


def _preferred(table: Mapping[str, Any], offered: Collection[str]) -> Iterator[Rule]:
    whose = next(whose for whose in OF if table.get(whose))
    guard = compile_conditions({OF[whose]: table[whose]})
    defaults = {key: table.get(f"default_{key}") for key in ("provider", "model")}
    for rule in compile_rules([_filled(each, defaults, offered) for each in table.get("rules") or ()]):
        yield _guarded(rule, guard, label(table))
    if any(defaults.values()):
        (rule,) = compile_rules([_completed({"name": DEFAULT}, defaults, offered)])
        yield _guarded(rule, guard, label(table))


def _guarded(rule: Rule, guard: Condition, whose: str) -> Rule:
    both = Condition(clauses=(*guard.clauses, *rule.condition.clauses))
    return replace(rule, name=f"{whose}: {rule.name}", condition=both, written=both.text)


def _filled(rule: Mapping[str, Any], defaults: Defaults, offered: Collection[str]) -> Mapping[str, Any]:
    """The rule, with what it leaves open taken from its section."""
    if rule.get("target") is not None:
        return {**rule, "target": _completed(rule["target"], defaults, offered)}
    if rule.get("targets"):
        return {**rule, "targets": [_completed(each, defaults, offered) for each in rule["targets"]]}
    completed: Mapping[str, Any] = _completed(rule, defaults, offered)
    return completed


def _completed(written: Any, defaults: Defaults, offered: Collection[str]) -> Any:
    """Both halves as far as the section knows them. A model that `[[models]]` lists is at home there."""
    if not isinstance(written, Mapping) or "select" in written:
        return written
    provider, model = written.get("provider"), written.get("model") or defaults["model"]
    if provider is None and (model is None or model not in offered):
        provider = defaults["provider"]
    return {**written, "provider": provider, "model": model}
