"""Each attribute a rule may ask about, in both spellings: its kind, its values, the time on the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError
from adw_modules.routing import ModelRouter
from adw_modules.routing.conditions import ConditionError, compile_condition, compile_conditions
from adw_modules.routing.vocabulary import FAILURES, KNOWN, TASK_FIELDS, Kind
from adw_modules.tasks.model import FailureClass, Outcome
from adw_modules.tasks.planning import attributes
from tests.builders import NOW, a_task

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def holds(condition, **attrs):
    compiled = compile_condition(condition) if isinstance(condition, str) else compile_conditions(condition)
    return compiled.evaluate(attrs).matched


@pytest.mark.parametrize(
    ("structured", "text", "yes", "no"),
    [
        ({"priority": {"lte": "high"}}, "priority <= 'high'", {"priority": 1}, {"priority": "normal"}),
        ({"labels": ["docs", "Docs"]}, "labels contains 'docs'", {"labels": ["DOCS"]}, {"labels": ["doc"]}),
        ({"retry_count": {"gte": 1}}, "retry_count >= 1", {"retry_count": 1}, {"retry_count": 0}),
        ({"hour": {"lt": 8}}, "hour < 8", {"hour": 7}, {"hour": 8}),
        ({"hour_range": [22, 6]}, "hour >= 22 or hour < 6", {"hour": 22}, {"hour": 6}),
        ({"weekday": ["sat", "sun"]}, "weekday >= 'sat'", {"weekday": 6}, {"weekday": "fri"}),
        ({"repo": "acme/shop"}, "repo == 'acme/shop'", {"repo": "Acme/Shop"}, {"repo": "acme/site"}),
        ({"author": ["ada", "bob"]}, "author in ['ada', 'bob']", {"author": "Bob"}, {"author": "eve"}),
        ({"title": "fix"}, "title == 'fix'", {"title": "FIX"}, {"title": "fixed"}),
        ({"title_length": {"lte": 40}}, "title_length <= 40", {"title_length": 40}, {"title_length": 41}),
        ({"body_length": {"gt": 9}}, "body_length > 9", {"body_length": 10}, {"body_length": 9}),
        (
            {"created_age_hours": {"gte": 24}},
            "created_age_hours >= 24",
            {"created_age_hours": 24.0},
            {"created_age_hours": 23.99},
        ),
        (
            {"failure_class": ["timed_out", "stalled"]},
            "failure_class in ['timed_out', 'stalled']",
            {"failure_class": "stalled"},
            {"failure_class": "exit_code"},
        ),
        ({"last_provider": "a"}, "last_provider == 'a'", {"last_provider": "a"}, {"last_provider": None}),
        ({"last_model": "m/x"}, "last_model == 'm/x'", {"last_model": "m/x"}, {"last_model": "m"}),
        ({"budget_left": {"lt": 5}}, "budget_left < 5", {"budget_left": Decimal("4.99")}, {"budget_left": 5}),
        (
            {"estimated_tokens": {"gt": 50000}},
            "estimated_tokens > 50000",
            {"estimated_tokens": 50001},
            {"estimated_tokens": 50000},
        ),
        ({"context_needed": {"gte": 1}}, "context_needed >= 1", {"context_needed": 1}, {"context_needed": 0}),
        (
            {"provider_status": {"a": ["down", "cooling"]}},
            "provider_status['a'] in ['down', 'cooling']",
            {"provider_status": {"a": "cooling"}},
            {"provider_status": {"a": "up", "b": "down"}},
        ),
        ({"task": {"id": "gh-1"}}, "task.id == 'gh-1'", {"task": {"id": "GH-1"}}, {"task": {"id": "gh-11"}}),
        (
            {"task": {"number": {"gte": 100}}},
            "task.number >= 100",
            {"task": {"number": 100}},
            {"task": {"number": 99}},
        ),
        (
            {"task": {"last_outcome": "no_changes"}},
            "task.last_outcome == 'no_changes'",
            {"task": {"last_outcome": "no_changes"}},
            {"task": {"last_outcome": "lost"}},
        ),
    ],
)
def test_every_attribute_means_the_same_in_both_spellings(structured, text, yes, no):
    for condition in (structured, text):
        assert holds(condition, **yes)
        assert not holds(condition, **no)
        assert not holds(condition), "missing is false"
        assert not holds(condition, **dict.fromkeys(yes)), "null is false"


@pytest.mark.parametrize("spelling", [*enumerate(DAYS), *enumerate(["Monday", "TUESDAY"]), (6, 6)])
def test_a_weekday_is_a_name_or_a_number_from_monday_as_0(spelling):
    number, word = spelling
    assert holds("weekday == 0", weekday=word) is (number == 0)
    assert holds({"weekday": word}, weekday=number)
    assert holds({"weekday": [DAYS[number]]}, weekday=word)


@pytest.mark.parametrize("value", ["someday", 7, -1, True, 1.0, [], None])
def test_what_is_no_weekday_is_like_a_missing_one(value):
    assert not holds("weekday >= 'mon'", weekday=value)
    assert holds("weekday == null", weekday=value)


@pytest.mark.parametrize(
    ("condition", "position", "sentence"),
    [
        ("author == 3", 10, "author is a text and compares with texts in quotes"),
        ("author in ['a', 3]", 10, "author is a text and compares with texts in quotes"),
        ("repo == true", 8, "repo is a text and compares with texts in quotes"),
        ("repo", 0, "repo is not true or false; compare it"),
        ("title_length == 'long'", 16, "title_length is a number and compares with numbers"),
        ("budget_left contains 1", 12, "budget_left is a number; nothing can be in it"),
        ("hour == [1]", 8, "`==` compares hour with one value, not with a list"),
        ("hour.minute == 1", 5, 'hour is a number and has no part "minute"'),
        ("title[0] == 'x'", 6, "title is a text and has no item 0"),
        ("weekday == 'someday'", 11, "'someday' is no weekday; did you mean sunday?"),
        ("weekday == 7", 11, "7 is no weekday"),
        ("weekday contains 'mon'", 8, "weekday compares with ==, !=, <, <=, >, >= or `in` a list"),
        ("failure_class == 'timeout'", 17, "'timeout' is no failure_class; did you mean timed_out?"),
        ("provider_status['a'] == 'dwon'", 24, "'dwon' is no status of a provider; did you mean down?"),
        ("provider_status == 'down'", 0, "provider_status is a table; write provider_status['name']"),
        ("task == 'gh-1'", 0, "task is a table; write task.id"),
        ("author == retry_count", 7, "author is a text and retry_count is a number: they never compare"),
        ("priority == weekday", 9, "they never compare with `==`"),
        ("retry_count in labels", 12, "retry_count is a number and labels is a list"),
        ("author in []", 10, "nothing is in an empty list"),
    ],
)
def test_an_error_of_kind_is_refused_at_its_place(condition, position, sentence):
    with pytest.raises(ConditionError) as caught:
        compile_condition(condition)
    assert sentence in caught.value.message
    assert caught.value.position == position
    assert str(caught.value).split("\n")[2].index("^") == 4 + position


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"weekday": "someday"}, "'someday' is no weekday; did you mean sunday? (or 0 to 6)"),
        ({"weekday": []}, "weekday has an empty list, so it can never match"),
        ({"weekday": {}}, "weekday has an empty table"),
        ({"budget_left": float("nan")}, "budget_left takes a number or a comparison"),
        ({"failure_class": "boom"}, "'boom' is no failure_class"),
        ({"provider_status": {"a": "dwon"}}, "'dwon' is no status of a provider; did you mean down?"),
        ({"task": {}}, "task takes a table"),
        ({"task": "gh-1"}, "task takes a table"),
        ({"task": {"number": "12"}}, "task.number takes a number or a comparison"),
        ({"author": ["x"] * 201}, "author has more than 200 values"),
        ({"title": "x" * 501}, "title has a text of more than 500 characters"),
        ({"labels": ["x" * 501]}, "labels has a text of more than 500 characters"),
    ],
)
def test_a_structured_error_of_kind_or_size_is_refused(written, sentence):
    with pytest.raises(ConditionError) as caught:
        compile_conditions(written)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ('condition = "task.nubmer == 3"', 'task has no "nubmer"; did you mean number?'),
        ("conditions = { task = { nubmer = 3 } }", 'task has no "nubmer"; did you mean number?'),
        ('conditions = { weekdya = "mon" }', 'has no key "weekdya"; did you mean "weekday"?'),
        ("condition = \"provider_status['claud-cli'] == 'down'\"", 'did you mean "claude-cli"?'),
        ('conditions = { provider_status = { claud-cli = "down" } }', 'did you mean "claude-cli"?'),
    ],
)
def test_a_name_that_the_daemon_does_not_know_is_refused_when_the_file_is_read(rule, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_settings(f"[[routing.rules]]\n{rule}", source="config.toml")
    assert sentence in str(caught.value)
    assert "config.toml, line 2: " in str(caught.value)


def test_the_file_and_the_caret_stand_in_the_sentence_about_a_text():
    with pytest.raises(ConfigError) as caught:
        parse_settings("[[routing.rules]]\ncondition = \"weekday >= 'st'\"", source="c.toml")
    sentence = "'st' is no weekday; did you mean sat? (or 0 to 6)."
    assert str(caught.value).split("\n") == [
        f"c.toml, line 2: routing.rules[#1].condition is wrong at character 12: {sentence}",
        "    weekday >= 'st'",
        "               ^",
    ]


def test_a_caret_stands_under_its_place_in_a_long_text_and_beside_wide_characters():
    with pytest.raises(ConditionError) as long:
        compile_condition("author == '日本' or " * 20 + "hour == 'x'")
    _, shown, caret = str(long.value).split("\n")
    assert len(shown) < 110
    assert shown.lstrip().startswith("…")
    before = shown[: shown.rindex("'x'")]
    wide = sum(char in "日本" for char in before)
    assert caret.index("^") == len(before) + wide


def test_a_text_that_looks_like_a_secret_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        parse_settings("[[routing.rules]]\ncondition = \"author = 'ghp_0123456789abcdef'\"", source="c.toml")
    assert "ghp_" not in str(caught.value)


# -- what the daemon gives ------------------------------------------------------------------------------


def test_the_daemon_gives_every_attribute_that_it_promises():
    router = ModelRouter({}, now=lambda: NOW)
    task = a_task(created_at=NOW - timedelta(hours=5, minutes=30), last_provider="a", last_model="m")
    known = router.decide(attributes(task, now=NOW)).known
    assert {name for name, what in KNOWN.items() if what.given} <= {
        k for k, v in known.items() if v is not None
    }
    assert {n for n, what in TASK_FIELDS.items() if what.given} <= {
        k for k, v in known["task"].items() if v is not None
    }
    assert set(known["task"]) == set(TASK_FIELDS)
    assert known["created_age_hours"] == 5.5
    assert (known["title_length"], known["body_length"]) == (16, 13)
    assert (known["last_provider"], known["last_model"]) == ("a", "m")
    assert (known["hour"], known["weekday"]) == (12, "sat")


@pytest.mark.parametrize(
    ("failure_class", "outcome", "word"),
    [
        (None, None, None),
        (FailureClass.SIGNAL, Outcome.FAILED, "signal"),
        (None, Outcome.TIMED_OUT, "timed_out"),
        (None, Outcome.SUCCEEDED, None),
    ],
)
def test_a_failure_without_a_class_is_known_by_its_outcome(failure_class, outcome, word):
    found = attributes(a_task(last_failure_class=failure_class, last_outcome=outcome))["failure_class"]
    assert found == word
    assert word is None or word in FAILURES


def test_a_clock_that_was_set_back_makes_no_negative_age():
    task = a_task(created_at=NOW + timedelta(hours=1))
    assert attributes(task, now=NOW)["created_age_hours"] == 0


# -- the time on the clocks -----------------------------------------------------------------------------


def hours_of_the_day_that_match(day: str, hours: list[int], zone: str) -> int:
    """How many quarters of an hour of that day, from midnight to midnight there, lead by the rule."""
    rules = [{"name": "r", "conditions": {"hour_range": hours}, "provider": "p", "model": "night"}]
    midnight = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    start, end = (each.astimezone(UTC) for each in (midnight, midnight + timedelta(days=1)))
    times = [start + timedelta(minutes=15 * n) for n in range((end - start) // timedelta(minutes=15))]
    config = {"coordinator": {"timezone": zone}, "routing": {"enabled": True, "rules": rules}}
    clock = iter(times)
    router = ModelRouter(config, now=lambda: next(clock))
    return sum(router.decide({}).rule == "r" for _ in times)


@pytest.mark.parametrize(
    ("day", "hours", "quarters"),
    [
        ("2026-03-28", [2, 3], 4),
        ("2026-03-29", [2, 3], 0),  # the clocks skip it
        ("2026-03-29", [1, 4], 8),
        ("2026-10-25", [2, 3], 8),  # it comes twice
        ("2026-10-25", [1, 4], 16),
    ],
)
def test_an_hour_range_follows_the_clocks_when_they_are_turned(day, hours, quarters):
    assert hours_of_the_day_that_match(day, hours, "Europe/Berlin") == quarters


@pytest.mark.parametrize(
    ("zone", "hour", "weekday"),
    [
        ("UTC", 23, "sat"),
        ("Asia/Tokyo", 8, "sun"),
        ("Asia/Kolkata", 5, "sun"),
        ("America/New_York", 18, "sat"),
        ("Pacific/Kiritimati", 13, "sun"),
    ],
)
def test_hour_and_weekday_are_those_of_the_configured_time_zone(zone, hour, weekday):
    at = datetime(2026, 11, 21, 23, 50, tzinfo=UTC)
    known = ModelRouter({"coordinator": {"timezone": zone}}, now=lambda: at).decide({}).known
    assert (known["hour"], known["weekday"]) == (hour, weekday)


def test_each_decision_reads_the_clock_anew_also_when_it_was_set_back():
    rules = [{"conditions": {"hour_range": [22, 6]}, "model": "night"}]
    times = [datetime(2026, 5, 1, hour, tzinfo=UTC) for hour in (21, 22, 21)]
    clock = iter(times)
    router = ModelRouter({"routing": {"enabled": True, "rules": rules}}, now=lambda: next(clock))
    assert [router.decide({}).rule for _ in times] == [None, "rule-1", None]


@given(
    st.integers(0, 366 * 24 * 4).map(lambda hours: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=hours))
)
def test_a_local_time_always_has_the_day_of_the_week_of_its_date(at):
    known = ModelRouter({"coordinator": {"timezone": "Europe/Berlin"}}, now=lambda: at).decide({}).known
    there = at.astimezone(ZoneInfo("Europe/Berlin"))
    assert known["weekday"] == DAYS[there.weekday()]
    assert known["hour"] == there.hour


def test_every_attribute_has_a_kind_that_is_checked():
    assert {what.kind for what in KNOWN.values()} <= set(Kind) - {Kind.ANY}
