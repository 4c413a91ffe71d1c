from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.config import parse_settings
from adw_modules.providers import ProviderManager
from adw_modules.routing import ModelRouter, NoRoute, Refusal, RoutingDecision, Target
from adw_modules.tasks.lifecycle import Event
from adw_modules.tasks.model import TaskState
from adw_modules.tasks.planning import Dispatch, Limits, Park, Requeue, Supply, attributes, plan
from tests.builders import NOW, a_run, a_snapshot, a_task, later


def decision(provider: str = "claude-cli") -> RoutingDecision:
    return RoutingDecision(provider=provider, model="m", rule="r", reason="because", trace=())


def to(provider: str):
    """A router that knows one provider."""

    def route(_attrs, eligible):
        refusal = eligible(Target(provider, "m"), {})
        return decision(provider) if refusal is None else refused(refusal)

    return route


def refused(refusal: Refusal) -> NoRoute:
    return NoRoute(reasons=(refusal.reason,), trace=(), until=refusal.until, is_busy=refusal.is_busy)


def nowhere(_attrs, _eligible):
    return NoRoute(reasons=("claude-cli: key not set",), trace=())


def limits(max_concurrent: int = 3, **per_provider: int) -> Limits:
    return Limits(
        max_concurrent=max_concurrent,
        max_runs_per_issue=15,
        max_tokens_per_issue=1000,
        per_provider=per_provider,
    )


def ready(count: int):
    return tuple(a_task(task_id=n, name=f"gh-{n}", issue_number=n) for n in range(1, count + 1))


def running(count: int, provider: str = "claude-cli"):
    return tuple(
        (
            a_task(task_id=100 + n, state=TaskState.RUNNING),
            a_run(run_id=n, task_id=100 + n, provider=provider),
        )
        for n in range(count)
    )


def test_ready_tasks_fill_the_free_slots_in_order() -> None:
    actions = plan(a_snapshot(ready=ready(5), running=running(1)), limits=limits(3), route=to("a"))
    assert [action.task.task_id for action in actions if isinstance(action, Dispatch)] == [1, 2]


def test_nothing_starts_while_paused_but_waiting_tasks_come_back() -> None:
    waiting = a_task(state=TaskState.RETRY_WAIT, wake_at=NOW)
    actions = plan(a_snapshot(ready=ready(2), due=(waiting,), paused=True), limits=limits(), route=to("a"))
    assert actions == [Requeue(task=waiting, event=Event.RETRY_DUE)]


def test_a_blocked_task_whose_time_has_come_is_unblocked() -> None:
    blocked = a_task(state=TaskState.BLOCKED, wake_at=NOW)
    assert plan(a_snapshot(due=(blocked,)), limits=limits(), route=to("a")) == [
        Requeue(task=blocked, event=Event.UNBLOCKED)
    ]


def test_no_route_parks_with_the_reason_and_a_time() -> None:
    (action,) = plan(a_snapshot(ready=ready(1)), limits=limits(), route=nowhere)
    assert isinstance(action, Park)
    assert "key not set" in action.cause
    assert action.wake_at == later(60)


def test_a_busy_provider_leaves_the_task_in_the_queue() -> None:
    actions = plan(a_snapshot(ready=ready(3), running=running(1, "a")), limits=limits(5, a=2), route=to("a"))
    assert [type(action) for action in actions] == [Dispatch]


def test_the_lifetime_cap_parks_until_a_human_acts() -> None:
    (action,) = plan(a_snapshot(ready=(a_task(runs=15),)), limits=limits(), route=to("a"))
    assert isinstance(action, Park)
    assert action.wake_at is None
    assert "15 runs" in action.cause


def test_rules_see_what_the_seed_shows() -> None:
    attrs = attributes(a_task(attempts=1))
    assert {key: attrs[key] for key in ("priority", "labels", "retry_count")} == {
        "priority": "normal",
        "labels": ["rpi-auto"],
        "retry_count": 1,
    }


def test_rules_never_see_labels_that_we_wrote() -> None:
    task = a_task(labels=("bug", "coordinator:running"))
    assert attributes(task, "coordinator:")["labels"] == ["bug"]


@given(
    slots=st.integers(0, 8),
    live=st.integers(0, 8),
    queued=st.integers(0, 20),
    per_provider=st.none() | st.integers(0, 8),
    paused=st.booleans(),
)
def test_a_plan_never_exceeds_free_slots_and_starts_no_task_twice(
    slots, live, queued, per_provider, paused
) -> None:
    bound = limits(slots) if per_provider is None else limits(slots, a=per_provider)
    snapshot = a_snapshot(ready=ready(queued), running=running(live, "a"), paused=paused)
    started = [
        action for action in plan(snapshot, limits=bound, route=to("a")) if isinstance(action, Dispatch)
    ]
    assert len(started) <= max(0, slots - live)
    assert len({action.task.task_id for action in started}) == len(started)
    if per_provider is not None:
        assert len(started) <= max(0, per_provider - live)
    if paused:
        assert not started


def test_a_refused_task_never_starts_whatever_put_it_into_the_queue() -> None:
    (action,) = plan(a_snapshot(ready=(a_task(trigger_event_id=0),)), limits=limits(), route=to("a"))
    assert isinstance(action, Park)
    assert action.cause.startswith("refused: ")


def test_an_issue_that_has_used_its_tokens_is_parked_until_somebody_acts() -> None:
    task = a_task(tokens=1000)
    (action,) = plan(a_snapshot(ready=(task,)), limits=limits(), route=to("a"))
    assert isinstance(action, Park)
    assert (action.wake_at, "1,000 of its 1,000 tokens" in action.cause) == (None, True)


def test_a_missing_program_is_looked_for_again_soon_though_another_target_waits_for_tomorrow(
    tmp_path,
) -> None:
    assert parked_until(tmp_path, enabled="true") == later(60)
    assert parked_until(tmp_path, enabled="false") == later(80_000), "that is told by the configuration"


def parked_until(root, *, enabled: str):
    """A task whose budget is spent at its target, and whose fallback has no program."""
    settings = parse_settings(
        f"""
        llm = {{ provider = "one", model_default = "m" }}
        routing = {{ fallbacks = ["two/m"] }}
        [providers]
        one = {{ command_template = ["/bin/sh"] }}
        two = {{ command_template = ["/nowhere/updated"], enabled = {enabled} }}
        """,
        source="x",
    )
    router = ModelRouter(settings, providers=ProviderManager(settings, environ={}, project_root=root))
    spent = Supply(checks=[lambda _task: lambda _target, _attrs: Refusal("spent", later(80_000))])
    (action,) = plan(a_snapshot(ready=ready(1)), limits=limits(), route=router.decide, supply=spent)
    assert isinstance(action, Park)
    return action.wake_at


@pytest.mark.parametrize(("characters", "tokens"), [(0, 1_000), (1, 1_001), (4, 1_001), (5, 1_002)])
def test_the_context_a_task_needs_is_four_characters_a_token_and_what_is_configured(characters, tokens):
    task = a_task(snapshot_title="", snapshot_body="x" * characters)
    assert attributes(task)["context_needed"] == tokens
    assert attributes(task, working_context=500)["context_needed"] == tokens + 500
