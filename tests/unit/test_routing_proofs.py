"""What is worked out beforehand never changes a decision: the index, the trace, and what lint proves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.config import parse_settings
from adw_modules.routing import ModelRouter, RoutingDecision
from adw_modules.routing.conditions import compile_condition, compile_conditions
from adw_modules.routing.index import RuleIndex
from adw_modules.routing.lint import Kind, lint

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
LABELS = st.sampled_from(["bug", "docs", "Docs"])
NUMBERS = st.sampled_from(["retry_count", "hour", "title_length", "created_age_hours", "task.number"])
TEXTS = st.sampled_from(["repo", "author", "title", "last_model", "task.id"])
WORDS = st.sampled_from(["a", "ab", "acme/a", "B"])
COUNTS = st.integers(-1, 25) | st.just(0.5)
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


@st.composite
def comparisons(draw):
    match draw(st.integers(0, 8)):
        case 0:
            return f"priority {draw(SIGNS)} {draw(st.integers(0, 3))}"
        case 1:
            return f"weekday {draw(SIGNS)} '{draw(st.sampled_from(DAYS))}'"
        case 2 | 3:
            return f"{draw(NUMBERS)} {draw(SIGNS)} {draw(COUNTS)}"
        case 4:
            return f"labels contains '{draw(LABELS)}'"
        case 5:
            sign = draw(st.sampled_from(["==", "!=", "contains", "starts_with", "ends_with", "in 'abc' =="]))
            name, word = draw(TEXTS), draw(WORDS)
            return f"{name} in 'abc'" if "=" in sign[2:] else f"{name} {sign} '{word}'"
        case 6:
            return f"provider_status['a'] == '{draw(st.sampled_from(['up', 'down']))}'"
        case 7:
            return f"{draw(st.sampled_from(['author', 'failure_class', 'labels', 'hour']))} == null"
    return draw(st.sampled_from(["true", "title == repo", "retry_count < hour", "task.number ends_with '1'"]))


def joined(parts):
    pairs = st.tuples(parts, st.sampled_from(["and", "or"]), parts)
    return pairs.map(lambda three: f"({' '.join(three)})") | parts.map(lambda part: f"not ({part})")


CONDITIONS = st.recursive(comparisons(), joined, max_leaves=4)
GIVEN = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 3),
        "labels": st.lists(LABELS, max_size=2),
        "retry_count": st.integers(0, 3),
        "hour": st.integers(0, 23),
        "weekday": st.sampled_from(DAYS),
        "repo": WORDS,
        "author": WORDS,
        "title": WORDS,
        "title_length": st.integers(0, 9),
        "created_age_hours": st.floats(0, 30),
        "task": st.fixed_dictionaries({"id": WORDS, "number": st.integers(1, 25)}),
    },
    optional={"last_model": WORDS, "provider_status": st.just({"a": "down"}) | st.just({"a": "up"})},
)
ODD = (
    st.none()
    | st.booleans()
    | st.floats()
    | WORDS
    | st.lists(WORDS | st.integers(0, 1), max_size=2)
    | st.just([[]])
)
ANYTHING = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("priority", "labels", "retry_count", "hour", "repo", "title_length"), ODD)
)


@settings(max_examples=60)
@given(st.lists(CONDITIONS, max_size=6), st.lists(GIVEN | ANYTHING, min_size=1, max_size=6))
def test_the_index_finds_the_rules_that_one_by_one_evaluation_finds(texts, tasks):
    conditions = [compile_condition(text) for text in texts]
    index = RuleIndex(conditions)
    for attrs in [*tasks, *tasks]:  # the second time from memory
        expected = [n for n, condition in enumerate(conditions) if condition.evaluate(attrs).matched]
        assert list(index.matching(attrs)) == expected


@pytest.mark.parametrize(
    "values", [(1, True, 1.0), (0, False, 0.0), ("1", 1), (float("nan"), 2, float("nan"))]
)
def test_values_that_are_alike_to_a_dict_are_not_confused_by_the_index(values):
    conditions = [
        compile_condition(text) for text in ("retry_count == 1", "title_length >= 0", "repo == '1'")
    ]
    index = RuleIndex(conditions)
    for name in ("retry_count", "title_length", "repo"):
        for value in (*values, *values):
            attrs = {name: value}
            expected = [n for n, condition in enumerate(conditions) if condition.evaluate(attrs).matched]
            assert list(index.matching(attrs)) == expected


def test_the_index_forgets_instead_of_growing():
    index = RuleIndex([compile_conditions({"author": "ada"})])
    for number in range(10_000):
        assert not list(index.matching({"author": f"somebody {number}"}))
    (column,) = index._columns
    assert len(column.remembered) <= 4096


def test_the_trace_tells_what_was_seen_even_when_the_caller_changes_its_values_later():
    rules = [{"name": "r", "condition": "labels contains 'docs'"}, {"name": "all"}]
    attrs = {"labels": ["bug"], "task": {"id": "gh-1"}}
    decision = ModelRouter({"routing": {"enabled": True, "rules": rules}}).decide(attrs)
    attrs["labels"].append("docs")
    attrs["task"]["id"] = "gh-2"
    assert decision.trace[0].why == "labels contains 'docs' (labels is ['bug'])"
    assert decision.stored().trace["attrs"] == {"labels": ["bug"], "task": {"id": "gh-1"}}


@settings(max_examples=50)
@given(st.lists(CONDITIONS, min_size=1, max_size=5), GIVEN)
def test_the_same_task_is_decided_the_same_with_the_same_trace(texts, attrs):
    config = with_rules(*texts)
    first, second = ModelRouter(config).decide(attrs), ModelRouter(config).decide(attrs)
    again = ModelRouter(config)
    again.decide({})
    assert first == second == again.decide(attrs)
    assert isinstance(first, RoutingDecision)
    last = first.trace[-1]
    assert last.matched is (first.rule is not None)
    assert [tried.rule for tried in first.trace] == [f"r{n}" for n in range(len(first.trace))]


# -- what lint says -------------------------------------------------------------------------------------


def with_rules(*texts):
    rules = [{"name": f"r{n}", "condition": text, "model": f"m{n}"} for n, text in enumerate(texts)]
    return {"routing": {"enabled": True, "rules": rules}}


def found(*texts):
    findings = lint(ModelRouter(with_rules(*texts)), lambda _provider: None)
    return {finding.rule: (finding.kind, finding.others) for finding in findings}


@settings(max_examples=50)
@given(st.lists(CONDITIONS, min_size=1, max_size=4), st.lists(GIVEN, min_size=8, max_size=8))
def test_what_lint_finds_is_never_chosen_whatever_the_task(texts, tasks):
    router = ModelRouter(with_rules(*texts))
    wrong = {finding.rule for finding in lint(router, lambda _provider: None)}
    for attrs in tasks:
        assert router.decide(attrs).rule not in wrong


@pytest.mark.parametrize(
    "texts",
    [
        ("priority <= 'high'", "priority == 0"),
        ("priority in [0, 1]", "priority == 'high' and labels contains 'x'"),
        ("labels contains 'a' or labels contains 'b'", "labels contains 'B'"),
        ("retry_count >= 1", "retry_count > 1"),
        ("retry_count >= 1 and retry_count <= 5", "retry_count in [2, 3]"),
        ("hour >= 22 or hour < 6", "hour == 23"),
        ("created_age_hours > 24", "created_age_hours > 24.5"),
        ("weekday >= 'sat'", "weekday == 'sun' and hour < 5"),
        ("repo starts_with 'acme/'", "repo == 'Acme/shop'"),
        ("repo starts_with 'acme/'", "repo starts_with 'acme/s'"),
        ("title contains 'fix'", "title ends_with 'a fix'"),
        ("author != 'bob'", "author == 'ada'"),
        ("not (author == 'bob')", "author == 'ada'"),
        ("provider_status['a'] in ['down', 'cooling']", "provider_status['a'] == 'down'"),
        ("failure_class != null", "failure_class == 'signal'"),
        ("not (priority == 0 and hour < 5)", "hour == 7"),
        ("title == repo", "hour == 1 and title == repo"),
    ],
)
def test_a_rule_behind_a_wider_one_is_shadowed(texts):
    assert found(*texts) == {"r1": (Kind.SHADOWED, ("r0",))}
    assert found(*reversed(texts)) == {}, "the other way round both are reached"


@pytest.mark.parametrize(
    "text",
    [
        "priority == 0 and priority == 1",
        "hour < 5 and hour > 5",
        "hour == 24",
        "hour > 3 and hour < 4",
        "title_length < 0",
        "retry_count == 1.5",
        "weekday == 'sat' and weekday < 'fri'",
        "author == 'ada' and author == 'bob'",
        "author == 'ada' and not (author starts_with 'a')",
        "labels contains 'a' and not labels contains 'A'",
        "last_model == null and last_model == 'x'",
        "provider_status['a'] == 'up' and provider_status['a'] == 'down'",
        "not (hour >= 0)",
        "repo == null",
        "false",
    ],
)
def test_a_rule_that_can_never_match_is_contradictory(text):
    assert found(text) == {"r0": (Kind.CONTRADICTORY, ())}


def test_counts_are_whole_numbers():
    assert found("retry_count > 0", "retry_count >= 1") == {"r1": (Kind.SHADOWED, ("r0",))}


def test_rules_behind_one_that_always_matches_are_unreachable():
    assert found("hour >= 0", "priority == 0") == {"r1": (Kind.UNREACHABLE, ("r0",))}


def test_a_rule_that_several_leave_nothing_to_is_unreachable():
    others = ("hour < 12", "author == 'ada'", "hour >= 12 and priority <= 1", "priority >= 2")
    assert found(*others, "labels contains 'x'") == {"r4": (Kind.UNREACHABLE, ("r0", "r2", "r3"))}


@pytest.mark.parametrize(
    "texts",
    [
        ("labels contains 'a'", "labels contains 'b'"),
        ("labels contains 'a' and labels contains 'b'", "labels contains 'a'"),
        ("budget_left < 5", "budget_left < 6"),
        ("budget_left >= 0", "budget_left < 0"),  # nobody says that money cannot be owed
        ("last_model != 'x'", "last_model == null"),
        ("estimated_tokens < 5", "not (estimated_tokens >= 5)"),  # not known is not below 5
        ("author in 'abc'", "author == 'd'"),
        ("title contains 'a'", "title == 'b'"),
        ("task.number ends_with '1'", "task.number == 2"),
        ("created_age_hours > 1", "created_age_hours >= 1"),
        ("hour < retry_count", "hour == 1 and retry_count == 2"),  # not proved, and so not said
    ],
)
def test_lint_raises_no_false_alarm(texts):
    assert found(*texts) == {}


def test_structured_conditions_are_proved_as_well_as_texts():
    rules = [
        {"name": "night", "conditions": {"hour_range": [20, 8], "labels": ["docs", "bug"]}},
        {
            "name": "late",
            "conditions": {"hour_range": [22, 6], "labels": ["docs"], "priority": "low"},
            "model": "x",
        },
    ]
    (finding,) = lint(ModelRouter({"routing": {"rules": rules}}), lambda _provider: None)
    assert (finding.kind, finding.rule, finding.others) == (Kind.SHADOWED, "late", ("night",))
    assert "is only chosen while claude-cli/claude-sonnet-4-5 cannot be used" in finding.text


def test_targets_that_cannot_run_are_found_with_the_reason_and_also_behind_the_defaults():
    rules = [{"name": "r", "condition": "hour == 1", "provider": "gone", "model": "m"}]
    router = ModelRouter({"routing": {"rules": rules}})
    findings = lint(router, {"gone": "disabled", "claude-cli": "claude not found on PATH"}.get)
    assert [(each.kind, each.rule, each.text) for each in findings] == [
        (Kind.TARGET, "r", 'rule "r" leads to gone/m, which cannot run: disabled'),
        (
            Kind.TARGET,
            None,
            "the defaults lead to claude-cli/claude-sonnet-4-5, which cannot run: claude not found on PATH",
        ),
    ]


def test_every_written_target_of_a_chain_is_judged_also_of_spreads_arms_preferences_and_defaults():
    written = """
