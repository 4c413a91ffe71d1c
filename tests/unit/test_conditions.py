"""Both spellings of a condition: what they mean, how they explain themselves, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adw_modules.errors import ConfigError
from adw_modules.routing.attributes import show
from adw_modules.routing.conditions import Condition, ConditionError, compile_condition, compile_conditions
from adw_modules.routing.vocabulary import ATTRIBUTES
from adw_modules.tasks.model import Priority


def holds(condition: str | dict[str, object], **attrs: object) -> bool:
    compiled = compile_condition(condition) if isinstance(condition, str) else compile_conditions(condition)
    return compiled.evaluate(attrs).matched


# -- the structured spelling ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["critical", "CRITICAL", 0, Priority.CRITICAL])
@pytest.mark.parametrize("wanted", ["critical", "Critical", 0, ["low", "critical"], [3, 0]])
def test_priority_matches_as_word_and_as_number(value, wanted):
    assert holds({"priority": wanted}, priority=value)


@pytest.mark.parametrize("value", ["low", 3, "urgent", "", True, None, 0.0, 7, -1, [0], {}])
def test_another_priority_does_not_match(value):
    assert not holds({"priority": ["critical", "high"]}, priority=value)


def test_any_of_the_labels_is_enough_whatever_their_case():
    wanted = {"labels": ["documentation", "Docs"]}
    assert holds(wanted, labels=["bug", "DOCS"])
    assert holds(wanted, labels=("documentation",))
    assert not holds(wanted, labels=["bug", "document"])
    assert not holds(wanted, labels=[])


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        (1, {1}),
        ({"gte": 1}, {1, 2, 3}),
        ({"lte": 1}, {0, 1}),
        ({"eq": 2}, {2}),
        ({"gt": 1}, {2, 3}),
        ({"lt": 1}, {0}),
        ({"gte": 1, "lt": 3}, {1, 2}),
    ],
)
def test_retry_count_compares_as_a_number(wanted, matching):
    assert {count for count in range(4) if holds({"retry_count": wanted}, retry_count=count)} == matching


@pytest.mark.parametrize(
    ("hours", "matching"),
    [
        ([0, 8], set(range(8))),
        ([22, 6], {22, 23, *range(6)}),
        ([9, 9], set(range(24))),
        ([0, 24], set(range(24))),
        ([22, 24], {22, 23}),
        ([23, 0], {23}),
    ],
)
def test_an_hour_range_is_half_open_and_wraps_midnight(hours, matching):
    assert {hour for hour in range(24) if holds({"hour_range": hours}, hour=hour)} == matching


def test_provider_status_names_the_provider():
    wanted = {"provider_status": {"claude-cli": ["down", "cooling"]}}
    assert holds(wanted, provider_status={"claude-cli": "down", "openrouter": "up"})
    assert not holds(wanted, provider_status={"claude-cli": "up", "openrouter": "down"})
    assert not holds(wanted, provider_status="down")


@pytest.mark.parametrize("key", ["repo", "author", "title", "last_provider", "last_model"])
def test_texts_match_one_or_any_of_several(key):
    assert holds({key: "Acme/Shop"}, **{key: "acme/shop"})
    assert holds({key: ["x", "acme/shop"]}, **{key: "acme/shop"})
    assert not holds({key: "acme"}, **{key: "acme/shop"})


def test_an_attribute_of_the_callers_own_compares_exactly():
    assert holds({"component": "API"}, component="API")
    assert holds({"shape": [1, "a"]}, shape=(1, "a"))
    assert not holds({"component": "API"}, component="api")
    assert not holds({"component": 1}, component=True)
    assert not holds({"component": "API"})


def test_all_conditions_must_hold():
    wanted = {"priority": "low", "labels": ["docs"]}
    assert holds(wanted, priority="low", labels=["docs"])
    assert not holds(wanted, priority="high", labels=["docs"])
    assert not holds(wanted, priority="low", labels=["bug"])


def test_no_condition_always_holds():
    match = compile_conditions({}).evaluate({})
    assert (match.matched, match.clause) == (True, "always")


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"priority": "hihg"}, "'hihg' is no priority; did you mean high? (or 0 to 3)"),
        ({"priority": 4}, "4 is no priority"),
        ({"priority": True}, "True is no priority"),
        ({"priority": []}, "priority has an empty list"),
        ({"labels": 3}, "labels takes a list of names"),
        ({"labels": []}, "labels takes a list of names"),
        ({"retry_count": "1"}, "retry_count takes a number or a comparison such as { gte = 1 }, not '1'"),
        ({"retry_count": {}}, "retry_count takes a number or a comparison"),
        ({"retry_count": {"gtte": 1}}, 'unknown comparison "gtte" for retry_count; did you mean gte?'),
        ({"retry_count": {"gte": "1"}}, "retry_count compares with a number, not with '1'"),
        ({"hour_range": [0]}, "hour_range takes two whole hours from 0 to 24"),
        ({"hour_range": [0, 25]}, "hour_range takes two whole hours from 0 to 24"),
        ({"hour_range": 5}, "hour_range takes two whole hours from 0 to 24"),
        ({"provider_status": "down"}, "provider_status takes provider names"),
        ({"repo": 3}, "repo takes a text or a list of texts, not 3"),
        ({"label": ["docs"]}, 'unknown condition "label"; did you mean labels?'),
        ({"prioritty": 0}, 'unknown condition "prioritty"; did you mean priority?'),
    ],
)
def test_a_structured_condition_that_cannot_match_is_refused(written, sentence):
    with pytest.raises(ConditionError) as caught:
        compile_conditions(written)
    assert sentence in str(caught.value)
    assert caught.value.position is None


# -- the string spelling --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ("priority == 0", {"priority": "critical"}, {"priority": "high"}),
        ("labels contains 'documentation'", {"labels": ["Documentation"]}, {"labels": ["documentation-old"]}),
        ("hour >= 22 or hour <= 6", {"hour": 6}, {"hour": 7}),
        (
            "provider_status['claude-cli'] == 'down'",
            {"provider_status": {"claude-cli": "down"}},
            {"provider_status": {"claude-cli": "up"}},
        ),
        ("task.id ends_with '0'", {"task": {"id": "gh-120"}}, {"task": {"id": "gh-102"}}),
        ("task.id ends_with '0'", {"task": {"id": 120}}, {"task": {"id": 102}}),
        ("retry_count >= 2", {"retry_count": 2}, {"retry_count": 1}),
        ("estimated_tokens > 50000", {"estimated_tokens": 50001}, {"estimated_tokens": 50000}),
        ("labels contains 'bug'", {"labels": {"bug"}}, {"labels": ["feature"]}),
    ],
)
def test_the_conditions_of_the_first_designs_parse_as_written(condition, yes, no):
    assert holds(condition, **yes)
    assert not holds(condition, **no)
    assert not holds(condition)


@pytest.mark.parametrize(
    ("condition", "attrs"),
    [
        ("priority == 'high'", {"priority": 1}),
        ("priority == 1", {"priority": "high"}),
        ("'high' == priority", {"priority": "HIGH"}),
        ("priority <= 'high'", {"priority": "critical"}),
        ("priority > 'high'", {"priority": "low"}),
        ("priority in ['critical', 1]", {"priority": "high"}),
        ("priority != 'low'", {"priority": "high"}),
        ("priority == null", {"priority": "no such word"}),
        ("'docs' in labels", {"labels": ["Docs"]}),
        ("hour in [1, 2, 3]", {"hour": 2}),
        ("hour == 2.0", {"hour": 2}),
        ("retry_count > -1", {"retry_count": 0}),
        ('title contains "wip"', {"title": "[WIP] part"}),
        ("title starts_with 'fix:'", {"title": "Fix: typo"}),
        ("'part' in title", {"title": "a party"}),
        (r"title == 'it\'s'", {"title": "it's"}),
        ("author == null", {}),
        ("author != null", {"author": "ada"}),
        ("not author == 'bob'", {}),
        ("not not author == 'bob'", {"author": "Bob"}),
        ("labels[0] == 'first'", {"labels": ["first", "second"]}),
        ("task.flags.urgent", {"task": {"flags": {"urgent": True}}}),
        ("task.urgent == true", {"task": {"urgent": True}}),
        ("task.list == [1, 'a']", {"task": {"list": (1, "A")}}),
        ("true", {}),
        ("not false", {}),
        ("hour == 1 or hour == 2 and hour == 3", {"hour": 1}),
        ("not hour == 1 and hour == 2", {"hour": 2}),
        ("(hour == 1 or hour == 2) and retry_count == 0", {"hour": 2, "retry_count": 0}),
        ("labels contains 'and'", {"labels": ["and"]}),
        ("provider_status['it\\'s'] == 'up'", {"provider_status": {"it's": "up"}}),
    ],
)
def test_a_string_condition_holds(condition, attrs):
    assert holds(condition, **attrs)


@pytest.mark.parametrize(
    ("condition", "attrs"),
    [
        ("author != 'bob'", {}),
        ("author == 'bob'", {"author": None}),
        ("hour < 5", {"hour": "4"}),
        ("hour < 5", {"hour": True}),
        ("labels contains 'a'", {"labels": {"a": 1}}),
        ("'a' in title", {"title": 5}),
        ("task.id == 'x'", {"task": "x"}),
        ("task.own.deeper == 'x'", {"task": {"own": "x"}}),
        ("labels[7] == 'x'", {"labels": ["x"]}),
        ("task.list == [null]", {"task": {"list": [None]}}),
        ("task.urgent", {"task": {"urgent": 1}}),
        ("task.urgent", {"task": {"urgent": "true"}}),
        ("task.id ends_with '0'", {"task": {"id": 10**30}}),
        ("priority < 'high'", {"priority": "unknown"}),
        ("hour == 1 and hour == 2 or hour == 3", {"hour": 1}),
    ],
)
def test_what_is_missing_or_of_another_kind_is_false(condition, attrs):
    assert not holds(condition, **attrs)


@pytest.mark.parametrize(
    ("condition", "position", "sentence"),
    [
        ("", 0, "the condition is empty"),
        ("   ", 0, "the condition is empty"),
        ("prioritty == 0", 0, 'unknown name "prioritty"; did you mean priority?'),
        ("labels contain 'x'", 7, 'unknown operator "contain"; did you mean contains?'),
        ("title end_with 'x'", 6, 'unknown operator "end_with"; did you mean ends_with?'),
        ("labels contains bug", 16, "text needs quotes: 'bug'"),
        ("hour = 3", 5, "write `==`"),
        ("hour == 1 && hour == 2", 10, "write `and`"),
        ("hour == 1 || hour == 2", 10, "write `or`"),
        ("hour <> 3", 5, "write `!=`"),
        ("!task.urgent", 0, "write `not`"),
        ("title =~ 'x'", 6, "there are no regular expressions"),
        ("hour + 1 == 3", 5, "there is no arithmetic"),
        ("provider_status.claude-cli == 'up'", 22, "a name with a dash goes in brackets"),
        ("title == 'x", 9, "the text has no closing quote"),
        ("len(labels) == 1", 0, "conditions have no function calls"),
        ("title.upper() == 'X'", 6, "conditions have no function calls"),
        ("(hour == 1", 10, "expected `)` to close the one at character 1, found the end"),
        ("hour == 1)", 9, "expected `and`, `or` or the end, found `)`"),
        ("hour ==", 7, "expected a name or a value, found the end"),
        ("hour == and", 8, "expected a name or a value, found `and`"),
        ("1 <= hour <= 6", 10, "one comparison at a time"),
        ("hour not in [1]", 5, "write `not` before the whole comparison"),
        ("hour", 0, "hour is not true or false; compare it"),
        ("'text'", 0, "'text' on its own is no condition"),
        ("priority == 'hi'", 12, "'hi' is no priority; did you mean high?"),
        ("priority == 9", 12, "9 is no priority"),
        ("priority in 'high'", 12, "priority takes a list only after `in`"),
        ("priority contains 'high'", 9, "priority compares with"),
        ("labels == 'x'", 7, "labels is a list; write labels contains 'name'"),
        ("labels contains ['a', 'b']", 16, "labels contains one name"),
        ("labels contains 3", 16, "labels contains one name"),
        ("hour == '3'", 8, "hour is a number and compares with numbers"),
        ("hour in ['3']", 8, "hour is a number and compares with numbers"),
        ("author < 'b'", 7, "author is a text, and texts have no order here"),
        ("author in 3", 10, "`in` looks into a list or a text, not 3"),
        ("title contains null", 15, "`contains` looks for one value, not None"),
        ("title starts_with ['a']", 18, "`starts_with` compares title with one value, not with a list"),
        ("author in [bob]", 11, "a list holds values, not names; text needs quotes: 'bob'"),
        ("hour in [1 2]", 11, "expected `,` between list items, found `2`"),
        ("hour in [1,", 11, "expected a name or a value, found the end"),
        ("task.5 == 1", 5, "expected a name after the dot, found `5`"),
        ("task[hour] == 1", 5, "brackets take a text or an index, found `hour`"),
        ("task[-1] == 1", 5, "brackets take a text or an index, found `-1`"),
        ("task['a' == 1", 9, "expected `]` after the key, found `==`"),
        ("hour == 5x", 8, "'5' is not understood"),
        ("hour == 5 @", 10, "'@' is not understood"),
        ("True", 0, "did you mean true?"),
        ("(" * 21 + "true" + ")" * 21, 20, "nested more than 20 deep"),
        ("not " * 21 + "true", 80, "nested more than 20 deep"),
        ("true or " * 200 + "true", 1000, "at most 1000 characters"),
    ],
)
def test_a_mistake_is_refused_with_its_place(condition, position, sentence):
    with pytest.raises(ConditionError) as caught:
        compile_condition(condition)
    assert sentence in caught.value.message
    assert caught.value.position == position
    first, shown, caret = str(caught.value).split("\n")
    assert first.endswith(f"(at character {position + 1})")
    if len(condition) < 50:
        assert shown.removeprefix("    ") == condition.rstrip() or not condition.strip()
        assert caret.index("^") == 4 + position
    assert isinstance(caught.value, ConfigError)


def test_a_caller_may_allow_names_of_its_own():
    condition = compile_condition("component == 'api'", names=(*ATTRIBUTES, "component"))
    assert condition.evaluate({"component": "api"}).matched
    with pytest.raises(ConditionError, match="unknown name"):
        compile_condition("component == 'api'")


# -- explanations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "clause"),
    [
        ("hour > 5 and (priority == 0 and labels contains 'x')", "priority == 0 (priority is 'low')"),
        ("hour >  22 or hour < 6", "hour >  22 or hour < 6 (hour is 12)"),
        ("not hour == 12", "not hour == 12 (hour is 12)"),
        ("provider_status['claude-cli'] == 'down'", None),
        ({"labels": ["docs"], "priority": 0}, "labels = ['docs'] (labels is ['bug'])"),
        ({"hour_range": [0, 8]}, "hour_range = [0, 8] (hour is 12)"),
    ],
)
def test_a_failed_condition_names_the_clause_that_failed_and_what_it_saw(condition, clause):
    attrs = {"hour": 12, "priority": "low", "labels": ["bug"]}
    compiled = compile_condition(condition) if isinstance(condition, str) else compile_conditions(condition)
    missing = "provider_status['claude-cli'] == 'down' (provider_status['claude-cli'] is not known)"
    match = compiled.evaluate(attrs)
    assert (match.matched, match.clause) == (False, clause or missing)


def test_a_condition_that_holds_is_shown_whole():
    condition = compile_condition("hour > 5 and task.id starts_with 'gh'")
    match = condition.evaluate({"hour": 6, "task": {"id": "gh-1"}})
    assert (match.matched, match.clause) == (True, "hour > 5 and task.id starts_with 'gh'")
    assert condition.attributes == ("hour", "task")


@given(
    st.dictionaries(
        st.text(max_size=9),
        st.none()
        | st.booleans()
        | st.integers(-99, 99)
        | st.text(max_size=30)
        | st.lists(st.text(max_size=9)),
    )
)
def test_values_of_ordinary_size_are_shown_as_python_writes_them(value):
    if all(len(item) <= 20 for item in [value, *(v for v in value.values() if isinstance(v, list))]):
        assert show(value) == repr(value)


def test_values_of_any_size_are_shown_in_bounded_space():
    endless: list[object] = []
    endless.append(endless)
    for value in ("x" * 10**6, 10**5000, list(range(10**5)), endless, {"k": endless}, object(), float("nan")):
        assert len(show(value)) < 2000


# -- properties -----------------------------------------------------------------------------------------

WORDS = st.sampled_from(["critical", "high", "normal", "low"])
LABELS = st.sampled_from(["bug", "docs", "Docs", "security", "it's", 'a "b"', "a\\b"])
STATUSES = st.sampled_from(["up", "degraded", "Down", "cooling"])
HOURS = st.integers(0, 24)
OPERATORS = {"gte": ">=", "lte": "<=", "eq": "==", "gt": ">", "lt": "<"}
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**30)
    | st.floats()
    | st.text(max_size=12)
    | WORDS
    | LABELS
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["id", "claude-cli", "x"]) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=6,
)
ANY_ATTRS = st.dictionaries(st.sampled_from(ATTRIBUTES), ANYTHING)
LIKELY_ATTRS = st.fixed_dictionaries(
    {},
    optional={
        "priority": WORDS | st.integers(0, 3) | WORDS.map(str.upper),
        "labels": st.lists(LABELS | LABELS.map(str.upper), max_size=4),
        "retry_count": st.integers(0, 4),
        "hour": st.integers(0, 23),
        "repo": st.sampled_from(["acme/shop", "Acme/Shop", "acme/site"]),
        "provider_status": st.dictionaries(st.sampled_from(["claude-cli", "openrouter"]), STATUSES | LABELS),
    },
)


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literal(value: str | int) -> str:
    return quoted(value) if isinstance(value, str) else str(value)


def hours_as_text(start: int, end: int) -> str:
    if start == end:
        return "hour >= 0 or hour < 0"
    return f"(hour >= {start} {'and' if start < end else 'or'} hour < {end})"


@st.composite
def both_spellings(draw: st.DrawFn) -> tuple[dict[str, object], str]:
    """A structured condition, and the same as text."""
    structured: dict[str, object] = {}
    texts: list[str] = []
    for key in draw(
        st.permutations(["priority", "labels", "retry_count", "hour_range", "repo", "provider_status"])
    ):
        if draw(st.booleans()):
            continue
        match key:
            case "priority":
                structured[key] = wanted = draw(st.lists(WORDS | st.integers(0, 3), min_size=1, max_size=3))
                texts.append(f"priority in [{', '.join(map(literal, wanted))}]")
            case "labels":
                structured[key] = wanted = draw(st.lists(LABELS, min_size=1, max_size=3))
                texts.append("(" + " or ".join(f"labels contains {quoted(w)}" for w in wanted) + ")")
            case "retry_count":
                name = draw(st.sampled_from(sorted(OPERATORS)))
                bound = draw(st.integers(0, 4) | st.just(1.5))
                structured[key] = {name: bound}
                texts.append(f"retry_count {OPERATORS[name]} {bound}")
            case "hour_range":
                start, end = draw(HOURS), draw(HOURS)
                structured[key] = [start, end]
                texts.append(f"({hours_as_text(start, end)})")
            case "repo":
                structured[key] = wanted = draw(st.sampled_from(["acme/shop", "ACME/site"]))
                texts.append(f"repo == {quoted(wanted)}")
            case "provider_status":
                status = draw(STATUSES)
                structured[key] = {"claude-cli": status}
                texts.append(f"provider_status['claude-cli'] == {quoted(status)}")
    return structured, " and ".join(texts) or "true"


@given(both_spellings(), LIKELY_ATTRS | ANY_ATTRS)
@example(({"hour_range": [9, 9]}, hours_as_text(9, 9)), {"hour": 3})
@example(({"priority": [0]}, "priority in [0]"), {"priority": True})
def test_both_spellings_agree(spellings, attrs):
    structured, text = spellings
    assert holds(structured, **attrs) == holds(text, **attrs), (structured, text)


FRAGMENTS = st.sampled_from(
    [
        *ATTRIBUTES,
        *("==", "!=", "<", "<=", ">", ">=", "in", "contains", "starts_with", "ends_with"),
        *("and", "or", "not", "(", ")", "[", "]", ",", ".", "true", "false", "null", "0", "3", "-1", "2.5"),
        *("'docs'", "'high'", '"x"', "['a', 'b']", "[1, 2]", "['high', 0]", ".id", "['claude-cli']", "[0]"),
    ]
)
SENTENCES = st.lists(FRAGMENTS, max_size=14).map(" ".join)
OPERANDS = st.sampled_from(
    [*ATTRIBUTES, "task.id", "task['x'][0]", "null", "1", "'docs'", "'high'", "['high', 1]", "[2]"]
)
COMPARISONS = st.tuples(OPERANDS, FRAGMENTS, OPERANDS).map(" ".join)
CONDITIONS = st.lists(COMPARISONS, min_size=1, max_size=3).map(" or ".join)


def compiled_or_refused(compiler: Callable[[Any], Condition], written: Any) -> Condition | ConditionError:
    try:
        return compiler(written)
    except ConditionError as error:
        return error


@given(st.text() | SENTENCES | CONDITIONS, ANY_ATTRS)
def test_any_text_is_compiled_or_refused_and_never_raises_later(text, attrs):
    result = compiled_or_refused(compile_condition, text)
    if isinstance(result, ConditionError):
        assert result.position is not None
        assert 0 <= result.position <= len(text)
    else:
        assert isinstance(result.evaluate(attrs).clause, str)


@given(
    st.dictionaries(
        st.sampled_from([*ATTRIBUTES, "hour_range", "component"]) | st.text(max_size=5), ANYTHING, max_size=3
    ),
    ANY_ATTRS,
)
def test_any_structured_condition_is_compiled_or_refused_and_never_raises_later(written, attrs):
    result = compiled_or_refused(compile_conditions, written)
    assert result.message if isinstance(result, ConditionError) else result.evaluate(attrs).clause


def test_numbers_too_long_to_print_are_compared_and_explained():
    vast = 10**5000
    assert holds("estimated_tokens > 5", estimated_tokens=vast)
    failure = compile_condition("estimated_tokens < 5").evaluate({"estimated_tokens": vast}).clause
    assert failure == "estimated_tokens < 5 (estimated_tokens is a very large number)"
    with pytest.raises(ConditionError, match="a very large number is no priority"):
        compile_conditions({"priority": vast})
    with pytest.raises(ConditionError, match="a very large number is no priority"):
        compile_condition(f"priority == {'9' * 900}")


@given(both_spellings(), ANY_ATTRS)
def test_a_text_between_parentheses_means_the_same(spellings, attrs):
    _, text = spellings
    assert holds(text, **attrs) == holds(f"({text})", **attrs) != holds(f"not ({text})", **attrs)


def test_the_path_of_an_explanation_can_be_read_back():
    key = 'it\'s "odd" \\ '
    text = f"provider_status[{json.dumps(key)}] == 'up'"
    assert holds(text, provider_status={key: "up"})
