"""Issues become tasks: one row each, refreshed by polls, opened again only by a newer trigger."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import StatementError
from store_samples import (
    LATER,
    NOW,
    REPO_ID,
    a_refusal,
    a_request,
    a_settlement,
    an_issue,
    drain,
    end,
    queue,
    some_usage,
    start,
)

from adw_modules.errors import IllegalTransition
from adw_modules.tasks.model import FailedTarget, FailureClass, Outcome, Priority, RunOutcome, TaskState
from coordinator.store import TaskChange

FAILED = RunOutcome(
    outcome=Outcome.FAILED, detail="exit 7", failure_class=FailureClass.EXIT_CODE, exit_code=7
)


def finished(store, state=TaskState.FAILED, number=12):
    task = queue(store, number)
    _, run = start(store, task.task_id)
    assert end(store, run, a_settlement(state, cause="gave up", attempts=1), outcome=FAILED)
    drain(store)
    return store.get_task(task.task_id)


def reports(store):
    return [(item.task_id, item.kind) for item in store.due_outbox(LATER, 100)]


def test_an_admitted_issue_is_queued_with_all_it_said_and_gets_a_report(store):
    done = store.upsert_task(a_request(12, priority=Priority.HIGH), name="gh-12", now=NOW)
    task = done.task
    assert done.change is TaskChange.CREATED
    assert (task.state, task.priority, task.labels) == (TaskState.QUEUED, Priority.HIGH, ("rpi-auto", "bug"))
    assert (task.snapshot_title, task.snapshot_body) == ("The lamp flickers", "Please mend it.")
    assert (task.attempts, task.runs, task.token, task.listed) == (0, 0, 0, True)
    assert (task.trigger_event_id, task.triggered_by, task.created_at) == (100, "grace", NOW)
    assert store.get_task(task.task_id) == task
    assert reports(store) == [(task.task_id, "report")]


def test_the_same_poll_again_writes_nothing(store):
    task = queue(store)
    again = store.upsert_task(a_request(), name="gh-12", now=LATER)
    assert again.change is TaskChange.UNCHANGED
    assert again.task == task


def test_a_poll_refreshes_what_people_see_but_not_what_the_agent_was_given(store):
    queue(store)
    later = a_request(
        title="New title", body="rm -rf", labels=("bug",), priority=Priority.CRITICAL, updated_at=LATER
    )
    done = store.upsert_task(later, name="gh-12", now=LATER)
    assert done.change is TaskChange.REFRESHED
    assert (done.task.title, done.task.labels, done.task.priority) == (
        "New title",
        ("bug",),
        Priority.CRITICAL,
    )
    assert (done.task.snapshot_title, done.task.snapshot_body) == ("The lamp flickers", "Please mend it.")
    assert done.task.updated_at == LATER


def test_an_answer_older_than_the_last_one_changes_nothing(store):
    queue(store, title="New title", updated_at=LATER)
    assert store.upsert_task(a_request(), name="gh-12", now=LATER).change is TaskChange.UNCHANGED


def test_refresh_issue_follows_the_issue_whatever_its_trigger(store):
    task = finished(store)
    store.refresh_issue(REPO_ID, an_issue(title="New title", updated_at=LATER), Priority.LOW, LATER)
    after = store.get_task(task.task_id)
    assert (after.title, after.priority, after.state) == ("New title", Priority.LOW, TaskState.FAILED)
    store.refresh_issue(REPO_ID, an_issue(99), Priority.LOW, LATER)
    assert store.find_task(None, 99) == []


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED])
def test_a_finished_task_stays_finished_without_a_newer_trigger(store, state):
    task = finished(store, state)
    done = store.upsert_task(a_request(title="Edited", updated_at=LATER), name="gh-12", now=LATER)
    assert (done.change, done.task.state) == (TaskChange.REFRESHED, state)
    older = store.upsert_task(a_request(event_id=99), name="gh-12", now=LATER)
    assert (older.task.state, older.task.trigger_event_id) == (state, task.trigger_event_id)
    assert reports(store) == []


@pytest.mark.parametrize(
    "state", [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.BLOCKED]
)
def test_a_newer_trigger_starts_a_finished_or_blocked_task_over_and_keeps_its_history(store, state):
    before = finished(store, state)
    store.record_comment(before.task_id, 5_000_000_000)
    store.record_pull(before.task_id, 3, "https://github.com/acme/widgets/pull/3")
    done = store.upsert_task(a_request(event_id=101, body="Try harder."), name="gh-12", now=LATER)
    task = done.task
    assert (done.change, task.task_id, task.state) == (TaskChange.REOPENED, before.task_id, TaskState.QUEUED)
    assert (task.attempts, task.cause, task.wake_at, task.last_failure_class) == (0, None, None, None)
    assert (task.snapshot_body, task.trigger_event_id) == ("Try harder.", 101)
    assert (task.runs, task.token, task.comment_id, task.pr_number) == (1, 1, 5_000_000_000, 3)
    assert reports(store) == [(task.task_id, "report")]
    assert len(store.runs_of(task.task_id)) == 1


def test_a_newer_trigger_gives_a_waiting_task_its_text_without_starting_it_over(store):
    task = finished(store, TaskState.RETRY_WAIT)
    done = store.upsert_task(a_request(event_id=101, body="Newer text"), name="gh-12", now=LATER)
    assert (done.change, done.task.state, done.task.attempts) == (
        TaskChange.REFRESHED,
        TaskState.RETRY_WAIT,
        1,
    )
    assert (done.task.snapshot_body, done.task.trigger_event_id) == ("Newer text", 101)
    assert done.task.task_id == task.task_id


def test_a_newer_trigger_during_a_run_counts_when_the_run_has_ended(store):
    task = queue(store)
    _, run = start(store, task.task_id)
    during = store.upsert_task(a_request(event_id=101, body="Newer text"), name="gh-12", now=LATER)
    assert (during.change, during.task.snapshot_body) == (TaskChange.UNCHANGED, "Please mend it.")
    assert end(store, run)
    after = store.upsert_task(a_request(event_id=101, body="Newer text"), name="gh-12", now=LATER)
    assert (after.change, after.task.state) == (TaskChange.REOPENED, TaskState.QUEUED)


def test_a_refused_issue_is_blocked_with_the_reason_and_without_its_text(store):
    task = store.record_refusal(a_refusal(), name="gh-12", now=NOW).task
    assert (task.state, task.cause, task.wake_at) == (
        TaskState.BLOCKED,
        "refused: mallory may not write",
        None,
    )
    assert (task.snapshot_title, task.snapshot_body) == ("", "")
    assert store.due_outbox(LATER, 10) == []
    assert [event.kind for event in store.events_for(task.task_id, 10)] == ["refused"]


def test_a_refusal_repeated_is_written_once_and_a_new_reason_replaces_the_old(store):
    store.record_refusal(a_refusal(), name="gh-12", now=NOW)
    store.record_refusal(a_refusal(), name="gh-12", now=LATER)
    task = store.record_refusal(a_refusal(reason="the issue is locked"), name="gh-12", now=LATER).task
    assert task.cause == "refused: the issue is locked"
    assert len(store.events_for(task.task_id, 10)) == 2


def test_a_refused_issue_is_opened_by_whatever_is_admitted_later(store):
    # The same label event: its actor has been given write permission meanwhile.
    store.record_refusal(a_refusal(event_id=100), name="gh-12", now=NOW)
    done = store.upsert_task(a_request(event_id=100), name="gh-12", now=LATER)
    assert (done.change, done.task.state) == (TaskChange.REOPENED, TaskState.QUEUED)
    assert done.task.snapshot_body == "Please mend it."


@pytest.mark.parametrize(
    "state", [TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.RETRY_WAIT, TaskState.BLOCKED]
)
def test_a_refusal_never_touches_the_state_of_an_admitted_task(store, state):
    task = queue(store)
    _, run = start(store, task.task_id)
    if state is not TaskState.RUNNING:
        end(store, run, a_settlement(state, cause="over budget"))
    before = store.get_task(task.task_id)
    after = store.record_refusal(a_refusal(event_id=300), name="gh-12", now=LATER).task
    assert (after.state, after.cause, after.trigger_event_id) == (before.state, before.cause, 100)


def test_known_issues_are_found_by_repository_and_number(store):
    queue(store, 1)
    queue(store, 2)
    queue(store, 2, repo_id=5, repo="acme/other")
    assert {n: t.name for n, t in store.tasks_for_issues(REPO_ID, [1, 2, 3]).items()} == {
        1: "gh-1",
        2: "gh-2",
    }
    assert store.tasks_for_issues(REPO_ID, []) == {}
    assert [task.repo for task in store.find_task(None, 2)] == ["acme/widgets", "acme/other"]
    assert [task.repo for task in store.find_task("Acme/Other", 2)] == ["acme/other"]


def test_open_tasks_leave_out_the_finished_ones(store):
    finished(store, number=1)
    queue(store, 2)
    store.record_refusal(a_refusal(3), name="gh-3", now=NOW)
    queue(store, 4, repo_id=5)
    assert [task.issue_number for task in store.open_tasks(REPO_ID)] == [2, 3]


def test_absence_from_a_listing_marks_finished_tasks_and_asks_about_open_ones(store):
    done = finished(store, number=1)
    queue(store, 2)
    queue(store, 3)
    queue(store, 4, repo_id=5)
    assert [task.issue_number for task in store.mark_unlisted(REPO_ID, [3], LATER)] == [2]
    assert store.get_task(done.task_id).listed is False
    # Nothing is believed until the caller has asked for issue 2 itself: the next listing asks again.
    assert [task.issue_number for task in store.mark_unlisted(REPO_ID, {3}, LATER)] == [2]


def test_an_issue_listed_again_is_marked_so(store):
    done = finished(store)
    store.mark_unlisted(REPO_ID, [], LATER)
    again = store.upsert_task(a_request(), name="gh-12", now=LATER)
    assert (again.change, again.task.listed) == (TaskChange.REFRESHED, True)
    assert again.task.state is done.state


def test_a_task_moves_only_from_the_state_it_is_expected_in(store):
    task = queue(store)
    values = {"cause": "no route", "wake_at": LATER, "now": NOW, "outbox": ("report",)}
    assert store.transition(task.task_id, expected=TaskState.QUEUED, state=TaskState.BLOCKED, **values)
    assert not store.transition(task.task_id, expected=TaskState.QUEUED, state=TaskState.CANCELLED, **values)
    parked = store.get_task(task.task_id)
    assert (parked.state, parked.cause, parked.wake_at) == (TaskState.BLOCKED, "no route", LATER)
    item = store.due_outbox(LATER, 10)[0]
    assert item.version == 2


def test_a_task_that_starts_over_has_all_its_attempts_again(store):
    task = finished(store, TaskState.RETRY_WAIT)
    values = {
        "expected": TaskState.RETRY_WAIT,
        "state": TaskState.QUEUED,
        "cause": None,
        "wake_at": None,
        "now": NOW,
    }
    store.count_crash(task.task_id, NOW)
    assert store.transition(task.task_id, start_over=True, **values)
    fresh = store.get_task(task.task_id)
    assert (fresh.attempts, fresh.lost, fresh.crashes) == (0, 0, 0)
    assert (fresh.runs, fresh.token) == (task.runs, task.token)


def test_lost_runs_and_crashes_are_what_the_settlement_says_and_tokens_add_up(store):
    task = queue(store)
    for lost in (1, 2):
        _, run = start(store, task.task_id)
        assert store.count_crash(task.task_id, NOW) == lost
        settlement = a_settlement(TaskState.QUEUED, attempts=0, lost=lost, crashes=lost)
        assert end(store, run, settlement, usage=some_usage(100))
    again = store.get_task(task.task_id)
    assert (again.lost, again.crashes) == (2, 2)
    assert again.tokens == 2 * some_usage(100).total.total > 0


@pytest.mark.parametrize(
    ("expected", "state"), [(TaskState.RUNNING, TaskState.FAILED), (TaskState.QUEUED, TaskState.RUNNING)]
)
def test_only_a_claim_leads_into_running_and_only_a_finish_out_of_it(store, expected, state):
    task = queue(store)
    with pytest.raises(IllegalTransition):
        store.transition(task.task_id, expected=expected, state=state, cause=None, wake_at=None, now=NOW)


def test_a_parked_task_that_stays_parked_does_not_fill_the_audit_trail(store):
    task = queue(store)
    values = {"state": TaskState.BLOCKED, "cause": "no route", "wake_at": LATER, "now": NOW}
    store.transition(task.task_id, expected=TaskState.QUEUED, **values)
    store.transition(task.task_id, expected=TaskState.BLOCKED, **values)
    assert [event.kind for event in store.events_for(task.task_id, 10)] == ["created", "blocked"]


def test_the_snapshot_holds_what_can_be_acted_upon_in_dispatch_order(store):
    old = queue(store, 1, now=NOW)
    young = queue(store, 2, now=LATER)
    urgent = queue(store, 3, priority=Priority.CRITICAL, now=LATER)
    running = queue(store, 4)
    _, run = start(store, running.task_id)
    retry = finished(store, TaskState.SUCCEEDED, 5)
    due = queue(store, 6)
    values = {"expected": TaskState.QUEUED, "state": TaskState.BLOCKED, "cause": "no key", "now": NOW}
    store.transition(due.task_id, wake_at=NOW, **values)
    asleep = queue(store, 7)
    store.transition(asleep.task_id, wake_at=LATER, **values)
    stuck = queue(store, 8)
    store.transition(stuck.task_id, wake_at=None, **values)

    seen = store.snapshot(now=NOW + timedelta(seconds=1), ready_limit=10, config_version="c1")
    assert [task.task_id for task in seen.ready] == [urgent.task_id, old.task_id, young.task_id]
    assert [(task.task_id, live.run_id) for task, live in seen.running] == [(running.task_id, run.run_id)]
    assert [task.task_id for task in seen.due] == [due.task_id]
    assert (seen.paused, seen.config_version) == (False, "c1")
    assert retry.task_id not in [task.task_id for task in seen.ready]
    assert len(store.snapshot(now=NOW, ready_limit=1, config_version="c1").ready) == 1


def test_text_that_a_database_cannot_hold_is_kept_with_a_mark_and_does_not_look_new_each_time(store):
    task = queue(store, title="half a pair \ud800", body="nul \0 inside", labels=("bu\ud800g",))
    assert (task.title, task.snapshot_body) == ("half a pair ?", "nul \ufffd inside")
    assert task.labels == ("bu\ud800g",)
    again = store.upsert_task(
        a_request(title="half a pair \ud800", body="nul \0 inside", labels=("bu\ud800g",)),
        name="gh-12",
        now=NOW,
    )
    assert again.change is TaskChange.UNCHANGED


def test_a_time_without_a_zone_is_refused_and_any_zone_comes_back_as_utc(store):
    with pytest.raises(StatementError, match="aware times only"):
        store.upsert_task(a_request(), name="gh-12", now=datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test
    other_zone = datetime.fromisoformat("2026-11-20T14:00:00.123456+02:00")
    task = queue(store, now=other_zone)
    assert task.created_at == other_zone
    assert task.created_at.utcoffset() == timedelta(0)


def test_counts_and_lists_for_people_cover_every_state(store):
    finished(store, TaskState.FAILED, 1)
    finished(store, TaskState.FAILED, 2)
    queue(store, 3)
    counts = store.counts_by_state()
    assert set(counts) == set(TaskState)
    assert (counts[TaskState.FAILED], counts[TaskState.QUEUED], counts[TaskState.RUNNING]) == (2, 1, 0)
    assert [task.issue_number for task in store.tasks()] == [3, 2, 1]
    assert [task.issue_number for task in store.tasks([TaskState.FAILED], limit=1)] == [2]


def test_no_wait_lasts_longer_because_the_clock_was_set_back(store):
    """Neither for the next attempt, nor until the target that failed may be asked again."""
    task = queue(store)
    _, run = start(store, task.task_id)
    failed = FailedTarget(provider="claude-cli", model="m", why="overloaded", until=LATER)
    waits = a_settlement(TaskState.RETRY_WAIT, wake_at=LATER, failed_on=(failed,))
    assert end(store, run, waits, outcome=FAILED)
    hour = timedelta(hours=1)
    store.clock_was_set_back(-hour)
    waiting = store.get_task(task.task_id)
    assert (waiting.wake_at, waiting.failed_on[0].until) == (LATER - hour, LATER - hour)
