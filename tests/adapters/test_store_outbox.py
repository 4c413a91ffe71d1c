"""The outbox: nothing is forgotten, newer news replaces older, and a late "done" hides nothing."""

from datetime import timedelta

import pytest
from store_samples import LATER, NOW, Because, a_request, a_settlement, drain, end, queue, start

from adw_modules.tasks.model import TaskState


def due(store, now=LATER):
    return [(item.task_id, item.kind) for item in store.due_outbox(now, 100)]


def test_a_report_is_pending_once_however_often_the_task_moves(store):
    task = queue(store)
    start(store, task.task_id)
    (item,) = store.due_outbox(LATER, 10)
    assert (item.task_id, item.kind, item.version, item.tries) == (task.task_id, "report", 2, 0)


def test_a_report_sent_while_newer_news_came_is_sent_again(store):
    task = queue(store)
    (sending,) = store.due_outbox(LATER, 10)
    start(store, task.task_id)
    assert not store.outbox_done(sending.item_id, sending.version)
    (again,) = store.due_outbox(LATER, 10)
    assert store.outbox_done(again.item_id, again.version)
    assert store.due_outbox(LATER, 10) == []
    assert not store.outbox_done(again.item_id, again.version)


def test_a_done_of_an_earlier_life_cannot_hide_the_news_of_a_later_one(store):
    task = queue(store)
    (first,) = store.due_outbox(LATER, 10)
    assert store.outbox_done(first.item_id, first.version)
    start(store, task.task_id)
    assert not store.outbox_done(first.item_id, first.version)
    assert due(store) == [(task.task_id, "report")]


def test_pull_requests_go_before_reports_and_each_kind_by_age(store):
    young, old = queue(store, 1, now=NOW + timedelta(seconds=1)), queue(store, 2, now=NOW)
    ended_at = NOW + timedelta(minutes=1)
    for task in (old, young):
        _, run = start(store, task.task_id)
        end(store, run, a_settlement(outbox=("report", "pull_request")), now=ended_at)
        ended_at += timedelta(seconds=1)
    expected = [(task.task_id, kind) for kind in ("pull_request", "report") for task in (old, young)]
    assert due(store) == expected
    assert [(item.task_id, item.kind) for item in store.due_outbox(LATER, 1)] == expected[:1]


def test_a_failed_item_waits_and_newer_news_does_not_jump_its_back_off(store):
    task = queue(store)
    (item,) = store.due_outbox(LATER, 10)
    wait = LATER + timedelta(minutes=5)
    store.outbox_retry(item.item_id, not_before=wait, error="503 from GitHub")
    start(store, task.task_id)
    assert due(store) == []
    assert store.next_outbox_at() == wait
    (again,) = store.due_outbox(wait, 10)
    assert (again.tries, again.version, again.error) == (1, 2, "503 from GitHub")


def test_a_failing_pull_request_does_not_hold_up_the_report(store):
    _, run = start(store, queue(store).task_id)
    end(store, run, a_settlement(outbox=("pull_request", "report")))
    pull_request, _ = store.due_outbox(LATER, 10)
    store.outbox_retry(pull_request.item_id, not_before=LATER + timedelta(hours=1), error="422")
    assert [kind for _, kind in due(store)] == ["report"]


def test_what_github_refuses_for_good_is_listed_until_newer_news_gives_it_a_new_start(store):
    task = queue(store)
    (item,) = store.due_outbox(LATER, 10)
    store.outbox_retry(item.item_id, not_before=LATER, error="503")
    assert store.outbox_dead(item.item_id, "issue is locked", version=item.version)
    assert (due(store), store.next_outbox_at()) == ([], None)
    assert [(dead.item_id, dead.error) for dead in store.dead_outbox()] == [(item.item_id, "issue is locked")]
    start(store, task.task_id, now=NOW)
    (again,) = store.due_outbox(NOW, 10)
    assert (again.tries, again.error, store.dead_outbox()) == (0, None, [])


def test_giving_up_on_an_old_version_leaves_newer_news_pending(store):
    task = queue(store)
    (item,) = store.due_outbox(LATER, 10)
    start(store, task.task_id)
    assert not store.outbox_dead(item.item_id, "gone", version=item.version)
    assert due(store) == [(task.task_id, "report")]
    assert store.outbox_dead(item.item_id, "gone")


def test_nothing_is_due_before_its_time_and_the_next_time_is_known(store):
    assert store.next_outbox_at() is None
    queue(store, now=LATER)
    assert due(store, NOW) == []
    assert store.next_outbox_at() == LATER


def test_an_unknown_kind_is_refused_and_takes_its_transition_with_it(store):
    task = queue(store)
    with pytest.raises(ValueError, match="telegram"):
        store.transition(
            task.task_id,
            expected=TaskState.QUEUED,
            state=TaskState.CANCELLED,
            cause=None,
            wake_at=None,
            now=NOW,
            outbox=("telegram",),
        )
    assert store.get_task(task.task_id).state is TaskState.QUEUED


def test_comment_and_pull_request_are_remembered(store):
    task = queue(store)
    store.record_comment(task.task_id, 3_000_000_000)
    store.record_pull(task.task_id, 7, "https://github.com/acme/widgets/pull/7")
    after = store.get_task(task.task_id)
    assert (after.comment_id, after.pr_number, after.pr_url) == (
        3_000_000_000,
        7,
        "https://github.com/acme/widgets/pull/7",
    )


def test_news_that_may_wait_is_put_off_and_goes_out_with_the_result(store):
    soon = NOW + timedelta(seconds=2)
    done = store.upsert_task(a_request(12), name="gh-12", now=NOW, report_at=soon)
    assert due(store, NOW) == []
    assert store.next_outbox_at() == soon
    claimed = store.claim(
        done.task.task_id,
        decision=Because(),
        config_version="abc123",
        run_dir_of=lambda task, token: f"/state/runs/{task.name}.{token}",
        now=NOW,
        report_at=soon + timedelta(seconds=1),
    )
    assert claimed is not None
    assert store.next_outbox_at() == soon  # the earlier of the two promises holds
    _, run = claimed
    assert end(store, run, now=NOW + timedelta(seconds=1))
    assert (done.task.task_id, "report") in due(store, NOW + timedelta(seconds=1))


def test_a_report_that_failed_keeps_its_back_off_whatever_the_news(store):
    task = queue(store)
    (item,) = store.due_outbox(NOW, 1)
    store.outbox_retry(item.item_id, not_before=LATER, error="no answer")
    start(store, task.task_id, now=NOW)
    assert due(store, NOW) == []
    assert store.next_outbox_at() == LATER


def test_what_was_put_off_and_never_tried_can_be_left_out_of_what_is_due_next(store):
    task = queue(store)
    drain(store)
    far = LATER + timedelta(minutes=5)
    moved = {"expected": TaskState.QUEUED, "state": TaskState.BLOCKED, "cause": "waits", "wake_at": far}
    assert store.transition(task.task_id, **moved, now=LATER, outbox=("report",), report_at=far)
    assert store.next_outbox_at() == far
    assert store.next_outbox_at(put_off_beyond=LATER) is None
    assert store.next_outbox_at(put_off_beyond=far) == far
    (item,) = store.due_outbox(far, 10)
    store.outbox_retry(item.item_id, not_before=far + timedelta(hours=1), error="no answer")
    assert store.next_outbox_at(put_off_beyond=LATER) == far + timedelta(hours=1), (
        "GitHub was asked and failed"
    )
