"""How commands reach a running daemon, what it remembers about itself, and the audit trail."""

from datetime import timedelta

import pytest
from store_samples import LATER, NOW, Because, a_settlement, end, queue, start

from adw_modules.errors import StoreError
from adw_modules.tasks.model import FailedTarget, Outcome, RunOutcome, TaskState
from coordinator.store import PAUSED, Store


def test_a_request_waits_until_it_is_answered_and_is_answered_once(store):
    task = queue(store)
    first = store.add_request("retry", task.task_id, None, NOW)
    second = store.add_request("pause", None, "deploying", LATER)
    pending = store.pending_requests()
    assert [(r.request_id, r.verb, r.task_id, r.argument) for r in pending] == [
        (first, "retry", task.task_id, None),
        (second, "pause", None, "deploying"),
    ]
    assert pending[0].created_at == NOW
    assert store.request_answer(first) is None
    store.finish_request(first, "queued again")
    store.finish_request(first, "something else")
    assert store.request_answer(first) == "queued again"
    assert [r.request_id for r in store.pending_requests()] == [second]


def test_a_request_of_another_process_is_seen_by_the_daemon(open_store, database_url):
    daemon = open_store()
    with Store.open(database_url, now=NOW, migrate=False) as command:
        request_id = command.add_request("drain", None, None, NOW)
    assert [r.request_id for r in daemon.pending_requests()] == [request_id]


def test_a_request_for_a_task_that_does_not_exist_is_refused(store):
    with pytest.raises(StoreError):
        store.add_request("retry", 999, None, NOW)


def test_facts_about_the_daemon_are_set_changed_and_forgotten(store):
    assert store.get_state("started_at") is None
    store.set_state("started_at", "today")
    store.set_state("started_at", "tomorrow")
    assert store.get_state("started_at") == "tomorrow"
    store.set_state("started_at", None)
    assert store.get_state("started_at") is None


def test_the_snapshot_knows_that_the_daemon_is_paused(store):
    store.set_state(PAUSED, "by ada: deploying")
    assert store.snapshot(now=NOW, ready_limit=1, config_version="c").paused
    store.set_state(PAUSED, None)
    assert not store.snapshot(now=NOW, ready_limit=1, config_version="c").paused


def test_the_audit_trail_keeps_the_newest_lines_in_order(store):
    task, run = start(store, queue(store).task_id)
    store.add_event(task.task_id, run.run_id, "note", "seen", LATER)
    store.add_event(None, None, "started", "version 1", LATER)
    assert [event.kind for event in store.events_for(task.task_id, 2)] == ["claimed", "note"]
    note = store.events_for(task.task_id, 1)[0]
    assert (note.at, note.run_id, note.text) == (LATER, run.run_id, "seen")


def test_a_reader_sees_what_is_committed_and_writes_nothing(store, database_url):
    queue(store, 1)
    with Store.open_readonly(database_url) as reader:
        assert [task.issue_number for task in reader.tasks()] == [1]
        queue(store, 2)
        assert [task.issue_number for task in reader.tasks()] == [2, 1]
        with pytest.raises(StoreError):
            reader.set_state("started_at", "today")
    assert store.get_state("started_at") is None


def test_a_target_that_is_asked_again_frees_who_waits_for_it_and_shortens_no_other_wait(store):
    wake_at = LATER + timedelta(hours=1)

    def waiting(number, outcome, why, model="m"):
        _, run = start(store, queue(store, number).task_id, decision=Because(provider="p", model=model))
        failed = FailedTarget(provider="p", model=model, why=why, until=wake_at)
        settled = a_settlement(TaskState.RETRY_WAIT, wake_at=wake_at, failed_on=(failed,))
        assert end(store, run, settled, outcome=RunOutcome(outcome=outcome, detail="no"))
        return run.task_id

    limited = waiting(1, Outcome.RATE_LIMITED, "rate_limited")
    elsewhere = waiting(2, Outcome.RATE_LIMITED, "rate_limited", model="other")
    own = waiting(3, Outcome.FAILED, "api_error")
    store.wake_limited(LATER, "abc123")  # the configuration that sent them there: nothing else is to be found
    assert {store.get_task(each).wake_at for each in (limited, elsewhere, own)} == {wake_at}

    store.release("p", "m", LATER)
    assert [store.get_task(each).wake_at for each in (limited, elsewhere, own)] == [LATER, wake_at, wake_at]
    assert [store.get_task(each).failed_on[0].until for each in (limited, elsewhere, own)] == [
        LATER,
        wake_at,
        wake_at,
    ]
    store.wake_limited(LATER, "another")
    assert [store.get_task(each).wake_at for each in (elsewhere, own)] == [LATER, wake_at]
    assert store.get_task(elsewhere).failed_on[0].until == wake_at, "only another target is found sooner"
