"""Which target a task gets, why, and what is logged. The configuration is the one of the first documents."""

from __future__ import annotations

import copy
import logging
import tomllib
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.providers import ProviderManager
from adw_modules.routing import ModelRouter, NoRoute, Refusal, RoutingDecision, RuleTrace
from adw_modules.tasks.model import Priority

CONFIG_TEXT = """
[providers.claude-cli]
enabled = true
command_template = ["claude", "-p", "--model", "{model}"]

[providers.openrouter]
enabled = true
requires_api_key = true
api_key_env = "OPENROUTER_API_KEY"
command_template = ["tools/openrouter-cli.py", "-p", "{prompt_file}", "--model", "{model}"]

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true
default_provider = "claude-cli"
default_model = "claude-sonnet-4-5"

[[routing.rules]]
name = "docs-haiku"
priority = 60
conditions = { labels = ["documentation", "docs"] }
provider = "claude-cli"
model = "claude-haiku-4"

[[routing.rules]]
name = "critical-issues-opus"
priority = 100
conditions = { priority = "critical" }
provider = "claude-cli"
model = "claude-opus-4"

[[routing.rules]]
name = "retry-use-haiku"
priority = 95
conditions = { retry_count = { gte = 1 } }
provider = "claude-cli"
model = "claude-haiku-4"

[[routing.rules]]
name = "high-priority-sonnet"
priority = 90
conditions = { priority = ["high", "normal"] }
provider = "claude-cli"
model = "claude-sonnet-4-5"

[[routing.rules]]
name = "off-hours-haiku"
priority = 70
conditions = { hour_range = [0, 8] }
provider = "claude-cli"
model = "claude-haiku-4"
"""
CRITICAL = {"priority": "critical", "labels": ["security"], "retry_count": 0}
DOCS = {"priority": "low", "labels": ["documentation"], "retry_count": 0}
NOTHING = {"priority": "low", "labels": [], "retry_count": 0}


@pytest.fixture
def config():
    return tomllib.loads(CONFIG_TEXT)


def with_rules(*rules, models=(), **routing):
    return {"routing": {"enabled": True, "rules": list(rules), **routing}, "models": list(models)}


def at(hour, minute=0):
    return lambda: datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


def decided(router, attrs, eligible=None) -> RoutingDecision:
    decision = router.decide(attrs, eligible=eligible)
    assert isinstance(decision, RoutingDecision)
    return decision


@pytest.mark.parametrize("as_settings", [False, True])
@pytest.mark.parametrize(
    ("attrs", "target"),
    [
        (CRITICAL, ("claude-cli", "claude-opus-4")),
        (DOCS, ("claude-cli", "claude-haiku-4")),
        (NOTHING, ("claude-cli", "claude-sonnet-4-5")),
        ({**NOTHING, "hour": 3}, ("claude-cli", "claude-haiku-4")),
        ({**NOTHING, "priority": "normal", "retry_count": 1}, ("claude-cli", "claude-haiku-4")),
        ({**NOTHING, "priority": 1}, ("claude-cli", "claude-sonnet-4-5")),
        ({**CRITICAL, "retry_count": 2}, ("claude-cli", "claude-opus-4")),
        ({}, ("claude-cli", "claude-sonnet-4-5")),
    ],
)
def test_route_gives_provider_and_model_for_a_dict_and_for_settings(config, attrs, target, as_settings):
    source = parse_settings(CONFIG_TEXT, source="config.toml") if as_settings else config
    assert ModelRouter(source).route(attrs) == target


def test_disabled_routing_gives_the_defaults(config):
    config["routing"]["enabled"] = False
    decision = decided(ModelRouter(config), CRITICAL)
    assert (decision.provider, decision.model) == ("claude-cli", "claude-sonnet-4-5")
    assert (decision.rule, decision.reason, decision.trace) == (None, "routing is disabled", ())


def test_routing_that_is_not_mentioned_is_disabled():
    config = {"llm": {"provider": "openrouter", "model_default": "some/model"}}
    assert ModelRouter(config).route(CRITICAL) == ("openrouter", "some/model")


def test_rules_can_be_tried_out_while_routing_is_disabled(config):
    config["routing"]["enabled"] = False
    assert ModelRouter(config, enabled=True).route(CRITICAL) == ("claude-cli", "claude-opus-4")


