"""Who does a task: rules, conditions, and the selection of a provider and model. Face: `ModelRouter`."""

from adw_modules.routing.conditions import ConditionError, compile_condition, compile_conditions
from adw_modules.routing.rules import Rule
from adw_modules.routing.selection import ModelRouter, NoRoute, RoutingDecision, zone_of
from adw_modules.routing.trace import RuleTrace, StoredDecision, Target, TargetTrace

__all__ = [
    "ConditionError",
    "ModelRouter",
    "NoRoute",
    "RoutingDecision",
    "Rule",
    "RuleTrace",
    "StoredDecision",
    "Target",
    "TargetTrace",
    "compile_condition",
    "compile_conditions",
    "zone_of",
]