[routing]
enabled = true
default_provider = "up"
default_model = "m"
fallbacks = ["gone/defaults"]
[[routing.rules]]
name = "spread"
condition = "hour == 1"
targets = [{ provider = "up", model = "s" }, { provider = "gone", model = "s" }]
fallbacks = ["gone/f"]
[[routing.rules]]
name = "selected"
condition = "hour == 2"
target = { select = "cheapest" }
fallbacks = ["gone/last"]
[[experiments]]
name = "trial"
condition = "hour == 3"
arms = [
    { name = "a", provider = "up", model = "a", fallbacks = ["gone/a"] },
    { name = "b", provider = "gone", model = "b" },
]
[[preferences]]
author = "ada"
rules = [{ name = "hers", target = "up/h", fallbacks = ["gone/h"] }]
"""
    providers = "".join(f'[providers.{name}]\ncommand_template = ["true"]\n' for name in ("up", "gone"))
    router = ModelRouter(parse_settings(providers + written, source="x"))
    findings = lint(router, {"gone": "disabled"}.get)
    assert [each.text.removesuffix(", which cannot run: disabled") for each in findings] == [
        'rule "experiment trial: a" falls back to gone/a',
        'rule "experiment trial: b" leads to gone/b',
        'rule "author ada: hers" falls back to gone/h',
        'rule "spread" leads to gone/s',
        'rule "spread" falls back to gone/f',
        'rule "selected" falls back to gone/last',
        "the defaults fall back to gone/defaults",
    ]


def test_conditions_with_too_many_alternatives_are_left_open_in_bounded_time():
    wide = " and ".join(f"(labels contains '{n}' or author == '{n}')" for n in range(20))
    assert found(wide, wide.replace("author", "repo"), "hour == 1") == {}