def test_the_log_lines_are_those_of_the_first_documents(config, caplog):
    with caplog.at_level(logging.INFO, logger="adw_modules.routing"):
        ModelRouter(config).route(CRITICAL)
    assert [record.getMessage() for record in caplog.records] == [
        "✓ Rule matched: critical-issues-opus → claude-cli/claude-opus-4",
        "  Task attrs: {'priority': 'critical', 'labels': ['security'], 'retry_count': 0}",
    ]


def test_the_log_shows_what_the_rule_looked_at_and_no_more(config):
    attrs = {"repo": "acme/shop", "retry_count": 0, "labels": ("x",), "priority": Priority.LOW, "hour": 2}
    decision = decided(ModelRouter(config), attrs)
    assert decision.log_line == "✓ Rule matched: off-hours-haiku → claude-cli/claude-haiku-4"
    assert (
        decision.attrs_line == "  Task attrs: {'priority': 3, 'labels': ['x'], 'retry_count': 0, 'hour': 2}"
    )


def test_the_log_says_when_no_rule_matched(config):
    decision = decided(ModelRouter(config), NOTHING)
    assert decision.log_line == "✗ No rule matched → claude-cli/claude-sonnet-4-5 (default)"


def test_the_log_says_when_routing_is_disabled(config):
    config["routing"]["enabled"] = False
    decision = decided(ModelRouter(config), CRITICAL)
    assert decision.log_line == "Routing is disabled → claude-cli/claude-sonnet-4-5 (default)"


def test_every_rule_tried_leaves_its_reason(config):
    decision = decided(ModelRouter(config), {**DOCS, "hour": 12})
    assert [(entry.rule, entry.matched, entry.why) for entry in decision.trace] == [
        ("critical-issues-opus", False, "priority = 'critical' (priority is 'low')"),
        ("retry-use-haiku", False, "retry_count = {'gte': 1} (retry_count is 0)"),
        ("high-priority-sonnet", False, "priority = ['high', 'normal'] (priority is 'low')"),
        ("off-hours-haiku", False, "hour_range = [0, 8] (hour is 12)"),
        ("docs-haiku", True, "labels = ['documentation', 'docs']"),
    ]
    assert decision.reason == "labels = ['documentation', 'docs']"


def test_the_first_of_equal_priority_in_the_file_wins():
    rules = [
        {"priority": 50, "model": "a"},
        {"model": "b"},
        {"priority": 51, "condition": "hour == 1", "model": "c"},
    ]
    router = ModelRouter(with_rules(*rules, default_provider="p"))
    assert [rule.name for rule in router.rules] == ["rule-3", "rule-1", "rule-2"]
    assert router.route({}) == ("p", "a")
    assert router.route({"hour": 1}) == ("p", "c")


def test_a_written_reason_is_the_reason():
    rule = {"condition": "priority == 0", "model": "claude-opus-4", "reason": "Critical tasks get best model"}
    assert decided(ModelRouter(with_rules(rule)), {"priority": 0}).reason == "Critical tasks get best model"


# -- where a rule leads ---------------------------------------------------------------------------------

MODELS = (
    {"name": "deepseek/deepseek-chat", "provider": "openrouter"},
    {"name": "claude-sonnet-4-5", "provider": "claude-cli"},
    {"name": "deepseek/deepseek-chat", "provider": "elsewhere"},
)


@pytest.mark.parametrize(
    ("rule", "routing", "target"),
    [
        (
            {"model": "deepseek/deepseek-chat"},
            {"default_provider": "d"},
            ("openrouter", "deepseek/deepseek-chat"),
        ),
        ({"model": "unlisted"}, {"default_provider": "d"}, ("d", "unlisted")),
        ({"model": "unlisted"}, {}, ("claude-cli", "unlisted")),
        ({"provider": "p"}, {"default_model": "m"}, ("p", "m")),
        ({"provider": "p", "model": "deepseek/deepseek-chat"}, {}, ("p", "deepseek/deepseek-chat")),
        ({}, {"default_model": "deepseek/deepseek-chat"}, ("openrouter", "deepseek/deepseek-chat")),
    ],
)
def test_the_missing_half_of_a_target_comes_from_the_models_and_the_defaults(rule, routing, target):
    assert ModelRouter(with_rules(rule, models=MODELS, **routing)).route({}) == target


