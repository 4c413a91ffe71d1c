#!/usr/bin/env python3
"""Show the routing rules in the order they are tried, and where some typical tasks would go.

The scenarios are routed by the rules even while routing is disabled in the configuration, to show what
enabling it would do.
"""

import argparse
import json
from datetime import datetime
from typing import TYPE_CHECKING

import _bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adw_modules.routing import ModelRouter, RoutingDecision, Rule

RULER = "=" * 70
SCENARIOS = {
    "Critical security issue": {"priority": "critical", "labels": ["security"], "retry_count": 0},
    "Documentation update": {"priority": "low", "labels": ["documentation"], "retry_count": 0},
    "First retry of a bug fix": {"priority": "normal", "labels": ["bug"], "retry_count": 1},
    "Ordinary feature": {"priority": "normal", "labels": ["enhancement"], "retry_count": 0},
    "Low priority at night": {"priority": "low", "labels": [], "retry_count": 0, "hour": 3},
}


def main() -> str:
    from adw_modules.routing import ModelRouter
    from adw_modules.routing.market import Knowledge
    from adw_modules.routing.picking import Picker
    from coordinator.clock import utc_now
    from coordinator.settings import SettingsSource

    args = _options().parse_args()
    settings = SettingsSource(args.config).current.settings
    nothing = Knowledge()  # neither catalogue nor history: what the file alone says
    resolvers = Picker(settings, lambda: nothing).resolvers
    router = ModelRouter(settings, enabled=True, now=utc_now, resolvers=resolvers)
    decisions = {name: router.choose(_at(attrs, args.at)) for name, attrs in SCENARIOS.items()}
    render = as_json if args.json else as_text
    return render(settings.routing.enabled, router, decisions)


def _options() -> argparse.ArgumentParser:
    parser = _bootstrap.options(__doc__.splitlines()[0])
    help_text = "the time of day for conditions on the hour, in the configured time zone (default: now)"
    parser.add_argument("--at", type=_time_of_day, metavar="HH:MM", help=help_text)
    return parser


def _time_of_day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%H:%M")  # noqa: DTZ007  the zone comes from the configuration
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 22:30") from None


def _at(attrs: "Mapping[str, object]", at: "datetime | None") -> "Mapping[str, object]":
    """The scenario at that time of day, unless it has an hour of its own."""
    return attrs if at is None else {"hour": at.hour, **attrs}


def as_text(enabled: bool, router: "ModelRouter", decisions: "Mapping[str, RoutingDecision]") -> str:
    lines = [
        "",
        RULER,
        "🧠 Model Routing Configuration",
        RULER,
        "",
        f"Router enabled: {enabled}",
        f"Default: {router.default}",
        "",
        "Routing Rules (priority order):",
    ]
    for rule in router.rules:
        lines += [
            f"  [{rule.priority}] {rule.name}",
            f"      Conditions: {rule.written or 'always'}",
            f"      Target: {f'selected: {rule.selects}' if rule.selects else router.target_of(rule)}",
        ]
    if not router.rules:
        lines.append("  (none)")
    lines += ["", RULER, "ROUTING DECISION TESTS", RULER]
    for name, decision in decisions.items():
        lines += ["", f"Scenario: {name}", f"  Attrs: {SCENARIOS[name]}"]
        lines.append(f"  → Routed to: {decision.provider} / {decision.model}")
    return "\n".join(lines)


def as_json(enabled: bool, router: "ModelRouter", decisions: "Mapping[str, RoutingDecision]") -> str:
    facts = {
        "enabled": enabled,
        "default": {"provider": router.default.provider, "model": router.default.model},
        "rules": [_rule_facts(router, rule) for rule in router.rules],
        "scenarios": [_scenario_facts(name, decision) for name, decision in decisions.items()],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _rule_facts(router: "ModelRouter", rule: "Rule") -> "dict[str, object]":
    target = None if rule.selects else router.target_of(rule)
    return {
        "name": rule.name,
        "priority": rule.priority,
        "conditions": rule.written,
        "provider": target.provider if target else None,
        "model": target.model if target else None,
        "reason": rule.reason,
        **({"select": rule.selects} if rule.selects else {}),
    }


def _scenario_facts(name: str, decision: "RoutingDecision") -> "dict[str, object]":
    return {
        "name": name,
        "attrs": SCENARIOS[name],
        "provider": decision.provider,
        "model": decision.model,
        "rule": decision.rule,
        "reason": decision.reason,
        "trace": [{"rule": t.rule, "matched": t.matched, "why": t.why} for t in decision.trace],
    }


if __name__ == "__main__":
    _bootstrap.run(main)
