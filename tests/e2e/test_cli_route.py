"""`route explain --attrs` and `route lint`, which need a configuration and nothing else."""

from __future__ import annotations

import pytest
from conftest import run

CONFIG = """\
[coordinator]
timezone = "Europe/Berlin"
[providers.claude-cli]
command_template = ["sh", "-c", "true"]
agent = "generic"
[providers.openrouter]
requires_api_key = true
api_key_env = "NO_SUCH_KEY"
agent = "generic"
command_template = ["sh", "{model}"]
[llm]
provider = "claude-cli"
model_default = "sonnet"
[routing]
enabled = true
[[routing.rules]]
name = "weekend"
condition = "weekday >= 'sat' and priority == 0"
provider = "openrouter"
model = "a/b"
[[routing.rules]]
name = "critical"
conditions = { priority = "critical" }
model = "opus"
reason = "Critical tasks get the best model"
[[routing.rules]]
name = "tenth"
condition = "task.id ends_with '0'"
model = "grok"
"""
CRITICAL = '{"priority": "critical", "labels": ["security"], "retry_count": 0}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("route")


@pytest.fixture
def route(folder):
    config = folder / "config.toml"
    config.write_text(CONFIG)

    def answer(verb, *options, **changes):
        text = CONFIG
        for old, new in changes.items():
            text = text.replace(old, new)
        config.write_text(text)
        return run("route", verb, *options, "--config", str(config), cwd=folder)

    return answer


def test_explain_shows_every_rule_every_target_and_the_decision(route):
    answer = route("explain", "--attrs", CRITICAL, "--at", "2026-11-21T10:30")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("  Sat 2026-11-21 10:30 CET, configuration ")
    shown = lines[lines.index("Rules, in the order they are tried:") :]
    assert shown == [
        "Rules, in the order they are tried:",
        "  ! weekend: passed over: openrouter/a/b is not eligible: NO_SUCH_KEY not set",
        "  ✓ critical: priority = 'critical'",
        "  · tenth: not asked",
        "Targets:",
        "  ✗ openrouter/a/b: NO_SUCH_KEY not set",
        "  ✓ claude-cli/opus: eligible",
        "  · claude-cli/sonnet: not asked",
        "✓ Rule matched: critical → claude-cli/opus",
        "  Task attrs: {'priority': 'critical', 'labels': ['security'], 'retry_count': 0}",
        "  Reason: Critical tasks get the best model",
    ]


def test_a_field_of_the_task_may_be_given_by_its_path(route):
    answer = route("explain", "--attrs", '{"task.id": "gh-10"}', "--at", "22:30", "--json")
    facts = answer.json["now"]
    assert (facts["rule"], facts["model"], facts["attrs"]["hour"]) == ("tenth", "grok", 22)
    assert facts["rules"][1]["why"] == "priority = 'critical' (priority is not known)"


@pytest.mark.parametrize(
    ("at", "hour", "weekday"),
    [
        ("2026-03-29T02:30", 3, "sun"),  # a time that the clocks skip
        ("2026-10-25T02:30", 2, "sun"),
        ("2026-10-25T02:30+01:00", 2, "sun"),  # the second of the two
        ("2026-10-25T23:30Z", 0, "mon"),
    ],
)
def test_a_time_is_that_of_the_configured_time_zone(route, at, hour, weekday):
    facts = route("explain", "--attrs", "{}", "--at", at, "--json").json["now"]
    assert (facts["attrs"]["hour"], facts["attrs"]["weekday"]) == (hour, weekday)


def test_where_routing_is_disabled_explain_says_what_enabling_it_would_do(route):
    answer = route("explain", "--attrs", CRITICAL, "--at", "2026-11-20T10:30", **{"enabled = true": ""})
    assert "Routing is disabled → claude-cli/sonnet (default)" in answer.out
    assert "With routing.enabled = true: ✓ Rule matched: critical → claude-cli/opus" in answer.out


def test_explain_has_an_answer_when_no_target_can_be_used(route):
    gone = {'["sh", "-c", "true"]': '["no-such-program"]'}
    answer = route("explain", "--attrs", "{}", **gone)
    assert answer.code == 0
    assert "✗ No target can be used: claude-cli/sonnet: no-such-program not found on PATH" in answer.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give either an ISSUE or --attrs"),
        (("12", "--attrs", "{}"), "give either an ISSUE or --attrs"),
        (("--attrs", "{"), "this is no JSON"),
        (("--attrs", "[]"), "it has to be an object"),
        (("--attrs", '{"prio": 1}'), 'there is no attribute "prio"; did you mean'),
        (("--attrs", '{"task.nubmer": 1}'), 'task has no "nubmer"; did you mean'),
        (("--attrs", "{}", "--at", "25:00"), "'25:00' is not a time such as 22:30"),
    ],
)
def test_wrong_usage_of_explain_is_refused_with_a_sentence(route, options, said):
    answer = route("explain", *options)
    assert answer.code == 2
    assert said in " ".join(answer.err.replace("│", " ").split())


def test_lint_says_what_is_wrong_and_ends_with_1(route):
    old = "condition = \"weekday >= 'sat' and priority == 0\""
    wide = {old: 'conditions = { priority = ["critical", "high"] }'}
    never = {"task.id ends_with '0'": "hour > 23"}
    answer = route("lint", **wide, **never)
    before = 'whatever matches it matches "weekend" before'
    assert answer.code == 1
    assert answer.out.splitlines() == [
        '  ✗ target: rule "weekend" leads to openrouter/a/b, which cannot run: NO_SUCH_KEY not set.',
        f'  ✗ shadowed: rule "critical" is only chosen while openrouter/a/b cannot be used: {before}.',
        '  ✗ contradictory: rule "tenth" can never match: hour > 23.',
    ]
    kinds = [finding["kind"] for finding in route("lint", "--json", **wide, **never).json["findings"]]
    assert kinds == ["target", "shadowed", "contradictory"]


def test_lint_has_nothing_to_say_about_sound_rules(route):
    sound = {'provider = "openrouter"\nmodel = "a/b"': 'model = "a/b"'}
    answer = route("lint", **sound)
    assert answer.code == 0
    assert answer.out.endswith("nothing is wrong with the 3 rules and their targets.\n")


def test_a_condition_that_cannot_be_read_is_shown_with_a_caret(route):
    answer = route("lint", **{"weekday >= 'sat' and priority == 0": "wekday == 'sat'"})
    assert answer.code == 78
    first, shown, caret = answer.err.splitlines()
    assert first.endswith('is wrong at character 1: unknown name "wekday"; did you mean weekday?')
    assert (shown, caret) == ("    wekday == 'sat'", "    ^^^^^^")