def test_select_model_takes_the_routing_and_models_tables_and_a_task_object():
    routing = {
        "default_model": "claude-sonnet-4-5",
        "rules": [
            {
                "condition": "priority == 0",
                "model": "claude-opus-4",
                "reason": "Critical tasks get best model",
            },
            {"condition": "labels contains 'documentation'", "model": "claude-haiku-4"},
            {"condition": "hour >= 22 or hour <= 6", "model": "deepseek/deepseek-chat"},
            {"condition": "retry_count >= 2", "model": "second-thoughts"},
            {"condition": "task.id ends_with '0'", "model": "grok-beta"},
        ],
    }

    def task(priority=2, labels=(), attempts=0, task_id="gh-11"):
        tracking = SimpleNamespace(attempt_count=attempts)
        return SimpleNamespace(priority=priority, labels=list(labels), error_tracking=tracking, id=task_id)

    router = ModelRouter(routing, MODELS, now=at(12))
    assert router.select_model(task(priority=0)) == "claude-opus-4"
    assert router.select_model(task(labels=["documentation"])) == "claude-haiku-4"
    assert router.select_model(task(attempts=2)) == "second-thoughts"
    assert router.select_model(task(task_id="gh-120")) == "grok-beta"
    assert router.select_model(task()) == "claude-sonnet-4-5"
    assert router.select_model({"priority": "critical"}) == "claude-opus-4"
    assert ModelRouter(routing, MODELS, now=at(23)).select_model(task()) == "deepseek/deepseek-chat"
    assert ModelRouter(routing, MODELS, now=at(23)).route({}) == ("openrouter", "deepseek/deepseek-chat")
    assert (
        ModelRouter({**routing, "enabled": False}, MODELS).select_model(task(priority=0))
        == "claude-sonnet-4-5"
    )


# -- the hour -------------------------------------------------------------------------------------------


def test_the_hour_is_the_one_of_the_configured_time_zone(config):
    config["coordinator"] = {"timezone": "Asia/Tokyo"}  # nine hours ahead of UTC
    assert ModelRouter(config, now=at(22, 59)).route(NOTHING)[1] == "claude-haiku-4"
    assert ModelRouter(config, now=at(23)).route(NOTHING)[1] == "claude-sonnet-4-5"
    assert ModelRouter(config, now=at(2)).route(NOTHING)[1] == "claude-sonnet-4-5"


def test_an_hour_the_caller_gives_is_kept(config):
    assert ModelRouter(config, now=at(3)).route({**NOTHING, "hour": 12})[1] == "claude-sonnet-4-5"


def test_without_a_clock_conditions_on_the_hour_do_not_match(config):
    decision = decided(ModelRouter(config), NOTHING)
    assert decision.rule is None
    assert (
        RuleTrace(rule="off-hours-haiku", matched=False, why="hour_range = [0, 8] (hour is not known)")
        in decision.trace
    )


def test_an_unknown_time_zone_is_refused(config):
    config["coordinator"] = {"timezone": "Mars/Olympus"}
    with pytest.raises(ConfigError, match=r'coordinator\.timezone: "Mars/Olympus" is no time zone'):
        ModelRouter(config)


# -- eligibility ----------------------------------------------------------------------------------------


def refusing(*targets):
    asked = []

    def eligible(target, _attrs):
        asked.append(str(target))
        return Refusal("cooling down") if str(target) in targets else None

    return eligible, asked


def test_a_target_that_is_not_eligible_gives_way_to_the_next_rule_that_matches(config):
    config["routing"]["rules"].append(
        {"name": "urgent-too", "priority": 99, "conditions": {"priority": 0}, "model": "m"}
    )
    eligible, asked = refusing("claude-cli/claude-opus-4")
    decision = decided(ModelRouter(config), CRITICAL, eligible)
    assert (decision.rule, decision.model) == ("urgent-too", "m")
    assert decision.trace[0] == RuleTrace(
        rule="critical-issues-opus",
        matched=True,
        why="passed over: claude-cli/claude-opus-4 is not eligible: cooling down",
    )
    assert asked == ["claude-cli/claude-opus-4", "claude-cli/m"]


def test_after_the_last_rule_the_default_is_tried(config):
    eligible, _ = refusing("claude-cli/claude-opus-4")
    decision = decided(ModelRouter(config), CRITICAL, eligible)
    assert (decision.rule, decision.model) == (None, "claude-sonnet-4-5")
    assert decision.reason == "no eligible target among the rules that matched"
    assert decision.log_line == (
        "✗ No eligible target among the rules that matched → claude-cli/claude-sonnet-4-5 (default)"
    )


