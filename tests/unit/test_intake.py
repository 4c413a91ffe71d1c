from __future__ import annotations

import pytest

from adw_modules.security.admission import Actor, Edit, IssueText, Policy, Standing, fingerprint
from adw_modules.tasks import intake
from adw_modules.tasks.intake import Sighting
from adw_modules.tasks.model import Priority, Refused, TaskRequest, TaskState
from tests.builders import a_task, a_trigger, an_issue, later


@pytest.mark.parametrize(
    ("labels", "priority"),
    [
        ((), Priority.NORMAL),
        (("bug", "rpi-auto"), Priority.NORMAL),
        (("priority:P0",), Priority.CRITICAL),
        (("priority:P1",), Priority.HIGH),
        (("priority:P2",), Priority.NORMAL),
        (("priority:P3",), Priority.LOW),
        (("Priority: p3",), Priority.LOW),
        (("critical",), Priority.CRITICAL),
        (("HIGH",), Priority.HIGH),
        (("normal",), Priority.NORMAL),
        (("low",), Priority.LOW),
        (("low", "priority:P0"), Priority.CRITICAL),
        (("critical path", "highlight"), Priority.NORMAL),
    ],
)
def test_priority_comes_from_the_most_urgent_label(labels: tuple[str, ...], priority: Priority) -> None:
    assert intake.priority_of(labels) is priority


ADA = Actor(login="ada", user_id=1, kind="User")


def admit(trigger=None, standing: Standing | None = None, **more):
    return intake.admit(
        an_issue(),
        trigger,
        standing=standing or Standing(actor=ADA, permission="write", role="write"),
        policy=Policy(),
        **more,
    )


@pytest.mark.parametrize("permission", ["write", "admin"])
def test_a_person_who_may_write_starts_work(permission: str) -> None:
    verdict = admit(a_trigger(), Standing(actor=ADA, permission=permission))
    assert isinstance(verdict, TaskRequest)
    assert verdict.trigger == a_trigger()


def test_the_refusal_says_who_did_what() -> None:
    assert "no event shows who applied the label" in admit(None).reason
    read = Standing(actor=ADA, permission="read", role="triage")
    assert admit(a_trigger(), read).reason == "the label was applied by ada, who has no write access (triage)"
    created = intake.created_with_label(an_issue())
    assert "the issue was opened with the label by ada" in admit(created, read).reason
    assert isinstance(admit(a_trigger(), read), Refused)


def test_the_text_with_its_edits_is_what_is_admitted_and_not_the_list() -> None:
    edit = Edit(at=later(1), editor=Actor(login="mallory", user_id=9, kind="User"))
    verdict = admit(a_trigger(), text=IssueText(title="New", body="Newer", edits=(edit,)))
    assert isinstance(verdict, Refused)
    assert "by mallory" in verdict.reason
    verdict = admit(a_trigger(), text=IssueText(title="New", body="Newer"))
    assert isinstance(verdict, TaskRequest)
    assert (verdict.issue.title, verdict.issue.body) == ("New", "Newer")


def test_a_new_text_of_an_open_task_is_seen_also_within_the_same_second() -> None:
    task = a_task()
    assert intake.sighting(an_issue(body="New"), task) is Sighting.REFRESH
    assert intake.sighting(an_issue(body="New"), a_task(state=TaskState.BLOCKED)) is Sighting.CHECK_TRIGGER
    assert intake.sighting(an_issue(body="New"), a_task(state=TaskState.SUCCEEDED)) is Sighting.NOTHING
    stale = an_issue(body="Old", updated_at=later(-5))
    assert intake.sighting(stale, task) is Sighting.NOTHING
    seen = a_task(seen_sha=fingerprint(an_issue().title, "New"))
    assert intake.sighting(an_issue(body="New"), seen) is Sighting.NOTHING


def test_a_held_task_looks_for_a_new_label_whatever_its_state() -> None:
    held = a_task(state=TaskState.RUNNING, held="edited")
    assert intake.sighting(an_issue(updated_at=later(1)), held) is Sighting.CHECK_TRIGGER


def test_an_unknown_issue_needs_its_trigger_checked() -> None:
    assert intake.sighting(an_issue(), None) is Sighting.CHECK_TRIGGER


def test_a_queued_task_is_only_refreshed() -> None:
    assert intake.sighting(an_issue(), a_task()) is Sighting.NOTHING
    assert intake.sighting(an_issue(title="New"), a_task()) is Sighting.REFRESH
    assert intake.sighting(an_issue(labels=("rpi-auto", "low")), a_task()) is Sighting.REFRESH


@pytest.mark.parametrize("state", [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED])
def test_a_finished_task_is_looked_at_again_only_when_something_happened(state: TaskState) -> None:
    task = a_task(state=state)
    assert intake.sighting(an_issue(labels=("rpi-auto", "low")), task) is Sighting.NOTHING
    assert intake.sighting(an_issue(updated_at=later(1)), task) is Sighting.CHECK_TRIGGER
    assert intake.sighting(an_issue(), a_task(state=state, listed=False)) is Sighting.CHECK_TRIGGER


def test_a_refused_task_is_checked_again_after_an_update() -> None:
    task = a_task(state=TaskState.BLOCKED, trigger_event_id=intake.NEVER_ADMITTED)
    assert intake.sighting(an_issue(updated_at=later(1)), task) is Sighting.CHECK_TRIGGER
    assert intake.sighting(an_issue(), task) is Sighting.NOTHING


def test_withdrawal_names_what_happened() -> None:
    assert intake.withdrawal(an_issue(), "RPI-auto") is None
    assert intake.withdrawal(an_issue(state="closed"), "rpi-auto") == "the issue was closed"
    assert intake.withdrawal(an_issue(labels=("bug",)), "rpi-auto") == "the label rpi-auto was removed"


def test_a_refusal_is_not_forgotten_when_the_task_is_cancelled() -> None:
    for state in (TaskState.BLOCKED, TaskState.CANCELLED):
        assert intake.is_refused(a_task(state=state, trigger_event_id=intake.NEVER_ADMITTED))
    assert not intake.is_refused(a_task(state=TaskState.CANCELLED))
