"""Failures that users of other routers report, where no other test has them (table in docs/routing.md)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.agents.stream import RateLimit, Retry, StreamSummary
from adw_modules.config import RetrySettings
from adw_modules.errors import ConfigError
from adw_modules.health import HealthKind, RunEnd, health_event
from adw_modules.openrouter.assembly import usage_from
from adw_modules.routing import ModelRouter, NoRoute, RoutingDecision, Target
from adw_modules.routing.circuits import Circuit, after, refusal
from adw_modules.tasks.model import ModelUsage, Outcome, RunOutcome, Usage, UsageSource
from tests.builders import NOW, later

POLICY = RetrySettings()
FIRST, SECOND, ALONE = Target("a", "one"), Target("b", "two"), Target("a", "alone")
CONFIG: dict[str, Any] = {
    "routing": {
        "enabled": True,
        "default_provider": "a",
        "default_model": "alone",
        "rules": [
            {"name": "r", "condition": "labels contains 'x'", "target": "a/one", "fallbacks": ["b/two"]}
        ],
    }
}
LIMITED = RunOutcome(outcome=Outcome.RATE_LIMITED, detail="429", retry_at=later(600))
SUMMARY = StreamSummary(usage=Usage(source=UsageSource.UNKNOWN))
# Every way in which a limit comes to us: in mid-run, of a window, at the end with a time, and without one.
WAYS = {
    "a retry in mid-run": Retry(
        error_status=429, error=None, attempt=1, max_retries=10, delay=timedelta(seconds=600)
    ),
    "a window that is used up": RateLimit(status="rejected", resets_at=later(600)),
    "the end of a run": RunEnd(outcome=LIMITED, summary=SUMMARY),
    "an end without a time": RunEnd(outcome=replace(LIMITED, retry_at=None), summary=SUMMARY),
}


def limited(*targets: Target, way: str = "the end of a run") -> dict[tuple[str, str], Circuit]:
    circuits: dict[tuple[str, str], Circuit] = {}
    for target in targets:
        event = health_event(WAYS[way], provider=target.provider, model=target.model, now=NOW)
        assert event is not None
        circuits |= {each.key: each for each in after(circuits, event, now=NOW, policy=POLICY)}
    return circuits


def decided(circuits: dict[tuple[str, str], Circuit], *labels: str) -> RoutingDecision | NoRoute:
    return ModelRouter(CONFIG).decide(
        {"labels": list(labels)}, lambda target, _attrs: refusal(circuits, target, live=(), now=NOW)
    )


def test_a_target_that_cools_is_never_the_decision() -> None:
    found = decided(limited(FIRST), "x")
    assert isinstance(found, RoutingDecision)
    assert (found.provider, found.model) == ("b", "two")


def test_a_fallback_that_cools_is_passed_over_like_any_target() -> None:
    found = decided(limited(FIRST, SECOND), "x")
    assert isinstance(found, RoutingDecision)
    assert (found.provider, found.model) == ("a", "alone")


def test_a_limit_is_kept_also_where_there_is_nobody_else_to_go_to() -> None:
    found = decided(limited(ALONE))
    assert isinstance(found, NoRoute)
    assert (found.until, found.is_busy) == (later(600), False)


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_cools_its_target_whichever_way_it_comes_to_light(way: str) -> None:
    circuits = limited(FIRST, way=way)
    assert [each.kind for each in circuits.values()] == [HealthKind.RATE_LIMITED]
    refused = refusal(circuits, FIRST, live=(), now=NOW)
    assert refused is not None
    assert refused.until is not None
    assert refused.until > NOW


@given(st.lists(st.sampled_from([Target(p, m) for p in "abc" for m in "xy"]), max_size=30))
def test_moving_on_counts_for_nobody_but_the_target_that_was_limited(targets: list[Target]) -> None:
    """Where each reroute counts as a rate limit, one limit cools the whole fleet."""
    circuits = limited(*targets)
    assert set(circuits) == {(each.provider, each.model) for each in targets}


def test_a_chain_that_comes_back_to_a_target_is_refused_when_the_file_is_read() -> None:
    rule = {**CONFIG["routing"]["rules"][0], "fallbacks": ["b/two", "a/one"]}
    with pytest.raises(ConfigError, match='routing rule "r": a/one stands in its chain twice'):
        ModelRouter({"routing": {**CONFIG["routing"], "rules": [rule]}})


@pytest.mark.parametrize(
    "written",
    [
        {"prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 30}},
        {"prompt_tokens_details": {"cached_tokens": 20}, "cache_creation_input_tokens": 30},
        {
            "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 30},
            "cache_creation_input_tokens": 30,
        },
    ],
)
def test_cache_writes_are_read_under_both_names_and_counted_once(written: dict[str, object]) -> None:
    found = usage_from({"prompt_tokens": 100, "completion_tokens": 7, **written})
    assert found == ModelUsage(input=50, cache_read=20, cache_write_5m=30, output=7)