def test_when_nothing_is_eligible_there_is_no_route_and_every_target_says_why(config):
    eligible, asked = refusing("claude-cli/claude-haiku-4", "claude-cli/claude-sonnet-4-5")
    decision = ModelRouter(config).decide({**DOCS, "retry_count": 1}, eligible=eligible)
    assert isinstance(decision, NoRoute)
    assert decision.reasons == (
        "claude-cli/claude-haiku-4: cooling down",
        "claude-cli/claude-sonnet-4-5: cooling down",
    )
    assert decision.reason == "; ".join(decision.reasons)
    assert asked == ["claude-cli/claude-haiku-4", "claude-cli/claude-sonnet-4-5"], "each target is asked once"
    assert sum(entry.matched for entry in decision.trace) == 2


def test_disabled_routing_has_no_route_when_the_default_is_not_eligible(config):
    config["routing"]["enabled"] = False
    eligible, _ = refusing("claude-cli/claude-sonnet-4-5")
    assert isinstance(ModelRouter(config).decide(CRITICAL, eligible=eligible), NoRoute)


def test_an_unavailable_provider_is_not_eligible(config, tmp_path):
    config["routing"]["rules"].append(
        {
            "name": "low-openrouter",
            "priority": 99,
            "conditions": {"priority": "low"},
            "provider": "openrouter",
        }
    )
    program = tmp_path / "claude"
    program.touch(mode=0o700)
    providers = ProviderManager(config, environ={"PATH": str(tmp_path)}, project_root=tmp_path)
    decision = decided(ModelRouter(config, providers=providers), DOCS)
    assert decision.rule == "docs-haiku"
    assert decision.trace[1].why.endswith("is not eligible: OPENROUTER_API_KEY not set")

    program.unlink()
    router = ModelRouter(config, providers=providers)
    assert isinstance(router.decide(DOCS), NoRoute)
    with pytest.raises(CoordinatorError, match=r"no provider can do it: .*claude not found on PATH"):
        router.route(DOCS)


def test_a_rule_can_ask_whether_a_provider_is_down(config, tmp_path):
    config["routing"]["rules"] = [
        {
            "condition": "provider_status['claude-cli'] == 'down'",
            "provider": "openrouter",
            "model": "fallback",
        }
    ]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/openrouter-cli.py").touch(mode=0o700)
    environ = {"PATH": str(tmp_path), "OPENROUTER_API_KEY": "k"}
    router = ModelRouter(config, providers=ProviderManager(config, environ=environ, project_root=tmp_path))
    assert router.route(CRITICAL) == ("openrouter", "fallback")
    (tmp_path / "claude").touch(mode=0o700)
    assert router.route(CRITICAL) == ("claude-cli", "claude-sonnet-4-5")
    assert router.route({**CRITICAL, "provider_status": {"claude-cli": "down"}})[1] == "fallback"


def test_how_providers_are_is_kept_also_where_no_rule_asks(config):
    """So that `route replay` can try a rule that does on this decision."""
    decision = ModelRouter(config, statuses=lambda: {"claude-cli": "degraded"}).decide(DOCS)
    assert decision.known["provider_status"] == {"claude-cli": "degraded"}
    assert "provider_status" not in decision.attrs_line


# -- mistakes -------------------------------------------------------------------------------------------


def test_all_rules_that_cannot_be_used_are_named_at_once():
    rules = [
        {"name": "first", "condition": "prioritty == 0"},
        {"name": "fine", "condition": "priority == 0"},
        {"conditions": {"priority": "urgent"}},
        {"name": "both", "condition": "true", "conditions": {}},
        {"name": "kind", "priority": "high"},
        {"name": "table", "conditions": "priority == 0"},
        {"name": "text", "condition": {"priority": 0}},
        {"name": "empty", "condition": ""},
    ]
    with pytest.raises(ConfigError) as caught:
        ModelRouter(with_rules(*rules))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        'routing rule "first"',
        'routing rule "rule-3"',
        'routing rule "both"',
        'routing rule "kind"',
        'routing rule "table"',
        'routing rule "text"',
        'routing rule "empty"',
    ]
    assert "did you mean priority? (at character 1)" in caught.value.problems[0]


def test_deciding_changes_neither_the_configuration_nor_the_attributes(config):
    before, attrs = copy.deepcopy(config), copy.deepcopy(DOCS)
    router = ModelRouter(config, now=at(3))
    first = router.decide(attrs)
    assert (router.decide(attrs), config, attrs) == (first, before, DOCS)
