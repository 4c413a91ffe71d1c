"""Who does a task: rules, conditions, and the selection of a provider and model. Face: `ModelRouter`."""

from adw_modules.routing.conditions import ConditionError, compile_condition, compile_conditions
from adw_modules.routing.selection import ModelRouter, NoRoute, RoutingDecision, RuleTrace

__all__ = [
    "ConditionError",
    "ModelRouter",
    "NoRoute",
    "RoutingDecision",
    "RuleTrace",
    "compile_condition",
    "compile_conditions",
]
