"""Selections: what fits, what it costs, what experience says; and that chance repeats."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.catalogue import parse_listing
from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError
from adw_modules.routing import ModelRouter, Refusal, Target, draws
from adw_modules.routing.lint import lint
from adw_modules.routing.market import Knowledge, Market
from adw_modules.routing.memory import Experience, Memory, TaskClass
from adw_modules.routing.picking import Picker, memory_span
from adw_modules.routing.targets import SelectTarget
from adw_modules.tasks.model import ModelUsage, Outcome

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
GOOD, BAD = Target("claude-cli", "good"), Target("claude-cli", "bad")

CONFIG = """
[providers.claude-cli]
command_template = ["claude"]

[providers.flat]
command_template = ["claude"]
billing = "subscription"
price_list = "none"

[providers.openrouter]
command_template = ["tools/openrouter-cli.py", "--model", "{model}"]

[providers.off]
agent = "openrouter-cli"
enabled = false

[[models]]
name = "good"
provider = "claude-cli"
cost_per_million_input = 1
cost_per_million_output = 5
context_window = 200000
capabilities = ["tools", "Vision"]

[[models]]
name = "bad"
provider = "claude-cli"
cost_per_million_input = 1
cost_per_million_output = 5
"""


def priced(prompt, completion, **row):
    return {"context_length": 200_000, "pricing": {"prompt": prompt, "completion": completion}, **row}


def catalogue(**rows):
    listing = parse_listing({"data": [{"id": name.replace("__", "/"), **row} for name, row in rows.items()]})
    return {model.model_id: model for model in listing.models}


TOOLS = {"supported_parameters": ["tools"]}
CATALOGUE = catalogue(
    a__dear=priced("0.00001", "0.00005", **TOOLS),
    a__fair=priced("0.0000001", "0.0000005", **TOOLS),
    b__fair=priced("0.0000001", "0.0000005", **TOOLS),
    c__dumb=priced("0.00000001", "0.00000001"),
    d__short=priced("0.00000001", "0.00000001", **{**TOOLS, "context_length": 8_000}),
    e__unpriced=priced(None, None, **TOOLS),
    f__expired=priced("0.00000001", "0.00000001", **TOOLS, expiration_date="2026-11-19"),
    g__negative=priced("-1", "-1", **TOOLS),
    openrouter__auto=priced("0", "0", **TOOLS),
) | {
    each: replace(model, model_id=each)
    for each, model in {
        "a/fair:batch": catalogue(x=priced("0.00000001", "0.00000001", **TOOLS))["x"],
        "~a/latest": catalogue(x=priced("0.00000001", "0.00000001", **TOOLS))["x"],
    }.items()
}


@cache
def read(config):
    return parse_settings(config, source="test")


LISTED = Knowledge(catalogue=CATALOGUE, sync_id=7)


def picker(knowledge=LISTED, config=CONFIG):
    return Picker(read(config), lambda: knowledge)


def select(word, attrs=None, *, of=None, now=NOW, **options):
    spec = SelectTarget(select=word, options=options)
    return (of or picker()).resolvers[word](spec, attrs or {}, now)


def names(selected):
    return [str(target) for target in selected.targets]


def left_out(selected):
    return {each["why"]: (each["count"], each["such_as"]) for each in selected.why["left_out"]}


def a_run(target=GOOD, *, won=True, age=DAY, cost="0.10", hours=0.5, **changes):
    values = {
        "target": target,
        "outcome": Outcome.SUCCEEDED if won else Outcome.FAILED,
        "ended_at": NOW - age,
        "duration": timedelta(hours=hours),
        "cost": None if cost is None else Decimal(cost),
        "tokens": ModelUsage(input=50_000, output=10_000),
        "repo": "octo/hello",
        "labels": ("bug",),
        "length": 100,
    }
    return Experience(**{**values, **changes})


TASK = {"repo": "octo/hello", "labels": ["bug"], "title_length": 20, "body_length": 80}


def a_task(number):
    return {**TASK, "task": {"id": f"gh-{number}"}}


# --- draws --------------------------------------------------------------------------------------


def test_the_same_text_draws_the_same_numbers_for_ever():
    assert draws.uniform("gh-12", "explores") == 0.14425231214142598
    assert draws.normal(2, 3, "gh-12") == draws.normal(2, 3, "gh-12")
    assert draws.beta(3, 4, "gh-12") == draws.beta(3, 4, "gh-12") != draws.beta(3, 4, "gh-13")


@pytest.mark.parametrize(("won", "lost"), [(1, 1), (9, 3), (40.5, 2.25), (1, 30)])
def test_beta_has_the_mean_and_variance_of_the_distribution(won, lost):
    drawn = [draws.beta(won, lost, "beta", str(number)) for number in range(4000)]
    total = won + lost
    assert all(0 < each < 1 for each in drawn)
    assert statistics.fmean(drawn) == pytest.approx(won / total, abs=0.015)
    assert statistics.variance(drawn) == pytest.approx(won * lost / total**2 / (total + 1), rel=0.1)


def test_uniform_and_normal_have_the_mean_and_variance_of_their_distributions():
    flat = [draws.uniform("flat", str(number)) for number in range(4000)]
    bell = [draws.normal(10, 2, "bell", str(number)) for number in range(4000)]
    assert statistics.fmean(flat) == pytest.approx(0.5, abs=0.015)
    assert statistics.variance(flat) == pytest.approx(1 / 12, rel=0.06)
    assert max(Counter(int(each * 10) for each in flat).values()) < 480
    assert statistics.fmean(bell) == pytest.approx(10, abs=0.1)
    assert statistics.stdev(bell) == pytest.approx(2, rel=0.05)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ('{ select = "cheap" }', "there is no selection 'cheap'; did you mean cheapest?"),
        ('{ select = "cheapest", explore = 0.1 }', 'there is no key "explore"'),
        ('{ select = "adaptive", min_sample = 3 }', "did you mean min_samples?"),
        ('{ select = "cheapest", require = ["tols"] }', "There is no capability 'tols'"),
        ('{ select = "cheapest", require = "tools" }', 'require is a list of capabilities such as ["tools"]'),
        ('{ select = "cheapest", family = "Claude 9" }', "There is no family 'Claude 9'"),
        ('{ select = "cheapest", min_context = 1.5 }', "min_context is a whole number of 1 or more, not 1.5"),
        ('{ select = "cheapest", max_cost_per_task = 0 }', "max_cost_per_task is a number above 0"),
        ('{ select = "cheapest", candidates = ["x"] }', "has 'x', which is no text \"provider/model\""),
        ('{ select = "cheapest", candidates = [] }', "candidates is a list of targets"),
        ('{ select = "adaptive", candidates = ["a/b", "a/b"] }', "has a/b twice"),
        ('{ select = "adaptive", explore = 1.5 }', "explore is a number from 0 to 1, not 1.5"),
        ('{ select = "adaptive", min_samples = true }', "min_samples is a whole number of 1 or more"),
        ('{ select = "adaptive", half_life_days = 0 }', "half_life_days is a number above 0"),
        ('{ select = "cheapest", provider = "nobody" }', 'names "nobody", which no [providers] table has'),
        ('{ select = "cheapest", candidates = ["gone/m"] }', 'names "gone", which no [providers] table has'),
    ],
)
def test_a_bad_selection_is_refused_when_the_configuration_is_read(target, sentence):
    with pytest.raises(ConfigError) as error:
        parse_settings(f"{CONFIG}\n[routing]\nrules = [{{ target = {target} }}]\n", source="config.toml")
    assert sentence in str(error.value)


# --- cheapest -----------------------------------------------------------------------------------


def test_the_cheapest_that_fits_comes_first_and_equal_prices_go_by_name():
    found = select("cheapest", require=["tools"], min_context=100_000)
    assert names(found) == [
        "openrouter/a/fair",
        "openrouter/b/fair",
        "claude-cli/good",
        "openrouter/a/dear",
    ]
    assert found.why["candidates"][0] == {
        "target": "openrouter/a/fair",
        "expected_cost": "0.035000",
        "by": "price now, tokens by [selection]",
    }


def test_what_cannot_be_chosen_is_left_out_with_the_reason():
    found = left_out(select("cheapest", require=["tools"], min_context=100_000))
    assert found == {
        "a router: which model answers, and at what price, is not known beforehand": (
            1,
            ["openrouter/openrouter/auto"],
        ),
        "alias of an unknown model": (1, ["openrouter/~a/latest"]),
        "batch: answers hours later": (1, ["openrouter/a/fair:batch"]),
        "expired on 2026-11-19": (1, ["openrouter/f/expired"]),
        "its context is too small": (1, ["openrouter/d/short"]),
        "its price is negative: not known beforehand": (1, ["openrouter/g/negative"]),
        "nobody knows what it costs": (1, ["openrouter/e/unpriced"]),
        "not known to have tools": (2, ["claude-cli/bad", "openrouter/c/dumb"]),
    }


def test_excluded_models_stay_out_also_when_they_are_named():
    named = ["openrouter/a/fair:batch", "openrouter/g/negative", "openrouter/f/expired", "openrouter/gone"]
    found = select("cheapest", candidates=[*named, "openrouter/a/dear"])
    assert names(found) == ["openrouter/a/dear"]
    assert "the catalogue does not list it" in left_out(found)


def test_without_a_catalogue_batch_and_routers_are_known_by_their_names():
    found = select(
        "cheapest",
        of=picker(Knowledge()),
        candidates=["openrouter/x/y:batch", "openrouter/openrouter/auto", "claude-cli/z:batch"],
    )
    assert names(found) == []
    assert set(left_out(found)) == {
        "batch: answers hours later",
        "a router: which model answers, and at what price, is not known beforehand",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"provider": "claude-cli"}, ["claude-cli/bad", "claude-cli/good"]),
        ({"max_cost_per_task": 0.005}, ["openrouter/c/dumb", "openrouter/d/short"][:2]),
        ({"require": ["vision"]}, ["claude-cli/good"]),
        ({"min_context": 200_001}, []),
        ({"family": "claude-4.5"}, []),
    ],
)
def test_each_filter_filters(options, expected):
    assert names(select("cheapest", **options)) == expected


def test_a_family_is_that_of_the_catalogue():
    known = Knowledge(catalogue=catalogue(anthropic__claude_haiku=priced("1", "1")))
    model = known.catalogue["anthropic/claude_haiku"]
    known = Knowledge(
        catalogue={"anthropic/claude-haiku-4.5": replace(model, model_id="anthropic/claude-haiku-4.5")}
    )
    assert names(select("cheapest", of=picker(known), family="Claude 4.5")) == [
        "openrouter/anthropic/claude-haiku-4.5"
    ]


def test_a_task_that_needs_more_context_than_a_model_has_does_not_go_there():
    found = select("cheapest", {"context_needed": 9_000})
    assert "openrouter/d/short" not in names(found)
    assert names(select("cheapest", {"context_needed": 7_000}))[:2] == [
        "openrouter/c/dumb",
        "openrouter/d/short",
    ]


def test_expected_tokens_are_those_of_similar_own_runs():
    cached = ModelUsage(input=10_000, cache_read=2_000_000, output=20_000)
    runs = [a_run(Target("claude-cli", "good"), tokens=cached) for _ in range(5)]
    other = [a_run(BAD, labels=("docs",), tokens=ModelUsage(input=1000, output=1000)) for _ in range(9)]
    of = picker(Knowledge(runs=[*runs, *other]))
    good, bad = (select("cheapest", TASK, of=of, candidates=[str(each)]) for each in (GOOD, BAD))
    assert (
        good.why["candidates"][0]["expected_cost"] == "2.110000"
    )  # cache at the input price: no other is known
    assert good.why["candidates"][0]["by"] == (
        "price now, tokens by its own runs of tasks of the same repository, labels and size"
    )
    assert bad.why["candidates"][0]["by"] == "price now, tokens by its own runs of all tasks"
    assert bad.why["candidates"][0]["expected_cost"] == "0.006000"


def test_a_model_without_a_price_costs_what_its_own_runs_did_if_they_are_enough():
    unpriced = Target("flat", "good")
    config = CONFIG.replace('billing = "subscription"', "").replace("1\ncost_per_million_output = 5", "1")
    for count, expected in ((4, []), (5, ["flat/other"])):
        runs = [a_run(replace(unpriced, model="other"), cost="0.25") for _ in range(count)]
        of = picker(Knowledge(runs=runs), config)
        assert names(select("cheapest", TASK, of=of, candidates=["flat/other"])) == expected


def test_runs_that_used_nothing_make_no_model_cheap():
    runs = [
        a_run(each, tokens=ModelUsage(), cost=None)
        for each in (GOOD, replace(GOOD, model="x"))
        for _ in "12345"
    ]
    of = picker(Knowledge(runs=runs))
    found = select("cheapest", TASK, of=of, candidates=[str(GOOD), "claude-cli/x"])
    assert [each["expected_cost"] for each in found.why["candidates"]] == ["0.350000"]


def test_a_flat_rate_costs_nothing_more():
    found = select("cheapest", candidates=["claude-cli/good", "flat/anything"])
    assert names(found) == ["flat/anything", "claude-cli/good"]


def test_prices_are_those_of_the_moment():
    night = {"utc_start": 0, "utc_end": 600, "prompt": "0.00000001", "completion": "0.00000001"}
    known = Knowledge(
        catalogue=catalogue(
            a__fair=priced("0.0000001", "0.0000005"),
            n__night={"pricing": {"prompt": "0.001", "completion": "0.001", "overrides": [night]}},
        )
    )
    of, named = picker(known), ["openrouter/a/fair", "openrouter/n/night"]
    assert names(select("cheapest", of=of, candidates=named)) == named
    at_night = NOW.replace(hour=3)
    assert names(select("cheapest", of=of, candidates=named, now=at_night)) == named[::-1]


def test_without_a_clock_nothing_is_selected():
    for word in ("cheapest", "adaptive"):
        assert select(word, now=None).targets == ()


def test_what_a_selection_hands_on_is_bounded():
    rows = {f"m__{number:03}": priced("0.000001", "0.000001") for number in range(400)}
    found = select("cheapest", of=picker(Knowledge(catalogue=catalogue(**rows))))
    assert len(found.targets) == 25
    assert (len(found.why["candidates"]), found.why["further"]) == (10, 392)


# --- memory -------------------------------------------------------------------------------------


def memory(runs, **changes):
    return Memory(runs, **{"now": NOW, "half_life_days": 30, **changes})


def test_a_class_with_too_few_samples_falls_back_to_a_coarser_one():
    runs = [a_run() for _ in range(3)]
    runs += [a_run(repo="octo/other") for _ in range(2)]
    runs += [a_run(length=9000) for _ in range(2)]
    runs += [a_run(labels=("docs",), won=False) for _ in range(4)]
    remembered, of = memory(runs), TaskClass.of_attributes(TASK)
    found = {least: remembered.about(GOOD, of, least) for least in (3, 5, 7, 8, 99)}
    assert {least: (record.samples, level) for least, (record, level) in found.items()} == {
        3: (3, 0),
        5: (5, 1),
        7: (7, 2),
        8: (11, 3),
        99: (11, 3),
    }
    assert remembered.samples(GOOD) == 11
    assert remembered.about(BAD, of, 1)[0].samples == 0


def test_what_was_seen_decays_and_is_forgotten():
    ages = (0, 30, 60, 119, 121, -1)
    runs = [
        a_run(age=timedelta(days=age)) for age in ages
    ]  # the last ended after the moment that is asked about
    record, _ = memory(runs).about(GOOD, TaskClass.of_attributes(TASK), 1)
    assert record.samples == 4
    assert record.weight == pytest.approx(1 + 0.5 + 0.25 + 0.5 ** (119 / 30), abs=0.001)


def test_decay_lets_a_model_that_has_become_bad_go():
    old_glory = [a_run(GOOD, age=80 * DAY) for _ in range(40)]
    new_misery = [a_run(GOOD, won=False, age=2 * DAY) for _ in range(12)]
    steady = [a_run(BAD, won=number % 10 < 7) for number in range(30)]
    known = Knowledge(runs=[*old_glory, *new_misery, *steady])

    def share_of_good(half_life):
        options = {"candidates": [str(GOOD), str(BAD)], "explore": 0, "half_life_days": half_life}
        firsts = [select("adaptive", a_task(n), of=picker(known), **options).targets[0] for n in range(60)]
        return firsts.count(GOOD) / 60

    assert share_of_good(10) < 0.05
    assert share_of_good(3650) > 0.7


def test_runs_that_say_nothing_about_the_model_do_not_count():
    runs = [a_run(outcome=outcome) for outcome in (Outcome.RATE_LIMITED, Outcome.LOST, Outcome.CANCELLED)]
    assert memory(runs).samples(GOOD) == 0


def test_a_cost_that_is_mostly_unknown_is_unknown():
    of = TaskClass.of_attributes(TASK)
    assert memory([a_run(), a_run(cost=None)]).about(GOOD, of, 1)[0].knows_cost
    assert not memory([a_run(), a_run(cost=None), a_run(cost=None)]).about(GOOD, of, 1)[0].knows_cost


def test_the_reader_is_told_how_far_back_runs_count():
    text = f'{CONFIG}\n[routing]\nrules = [{{ target = {{ select = "adaptive", half_life_days = 45.5 }} }}]\n'
    assert memory_span(parse_settings(CONFIG, source="test")) == timedelta(days=120)
    assert memory_span(parse_settings(text, source="test")) == timedelta(days=182)


# --- adaptive -----------------------------------------------------------------------------------

BOTH = {"candidates": [str(GOOD), str(BAD)]}


def test_experience_puts_the_better_first_and_says_why():
    runs = [a_run(GOOD) for _ in range(20)] + [a_run(BAD, won=False, cost="0.30") for _ in range(20)]
    found = select("adaptive", a_task(1), of=picker(Knowledge(runs=runs)), explore=0, **BOTH)
    assert names(found) == ["claude-cli/good", "claude-cli/bad"]
    first, second = found.why["candidates"]
    assert (found.why["seed"], found.why["explores"]) == ("gh-1", False)
    assert found.why["task"] == {"repo": "octo/hello", "labels": ["bug"], "size": "small"}
    assert (first["samples"], first["class"]) == (20, "tasks of the same repository, labels and size")
    assert first["chance"] > 0.75
    assert second["chance"] < 0.2
    assert first["cost"] == pytest.approx(0.1, abs=0.05)
    assert first["score"] == pytest.approx(5 * first["chance"] - first["cost"] - first["hours"], abs=0.001)


@pytest.mark.parametrize(
    ("better", "worse"),
    [({"cost": "0.05"}, {"cost": "2.50"}), ({"hours": 0.1}, {"hours": 3.0}), ({"won": True}, {"won": False})],
)
def test_each_of_cost_duration_and_success_counts(better, worse):
    runs = [a_run(GOOD, **better) for _ in range(20)] + [a_run(BAD, **worse) for _ in range(20)]
    firsts = [
        select("adaptive", a_task(number), of=picker(Knowledge(runs=runs)), explore=0, **BOTH).targets[0]
        for number in range(20)
    ]
    assert firsts == [GOOD] * 20


def test_the_less_of_the_budget_is_left_the_more_cost_counts():
    dear_and_sure = [a_run(GOOD, cost="1.00") for _ in range(40)]
    cheap_and_so_so = [a_run(BAD, cost="0.05", won=number % 10 < 6) for number in range(40)]
    of = picker(Knowledge(runs=[*dear_and_sure, *cheap_and_so_so]))

    def share_of_dear(left):
        asked = [{**a_task(number), "budget_left": left} for number in range(40)]
        return [select("adaptive", each, of=of, explore=0, **BOTH).targets[0] for each in asked].count(
            GOOD
        ) / 40

    assert share_of_dear(None) == share_of_dear(1.0) > 0.8
    assert share_of_dear(0.3) < 0.1


def test_nothing_is_spent_to_learn_while_hardly_anything_is_left_of_the_budget():
    def explores(left):
        return select("adaptive", {**a_task(1), "budget_left": left}, explore=1, **BOTH).why["explores"]

    assert [explores(left) for left in (None, 1, 0.1, 0.09, 0, -1)] == [True, True, True, False, False, False]


def test_one_whose_cost_nobody_knows_comes_last():
    runs = [a_run(GOOD, won=number % 4 == 0) for number in range(20)]
    runs += [a_run(Target("claude-cli", "riddle"), cost=None) for _ in range(20)]
    named = ["claude-cli/riddle", str(GOOD)]
    of = picker(Knowledge(runs=runs))
    assert names(select("adaptive", a_task(1), of=of, explore=0, candidates=named)) == named[::-1]
    strict = select("adaptive", a_task(1), of=of, explore=0, candidates=named, max_cost_per_task=9)
    assert names(strict) == [str(GOOD)]


def test_a_bad_one_gives_way_to_one_that_nobody_has_tried():
    known = Knowledge(runs=[a_run(GOOD, won=False) for _ in range(8)])
    firsts = [
        select("adaptive", a_task(n), of=picker(known), explore=0, **BOTH).targets[0] for n in range(20)
    ]
    assert firsts.count(BAD) >= 19


def test_a_proven_one_is_not_left_for_hundreds_that_nobody_has_tried():
    rows = {f"m__{number:03}": priced("0.0000001", "0.0000001") for number in range(200)}
    proven = Target("openrouter", "m/077")
    known = Knowledge(
        runs=[a_run(proven, won=number % 5 > 0) for number in range(30)], catalogue=catalogue(**rows)
    )
    of = picker(known)
    firsts = [
        select("adaptive", a_task(n), of=of, provider="openrouter", explore=0).targets[0] for n in range(10)
    ]
    assert firsts == [proven] * 10


def test_tasks_that_explore_go_first_to_those_with_too_few_samples():
    known = Knowledge(runs=[a_run(GOOD) for _ in range(9)])
    found = [select("adaptive", a_task(n), of=picker(known), explore=1, **BOTH) for n in range(10)]
    assert all(each.why["explores"] and each.targets == (BAD, GOOD) for each in found)
    even = Knowledge(runs=[a_run(each) for each in (GOOD, BAD) for _ in range(9)])
    of = picker(even)
    firsts = Counter(select("adaptive", a_task(n), of=of, explore=1, **BOTH).targets[0] for n in range(200))
    assert 70 < firsts[GOOD] < 130


def test_a_retry_draws_the_same_numbers():
    known = Knowledge(runs=[a_run(each, won=n % 2 == 0) for each in (GOOD, BAD) for n in range(9)])
    first, retry = (
        select("adaptive", {**a_task(5), "retry_count": count}, of=picker(known), **BOTH) for count in (0, 2)
    )
    assert first == retry


def test_over_500_tasks_the_better_gets_most_and_the_share_that_explores_is_kept():
    chances = {GOOD: 0.85, BAD: 0.45}
    runs, firsts, explored = [], Counter(), 0
    start = NOW - 30 * DAY
    for number in range(500):
        now = start + number * timedelta(hours=1)
        found = select(
            "adaptive", a_task(number), of=picker(Knowledge(runs=runs)), now=now, explore=0.1, **BOTH
        )
        target = found.targets[0]
        firsts[target] += 1
        explored += found.why["explores"]
        won = draws.uniform("the world", str(number)) < chances[target]
        runs.append(a_run(target, won=won, ended_at=now))
        del runs[:-60]  # what counts most, and the test stays quick
    assert 35 <= explored <= 65
    assert firsts[GOOD] / 500 > 0.8
    assert firsts[BAD] > 15


# --- properties ---------------------------------------------------------------------------------

TARGETS = [Target("claude-cli", "good"), Target("claude-cli", "bad"), Target("openrouter", "a/fair")]
TARGETS += [Target("openrouter", "a/dear"), Target("openrouter", "b/fair")]
UNFIT = ["openrouter/f/expired", "openrouter/a/fair:batch", "openrouter/d/short", "openrouter/g/negative"]
histories = st.lists(
    st.builds(
        a_run,
        st.sampled_from(TARGETS),
        won=st.booleans(),
        age=st.integers(0, 130).map(lambda days: timedelta(days=days)),
        cost=st.sampled_from([None, "0", "0.02", "1.5"]),
        hours=st.sampled_from([0.0, 0.1, 2.0]),
        labels=st.sampled_from([(), ("bug",), ("docs",)]),
        length=st.sampled_from([10, 5000]),
        tokens=st.sampled_from([None, ModelUsage(), ModelUsage(input=9000, cache_read=90_000, output=500)]),
    ),
    max_size=30,
)
tasks = st.integers(1, 50).map(a_task)
words = st.sampled_from(["cheapest", "adaptive"])


@given(histories, tasks, words)
@settings(max_examples=60, deadline=None)
def test_the_same_knowledge_and_task_make_the_same_choice(runs, task, word):
    once, again = (
        select(word, task, of=picker(Knowledge(runs=tuple(runs), catalogue=CATALOGUE))) for _ in range(2)
    )
    assert once == again


@given(histories, tasks, words, st.sets(st.sampled_from(UNFIT)), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_candidates_that_do_not_fit_and_their_order_change_nothing(runs, task, word, unfit, shuffled):
    of = picker(Knowledge(runs=tuple(runs), catalogue=CATALOGUE))
    named = [str(each) for each in TARGETS]
    mixed = [*named, *unfit]
    shuffled.shuffle(mixed)
    plain, with_unfit = (
        select(word, task, of=of, candidates=each, min_context=9_000) for each in (named, mixed)
    )
    assert plain.targets == with_unfit.targets
    assert plain.why["candidates"] == with_unfit.why["candidates"]


@given(histories, tasks, words, st.sampled_from(TARGETS))
@settings(max_examples=60, deadline=None)
def test_a_candidate_that_is_refused_later_changes_no_choice(runs, task, word, refused):
    """Whether it is refused by its health or was never a candidate."""
    of = picker(Knowledge(runs=tuple(runs), catalogue=CATALOGUE))
    everyone = select(word, task, of=of, candidates=[str(each) for each in TARGETS])
    others = select(word, task, of=of, candidates=[str(each) for each in TARGETS if each != refused])
    assert [each for each in everyone.targets if each != refused] == [*others.targets]


# --- in the router ------------------------------------------------------------------------------


def test_the_router_takes_the_first_selected_that_is_eligible_and_keeps_why():
    rule = '{ name = "thrifty", target = { select = "cheapest", require = ["tools"], min_context = 100000 } }'
    text = f"{CONFIG}\n[routing]\nenabled = true\nrules = [{rule}]\n"
    settings_ = parse_settings(text, source="test")
    of = Picker(settings_, lambda: Knowledge(catalogue=CATALOGUE)).resolvers
    router = ModelRouter(settings_, now=lambda: NOW, resolvers=of)

    def refuse(target, _attrs):
        return Refusal("it is down") if target.model == "a/fair" else None

    decision = router.decide(a_task(3), refuse)
    assert (decision.provider, decision.model, decision.rule) == ("openrouter", "b/fair", "thrifty")
    record = decision.stored().trace["selected"]
    assert (record[0]["select"], record[0]["targets"][0]) == ("cheapest", "openrouter/a/fair")
    assert record[0]["why"]["candidates"][1]["target"] == "openrouter/b/fair"


def test_lint_says_nothing_about_targets_that_nobody_has_written():
    text = f"""{CONFIG}
