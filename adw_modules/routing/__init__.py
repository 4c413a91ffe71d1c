"""Who does a task: rules, conditions, and the selection of a provider and model. Face: `ModelRouter`."""

from adw_modules.routing.conditions import ConditionError, compile_condition, compile_conditions
from adw_modules.routing.decision import NoRoute, RoutingDecision
from adw_modules.routing.eligibility import Checker, Refusal, all_of
from adw_modules.routing.rules import Rule
from adw_modules.routing.selection import ModelRouter, zone_of
from adw_modules.routing.targets import FixedTarget, Resolver, Selected, SelectTarget, TargetSpec
from adw_modules.routing.trace import RuleTrace, StoredDecision, Target, TargetTrace

__all__ = [
    "Checker",
    "ConditionError",
    "FixedTarget",
    "ModelRouter",
    "NoRoute",
    "Refusal",
    "Resolver",
    "RoutingDecision",
    "Rule",
    "RuleTrace",
    "SelectTarget",
    "Selected",
    "StoredDecision",
    "Target",
    "TargetSpec",
    "TargetTrace",
    "all_of",
    "compile_condition",
    "compile_conditions",
    "zone_of",
]
