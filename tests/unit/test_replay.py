"""Recorded decisions made again by another configuration: what changes, and what is known of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from adw_modules.config import parse_settings
from adw_modules.routing import ModelRouter, Target
from adw_modules.routing.replay import History, Recorded, replay
from adw_modules.tasks.model import Outcome

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
NEW = """
[routing]
enabled = true
default_model = "base"
[[routing.rules]]
name = "docs"
conditions = { labels = ["docs"] }
target = "claude-cli/haiku"
fallbacks = ["claude-cli/sonnet"]
"""
BASE, HAIKU, SONNET = (Target("claude-cli", model) for model in ("base", "haiku", "sonnet"))


def recorded(task: str = "gh-1", **changes) -> Recorded:
    values = {
        "task": task,
        "target": BASE,
        "rule": None,
        "attrs": {"labels": ["docs"], "retry_count": 0},
        "refused": {},
        "outcome": Outcome.SUCCEEDED,
        "cost": Decimal("1.00"),
        "at": NOW,
    }
    return Recorded(**(values | changes))


def history(succeeded: int = 8, failed: int = 2, costs=(0.1, 0.3)) -> History:
    return History(succeeded=succeeded, failed=failed, costs=list(costs) * ((succeeded + failed) // 2))


def again(*decisions: Recorded, config: str = NEW, known=None, why_not=lambda _: None):
    router = ModelRouter(parse_settings(config, source="new.toml"))
    return replay(router, decisions, known or {}, why_not=why_not)


def test_the_configuration_that_decided_changes_nothing():
    router = ModelRouter(parse_settings(NEW, source="x"))
    tasks = [{"labels": ["docs"] * (n % 2), "task": {"number": n}} for n in range(20)]
    made = [router.choose(attrs) for attrs in tasks]
    past = [
        recorded(
            f"gh-{n}",
            target=Target(each.provider, each.model),
            rule=each.rule,
            attrs=each.stored().trace["attrs"],
        )
        for n, each in enumerate(made)
    ]
    found = again(*past)
    assert (found.decisions, found.tasks, found.same, found.other_rule, found.changes) == (20, 20, 20, 0, ())
    assert found.cost.difference is None


def test_changes_are_counted_by_where_from_where_to_and_by_which_rules():
    past = [recorded(f"gh-{n}") for n in range(5)] + [recorded("gh-9", target=SONNET, rule="old")]
    found = again(*past, recorded("gh-10", attrs={"labels": []}))
    assert [(c.before, c.after, c.old_rule, c.new_rule, c.count, c.examples) for c in found.changes] == [
        ("claude-cli/base", "claude-cli/haiku", None, "docs", 5, ("gh-0", "gh-1", "gh-2")),
        ("claude-cli/sonnet", "claude-cli/haiku", "old", "docs", 1, ("gh-9",)),
    ]
    assert (found.changed, found.same) == (6, 1)


def test_the_same_target_by_another_rule_is_no_change_and_is_said():
    found = again(recorded(target=HAIKU, rule="old"))
    assert (found.changed, found.same, found.other_rule) == (0, 1, 1)


def test_decisions_without_attributes_are_counted_and_not_guessed():
    found = again(recorded(attrs=None), recorded())
    assert (found.decisions, found.not_replayable, found.changed) == (2, 1, 1)


def test_what_the_trace_found_not_eligible_is_not_and_everything_else_is():
    found = again(recorded(refused={"claude-cli/haiku": "cooling down"}))
    assert found.changes[0].after == "claude-cli/sonnet"


def test_a_provider_that_the_new_file_disables_gets_nothing():
    found = again(recorded(), why_not=lambda _: "disabled")
    (change,) = found.changes
    assert (change.after, change.new_rule, change.cost.difference) == (None, None, None)
    assert "disabled" in change.why
    assert (change.cost.unknown, change.success.unknown) == (1, 1)


def test_an_attribute_that_was_not_kept_is_counted_for_the_rules_that_ask_about_it():
    config = NEW.replace('labels = ["docs"]', 'provider_status = { claude-cli = "up" }')
    found = again(recorded(), recorded(attrs={"provider_status": {"claude-cli": "up"}}), config=config)
    assert found.missing == {"provider_status": 1}
    assert (found.same, found.changed) == (1, 1)


def test_the_difference_is_the_mean_of_own_runs_less_what_was_paid_with_its_uncertainty():
    found = again(*[recorded(f"gh-{n}") for n in range(4)], known={HAIKU: history()})
    spread = math.sqrt(10 * 0.01 / 9)
    half = 1.959964 * math.sqrt(spread**2 * (4 + 16 / 10))
    assert found.cost.difference == pytest.approx(4 * 0.2 - 4.0)
    assert (found.cost.interval.low, found.cost.interval.high) == pytest.approx((-3.2 - half, -3.2 + half))
    assert (found.cost.of, found.cost.unknown) == (4, 0)
    assert found.success.difference == pytest.approx(4 * 0.8 - 4)
    assert found.success.interval.low < found.success.difference < found.success.interval.high


@pytest.mark.parametrize("known", [{}, {HAIKU: history(4, 0)}, {SONNET: history()}])
def test_with_too_few_own_runs_of_the_new_target_nothing_is_estimated(known):
    found = again(recorded(), known=known)
    assert (found.cost.difference, found.cost.interval, found.cost.of, found.cost.unknown) == (
        None,
        None,
        0,
        1,
    )
    assert (found.success.difference, found.success.unknown) == (None, 1)


def test_a_run_of_unknown_cost_is_left_out_and_counted():
    found = again(recorded(cost=None), recorded("gh-2"), known={HAIKU: history()})
    assert (found.cost.of, found.cost.unknown) == (1, 1)
    assert found.cost.difference == pytest.approx(0.2 - 1)


@pytest.mark.parametrize("outcome", [None, Outcome.LOST, Outcome.RATE_LIMITED, Outcome.CANCELLED])
def test_a_run_that_says_nothing_about_its_model_is_no_failure(outcome):
    found = again(recorded(outcome=outcome), recorded("gh-2"), known={HAIKU: history()})
    assert (found.success.of, found.success.unknown) == (1, 1)
    known = History()
    known.add(outcome, Decimal(1))
    assert (known.runs, known.costs) == (0, [])


def test_what_goes_to_one_target_by_several_ways_has_one_error_together():
    """The mean of a target is unknown by the same amount for all: it does not even out."""
    known = {HAIKU: history()}
    together = again(*[recorded(f"gh-{n}") for n in range(8)], known=known)
    apart = again(*[recorded(f"gh-{n}", rule=f"r{n % 2}") for n in range(8)], known=known)
    assert len(apart.changes) == 2
    assert apart.cost == together.cost
    assert apart.success == together.success


def test_a_task_stays_in_its_arm_when_it_is_decided_again():
    config = NEW + (
        '[[experiments]]\nname = "x"\narms = [{ name = "a", provider = "claude-cli", model = "haiku" }, '
        '{ name = "b", provider = "claude-cli", model = "sonnet" }]\n'
    )
    router = ModelRouter(parse_settings(config, source="x"))
    past = []
    for number in range(30):
        each = router.choose({"labels": [], "task": {"repo_id": 1, "number": number}})
        past.append(
            recorded(
                f"gh-{number}", target=Target(each.provider, each.model), rule=each.rule, attrs=each.known
            )
        )
    assert again(*past, config=config).same == 30