[routing]
rules = [
    {{ name = "first", target = {{ select = "cheapest" }} }},
    {{ name = "second", condition = "priority == 0" }},
]
"""
    (finding,) = lint(ModelRouter(parse_settings(text, source="test")), lambda _provider: None)
    assert finding.text == (
        'rule "second" is only chosen while what it selects cannot be used: '
        '"first" stands before it and always matches'
    )


@pytest.mark.parametrize(("runs", "tokens"), [(5, 60_000), (4, 310_000)])
def test_the_tokens_of_a_task_are_those_of_similar_runs_or_the_configured_ones(runs, tokens):
    known = Knowledge(runs=[a_run(GOOD) for _ in range(runs)])
    assert picker(known, config="").estimated_tokens(TASK, NOW) == tokens


FIXED = """
[providers.openrouter]
agent = "openrouter-cli"
command_template = ["tools/openrouter-cli.py"]
[providers.claude-cli]
command_template = ["true"]
[routing]
enabled = true
default_provider = "claude-cli"
[[routing.rules]]
name = "fixed"
target = "openrouter/c/dumb"
fallbacks = ["claude-cli/a/fair", "openrouter/d/short", "openrouter/a/fair"]
requires = ["tools"]
"""


def test_fixed_targets_of_openrouter_are_judged_by_the_catalogue_and_those_of_others_are_not():
    router = ModelRouter(read(FIXED), listing=Market(read(FIXED), CATALOGUE))
    decision = router.decide({"context_needed": 9_000})
    assert (decision.provider, decision.model) == ("openrouter", "a/fair")
    why = {target.target: target.why for target in decision.targets}
    assert why["openrouter/c/dumb"] == "neither [[models]] nor the catalogue says that it has tools"
    assert why["claude-cli/a/fair"] == "neither [[models]] nor the catalogue says that it has tools"
    assert why["openrouter/d/short"] == "its context of 8,000 tokens is too small for 9,000"
