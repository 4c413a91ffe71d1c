"""Runs: claimed once, fenced by their token, settled as one fact with usage, cost and state."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy.exc import IntegrityError
from store_samples import LATER, NOW, Because, a_settlement, drain, end, queue, some_usage, start

from adw_modules.errors import IllegalTransition, StoreError
from adw_modules.tasks.model import (
    Cost,
    FailureClass,
    ModelUsage,
    Outcome,
    RunOutcome,
    TaskState,
    Usage,
    UsageSource,
)
from coordinator.store import tables

UNKNOWN_COST = Cost(usd=None, priced_by="unknown: no price for glm-9")


def test_a_claim_raises_attempts_runs_and_token_and_records_run_and_decision(store):
    task, run = start(store, queue(store).task_id, now=LATER)
    assert (task.state, task.attempts, task.runs, task.token) == (TaskState.RUNNING, 1, 1, 1)
    assert (task.last_provider, task.last_model) == ("claude-cli", "claude-sonnet-4-5")
    assert (run.token, run.attempt, run.rule, run.config_version) == (1, 1, "bugs", "abc123")
    assert (run.run_dir, run.claimed_at, run.started_at) == ("/state/runs/gh-12.1", LATER, None)
    decision = store.decision_of(run.run_id)
    assert (decision.provider, decision.rule, decision.reason) == (
        "claude-cli",
        "bugs",
        "labels contain 'bug'",
    )
    assert (decision.trace, decision.decided_at) == ([{"rule": "bugs", "matched": True}], LATER)
    assert store.open_runs() == [(task, run)]
    assert store.get_task(task.task_id) == task


def test_a_trace_of_dataclasses_and_decimals_is_kept_as_plain_data(store):
    because = Because(trace=(Because(trace=None), Decimal("0.10")), rule=None)
    _, run = start(store, queue(store).task_id, decision=because)
    decision = store.decision_of(run.run_id)
    assert decision.rule is None
    assert decision.trace[0]["provider"] == "claude-cli"
    assert decision.trace[1] == "0.10"


def test_what_was_asked_lately_is_told_by_runs_that_live_or_have_just_ended(store):
    _, first = start(store, queue(store, 1).task_id, now=NOW)
    end(store, first, usage=some_usage(100), now=LATER)
    _, live = start(store, queue(store, 2).task_id, now=LATER)
    found = store.asked_since(LATER)
    assert [(each.claimed_at, each.ended_at, each.tokens) for each in found] == [
        (NOW, LATER, some_usage(100).total.total),
        (live.claimed_at, None, 0),
    ]
    assert [each.ended_at for each in store.asked_since(LATER + timedelta(seconds=1))] == [None]


def test_a_task_that_is_not_queued_cannot_be_claimed(store):
    task = queue(store)
    assert start(store, task.task_id) is not None
    assert start(store, task.task_id) is None
    assert start(store, 999) is None
    assert store.get_task(task.task_id).attempts == 1


def test_claims_made_together_happen_all_or_none(store):
    first, second = (queue(store, number).task_id for number in (1, 2))

    def claim_and_fail() -> None:
        with store.together():
            assert start(store, first) is not None
            assert [run.task_id for _, run in store.open_runs()] == [first]  # seen within
            raise StoreError("the disk is full")

    with pytest.raises(StoreError):
        claim_and_fail()
    assert store.open_runs() == []
    assert store.get_task(first).token == 0

    with store.together():
        assert start(store, first) is not None
        assert start(store, second) is not None
    assert [run.task_id for _, run in store.open_runs()] == [first, second]


def test_one_of_two_connections_that_claim_the_same_task_gets_it(open_store, database_url):
    store = open_store()
    ids = [queue(store, number).task_id for number in range(1, 11)]
    barrier = threading.Barrier(2, timeout=30)
    won: list[int] = []

    def claim_all():
        with type(store).open(database_url, now=NOW) as mine:
            for task_id in ids:
                barrier.wait()
                if start(mine, task_id):
                    won.append(task_id)

    rivals = [threading.Thread(target=claim_all) for _ in range(2)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(60)
    assert sorted(won) == ids
    assert [task.attempts for task, _ in store.open_runs()] == [1] * len(ids)


def test_the_database_itself_refuses_a_second_live_run_of_a_task(store):
    task, run = start(store, queue(store).task_id)
    values = {"task_id": task.task_id, "attempt": 2, "provider": "p", "model": "m", "config_version": "c"}
    values |= {"run_dir": "/state/runs/other", "claimed_at": NOW, "stream_offset": 0, "token": 2}
    with pytest.raises(StoreError) as refused, store._database.write() as conn:
        conn.execute(tables.runs.insert(), values)
    assert isinstance(refused.value.__cause__, IntegrityError)
    assert store.runs_of(task.task_id) == [run]


def test_a_failure_while_naming_the_run_directory_leaves_the_task_queued(store):
    task = queue(store)

    def broken(task, token):
        raise RuntimeError("no such folder")

    with pytest.raises(RuntimeError):
        store.claim(task.task_id, decision=Because(), config_version="c", run_dir_of=broken, now=NOW)
    assert store.get_task(task.task_id) == task
    assert store.runs_of(task.task_id) == []


def test_a_started_run_knows_when(store):
    task, run = start(store, queue(store).task_id)
    assert store.mark_started(run.run_id, now=LATER, shim_pid=10, child_pid=11)
    assert store.runs_of(task.task_id)[0].started_at == LATER
    end(store, run)
    assert not store.mark_started(run.run_id, now=NOW, shim_pid=10, child_pid=11)
    assert store.runs_of(task.task_id)[0].started_at == LATER


def test_progress_keeps_the_offset_and_the_tokens_so_far(store):
    task, run = start(store, queue(store).task_id)
    assert store.usage_of(run.run_id).source is UsageSource.UNKNOWN
    assert store.save_progress(run.run_id, run.token, offset=10, usage=some_usage(10))
    assert store.save_progress(run.run_id, run.token, offset=6_000_000_000, usage=some_usage(20))
    assert store.save_progress(run.run_id, run.token, offset=6_000_000_001, usage=None)
    assert store.runs_of(task.task_id)[0].stream_offset == 6_000_000_001
    assert store.usage_of(run.run_id) == some_usage(20)
    assert store.cost_of(run.run_id) is None


def test_progress_of_a_stale_or_ended_run_is_fenced_out(store):
    task, run = start(store, queue(store).task_id)
    assert not store.save_progress(run.run_id, run.token + 1, offset=10, usage=some_usage())
    end(store, run)
    assert not store.save_progress(run.run_id, run.token, offset=10, usage=some_usage(99))
    assert store.runs_of(task.task_id)[0].stream_offset == 0
    assert store.usage_of(run.run_id) == some_usage()


def test_only_the_first_request_to_stop_counts(store):
    task, run = start(store, queue(store).task_id)
    first = {"reason": "issue closed", "outcome": Outcome.CANCELLED, "now": NOW}
    assert store.request_stop(run.run_id, **first)
    assert not store.request_stop(run.run_id, reason="deadline", outcome=Outcome.TIMED_OUT, now=LATER)
    stopped = store.runs_of(task.task_id)[0]
    assert (stopped.stop_reason, stopped.stop_outcome) == ("issue closed", Outcome.CANCELLED)
    end(store, run)
    _, other = start(store, queue(store, 13).task_id)
    end(store, other)
    assert not store.request_stop(other.run_id, **first)


def test_a_finish_writes_run_usage_cost_state_and_outbox_together(store):
    _, run = start(store, queue(store).task_id)
    drain(store)
    outcome = RunOutcome(
        outcome=Outcome.FAILED, detail="agent exited 7", failure_class=FailureClass.EXIT_CODE, exit_code=7
    )
    settlement = a_settlement(
        TaskState.RETRY_WAIT, cause="retry 1 of 2", wake_at=LATER, outbox=("pull_request", "report")
    )
    assert end(store, run, settlement, outcome=outcome)
    (task,) = store.tasks()
    assert (task.state, task.cause, task.wake_at) == (TaskState.RETRY_WAIT, "retry 1 of 2", LATER)
    assert (task.last_outcome, task.last_failure_class) == (Outcome.FAILED, FailureClass.EXIT_CODE)
    (ended,) = store.runs_of(task.task_id)
    assert (ended.outcome, ended.exit_code, ended.finished_at) == (Outcome.FAILED, 7, LATER)
    assert (ended.detail, ended.failure_class) == ("agent exited 7", FailureClass.EXIT_CODE)
    assert store.usage_of(run.run_id) == some_usage()
    assert store.cost_of(run.run_id) == Cost(usd=Decimal("0.10"), priced_by="config")
    assert [item.kind for item in store.due_outbox(LATER, 10)] == ["pull_request", "report"]
    assert [event.kind for event in store.events_for(task.task_id, 10)] == ["created", "claimed", "finished"]
    assert store.open_runs() == []


def test_a_run_that_did_not_count_gives_its_attempt_back(store):
    task, run = start(store, queue(store).task_id)
    assert end(store, run, a_settlement(TaskState.QUEUED, attempts=task.attempts - 1))
    again, second = start(store, task.task_id)
    assert (again.attempts, again.runs, again.token) == (1, 2, 2)
    assert (second.attempt, second.run_dir) == (1, "/state/runs/gh-12.2")


def test_a_finish_that_would_make_attempts_negative_writes_nothing(store):
    task, run = start(store, queue(store).task_id)
    with pytest.raises(StoreError):
        end(store, run, a_settlement(attempts=-1))
    assert store.open_runs() == [(task, run)]
    assert store.usage_of(run.run_id).source is UsageSource.UNKNOWN


def test_a_second_finish_of_the_same_run_is_fenced_out(store):
    task, run = start(store, queue(store).task_id)
    assert end(store, run)
    before = (store.get_task(task.task_id), store.runs_of(task.task_id), store.due_outbox(LATER, 10))
    assert not end(store, run, a_settlement(TaskState.FAILED), usage=some_usage(99))
    assert (store.get_task(task.task_id), store.runs_of(task.task_id), store.due_outbox(LATER, 10)) == before
    assert store.usage_of(run.run_id) == some_usage()


def test_a_stale_run_cannot_settle_the_run_that_came_after_it(store):
    task, stale = start(store, queue(store).task_id)
    end(store, stale, a_settlement(TaskState.QUEUED, attempts=0))
    live_task, live = start(store, task.task_id)
    assert not end(store, stale, a_settlement(TaskState.FAILED))
    assert store.open_runs() == [(live_task, live)]


def test_a_run_with_a_forged_token_settles_nothing(store):
    from dataclasses import replace

    task, run = start(store, queue(store).task_id)
    assert not end(store, replace(run, token=run.token + 1))
    assert not end(store, replace(run, run_id=run.run_id + 1))
    assert store.open_runs() == [(task, run)]


def test_a_finish_cannot_leave_the_task_running(store):
    _, run = start(store, queue(store).task_id)
    with pytest.raises(IllegalTransition):
        end(store, run, a_settlement(TaskState.RUNNING))


def test_usage_is_kept_per_model_and_replaced_as_a_whole(store):
    _, run = start(store, queue(store).task_id)
    store.save_progress(run.run_id, run.token, offset=1, usage=some_usage(1, "first-guess"))
    final = Usage(
        source=UsageSource.DERIVED,
        by_model={"opus": ModelUsage(input=3_000_000_000, output=2), "haiku": ModelUsage(cache_read=7)},
    )
    end(store, run, usage=final, cost=UNKNOWN_COST)
    assert store.usage_of(run.run_id) == final
    assert store.cost_of(run.run_id) == UNKNOWN_COST


def test_totals_add_tokens_and_known_costs_exactly_and_count_the_unknown(store):
    costs = [
        Cost(usd=Decimal("0.1"), priced_by="config"),
        Cost(usd=Decimal("0.2"), priced_by="config"),
        UNKNOWN_COST,
    ]
    for number, cost in enumerate(costs, start=1):
        _, run = start(store, queue(store, number).task_id)
        end(store, run, cost=cost)
    _, live = start(store, queue(store, 4).task_id)
    store.save_progress(live.run_id, live.token, offset=1, usage=some_usage(5))
    totals = store.totals(LATER)
    assert (totals.runs, totals.cost_usd, totals.runs_of_unknown_cost) == (3, Decimal("0.3"), 1)
    assert totals.tokens == ModelUsage(
        input=30, cache_read=6, cache_write_5m=9, cache_write_1h=12, output=60, reasoning=3
    )
    nothing = store.totals(LATER.replace(year=2030))
    assert (nothing.runs, nothing.tokens, nothing.cost_usd) == (0, ModelUsage(), Decimal(0))


def test_a_run_without_usage_is_of_unknown_usage_not_of_none(store):
    _, run = start(store, queue(store).task_id)
    end(store, run, usage=Usage(source=UsageSource.UNKNOWN), cost=UNKNOWN_COST)
    assert store.usage_of(run.run_id) == Usage(source=UsageSource.UNKNOWN)
    assert store.decision_of(999) is None
