"""Decisions and what came of them, as the store gives them to experiments and replays: on both databases."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from store_samples import LATER, NOW, Because, a_settlement, end, queue, start

from adw_modules.config import parse_settings
from adw_modules.routing import ModelRouter, Refusal, Target
from adw_modules.routing.trials import Fate, trials
from adw_modules.tasks.model import Cost, Outcome, RunOutcome, TaskState
from adw_modules.tasks.planning import attributes

CONFIG = """
[routing]
enabled = true
[[experiments]]
name = "x_y"
arms = [
    { name = "a", provider = "claude-cli", model = "opus" },
    { name = "b", provider = "claude-cli", model = "haiku", fallbacks = ["claude-cli/spare"] },
]
"""
ROUTER = ModelRouter(parse_settings(CONFIG, source="x"))
FAILED = RunOutcome(outcome=Outcome.FAILED, detail="it broke")


def decided(task, *refused: str, router: ModelRouter = ROUTER):
    def eligible(target, _attrs):
        return Refusal("cooling") if target.model in refused else None

    return router.decide(attributes(task, now=NOW), eligible)


def run_of(store, task, *refused: str, state=TaskState.SUCCEEDED, usd: str | None = "0.10", **changes):
    decision = decided(task, *refused)
    _, run = start(store, task.task_id, decision=decision.stored())
    end(store, run, a_settlement(state), cost=Cost(usd=usd and Decimal(usd), priced_by="config"), **changes)
    return decision, run


def test_a_decision_comes_back_with_all_it_saw_and_what_came_of_it(store):
    task = queue(store)
    decision, _ = run_of(store, task)
    (found,) = store.decided()
    assert found.attrs == dict(decision.known)
    assert found.attrs["task"]["repo_id"] == task.repo_id
    assert (found.task, found.target, found.rule) == (
        "gh-12",
        Target("claude-cli", decision.model),
        decision.rule,
    )
    assert (found.outcome, found.cost, found.at, found.refused) == (
        Outcome.SUCCEEDED,
        Decimal("0.10"),
        NOW,
        {},
    )


def test_what_was_not_eligible_is_remembered_but_for_what_the_configuration_said(store):
    first = queue(store)
    model = decided(first).model
    run_of(store, first, model)
    (found,) = store.decided()
    assert found.refused == {f"claude-cli/{model}": "cooling"}
    second = queue(store, 13)
    targets = [{"target": "p/m", "eligible": False, "why": "disabled"}]
    why = Because(trace={"rules": [], "targets": targets, "attrs": {}})
    end(store, start(store, second.task_id, decision=why)[1])
    assert store.decided()[0].refused == {}


def test_a_decision_of_the_first_versions_has_no_attributes(store):
    end(store, start(store, queue(store).task_id)[1])
    assert [each.attrs for each in store.decided()] == [None]


def test_decisions_come_newest_first_within_time_and_limit(store):
    for number in (12, 13, 14):
        at = NOW + timedelta(days=number)
        start(store, queue(store, number, now=NOW).task_id, now=at)
    assert [each.task for each in store.decided()] == ["gh-14", "gh-13", "gh-12"]
    assert [each.task for each in store.decided(limit=1)] == ["gh-14"]
    assert [each.task for each in store.decided(since=NOW + timedelta(days=13))] == ["gh-14", "gh-13"]
    assert [each.outcome for each in store.decided(limit=1)] == [None]


def test_the_history_of_a_target_counts_runs_that_say_something_about_it(store):
    why = Because()
    for number, outcome in enumerate([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST], start=12):
        _, run = start(store, queue(store, number).task_id, decision=why)
        end(store, run, outcome=RunOutcome(outcome=outcome, detail="x"))
    start(store, queue(store, 20).task_id, decision=why)
    found = store.history()[Target(why.provider, why.model)]
    assert (found.succeeded, found.failed, found.costs) == (1, 1, [0.1, 0.1])


def test_an_experiment_is_read_from_the_runs_of_its_tasks(store):
    task = queue(store)
    decision, _ = run_of(store, task, state=TaskState.QUEUED, outcome=FAILED)
    run_of(
        store,
        store.get_task(task.task_id),
        "opus",
        "haiku",
        state=TaskState.FAILED,
        usd="0.25",
        outcome=FAILED,
    )
    for number in range(90, 96):  # had to go elsewhere, some by their arm's fallback: in no arm
        run_of(store, queue(store, number), "opus", "haiku")
    assert {run.arm for run in store.trial_runs("x_y") if run.task_id != task.task_id} == {None}
    runs = [run for run in store.trial_runs("x_y") if run.task_id == task.task_id]
    arm = decision.rule.rpartition(" ")[2]
    assert [(run.task_id, run.arm, run.attempt) for run in runs] == [
        (task.task_id, arm, 1),
        (task.task_id, None, 2),
    ]
    (trial,) = trials(store.trial_runs("x_y"))
    assert (trial.arm, trial.fate, trial.again, trial.cost) == (arm, Fate.FAILED, 1, Decimal("0.35"))
    assert trial.seconds == 2 * (LATER - NOW).total_seconds()


@pytest.mark.parametrize("name", ["x.y", "x_", "xzy", "other"])
def test_an_experiment_of_another_name_has_none_of_these_runs(store, name):
    run_of(store, queue(store))
    assert trials(store.trial_runs(name)) == []


def test_a_rule_that_is_only_called_like_an_arm_is_none(store):
    run_of(store, queue(store))
    named = Because(rule="experiment x_y: a", trace={"rules": [], "targets": [], "attrs": {}})
    end(store, start(store, queue(store, 13).task_id, decision=named)[1])
    assert len(trials(store.trial_runs("x_y"))) == 1
