from __future__ import annotations

import pytest

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


def admit(*, trigger=None, by_app: bool = False, kind: str = "User", permission: str = "write"):
    return intake.admit(an_issue(), trigger, by_app=by_app, actor_kind=kind, permission=permission)


@pytest.mark.parametrize("permission", ["write", "admin"])
def test_a_person_who_may_write_starts_work(permission: str) -> None:
    verdict = admit(trigger=a_trigger(), permission=permission)
    assert isinstance(verdict, TaskRequest)
    assert verdict.trigger == a_trigger()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"trigger": a_trigger(), "permission": "read"}, "no write access (read)"),
        ({"trigger": a_trigger(), "permission": "none"}, "no write access (none)"),
        ({"trigger": a_trigger(), "permission": "superb"}, "no write access (superb)"),
        ({"trigger": a_trigger(), "permission": ""}, "no write access"),
        ({"trigger": None}, "no event shows who applied the label"),
        ({"trigger": a_trigger(actor="")}, "no longer exists"),
        ({"trigger": a_trigger(), "kind": "Bot"}, "is an app"),
        ({"trigger": a_trigger(), "kind": "Organization"}, "is an app"),
        ({"trigger": a_trigger(), "by_app": True}, "is an app"),
    ],
)
def test_everything_else_is_refused_with_the_reason(case: dict, reason: str) -> None:
    verdict = admit(**case)
    assert isinstance(verdict, Refused)
    assert reason in verdict.reason


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
