"""Rule 6: right before anything is pushed, rights and label are looked at again; before a retry, rights.

Where they are gone nothing leaves, the task is parked with its work, and the comment says so. A server that
fails or limits has said nothing: it is asked again, and nothing is pushed meanwhile.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from world import LABEL, MAINTAINER, REPO, WRITE, Fault, Result, World

from coordinator.faultpoints import VARIABLE, Point

PERMISSION = f"GET */collaborators/{MAINTAINER}/permission"
FAIL_ONCE = "[[agent: fail-once]]"


def working(world: World) -> int:
    """An issue whose agent works until the gate is opened."""
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    return number


def revoked(world: World) -> None:
    world.server.set_permission(REPO, MAINTAINER, "read")


def deleted(world: World) -> None:
    world.server.faults.add(Fault(match=PERMISSION, status=404, times=None))


def taken_over(world: World) -> None:
    world.server.rename_user(MAINTAINER, "ada-who-left")
    world.server.add_user(MAINTAINER)
    world.server.set_permission(REPO, MAINTAINER, "admin")


def untold(world: World) -> None:
    world.server.faults.add(Fault(match=PERMISSION, status=403, times=None))


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (revoked, "no write access"),
        (deleted, "no write access"),
        (taken_over, "another account"),
        (untold, "403"),
    ],
)
def test_who_has_lost_the_right_meanwhile_has_nothing_pushed(
    world: World, attack: Callable[[World], None], why: str
) -> None:
    number = working(world)
    attack(world)
    world.open_gate()
    world.until_state(number, "blocked")

    assert_nothing_left(world, number)
    assert why in world.task(number).cause
    assert "nothing was pushed" in world.comment(number)
    assert [each.record.decision for each in world.store.decisions_of(1, 9)] == ["admitted", "revoked"]


def assert_nothing_left(world: World, number: int) -> None:
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None
    assert world.pulls(number) == []
    (tree,) = world.folder.glob("**/gh-*/work.txt")
    assert tree.read_text() == "done"


def test_whoever_may_start_work_has_it_published_by_putting_the_label_on_again(world: World) -> None:
    number = working(world)
    revoked(world)
    world.open_gate()
    world.until_state(number, "blocked")
    world.server.set_permission(REPO, "grace", "admin")
    world.relabel(number, by="grace")
    world.until_state(number, "succeeded")

    assert len(world.pulls(number)) == 1
    assert world.store.decisions_of(1, 9)[-1].record.standing.actor.login == "grace"


@pytest.mark.parametrize(
    ("undo", "why"),
    [
        (lambda world, number: world.server.remove_label(REPO, number, LABEL, actor=MAINTAINER), LABEL),
        (lambda world, number: world.server.close_issue(REPO, number, actor=MAINTAINER), "closed"),
        (lambda world, number: world.server.delete_issue(REPO, number), "gone"),
    ],
)
def test_what_is_not_asked_for_any_more_in_the_last_moment_is_not_pushed(
    world: World, undo: Callable[[World, int], None], why: str
) -> None:
    """No poll tells of it: the answer to the one before the push does."""
    number = working(world)
    world.server.faults.add(Fault(match="GET /repos/octo/hello/issues", status=502, times=None))
    world.until_logged("poll failed")
    undo(world, number)
    world.open_gate()
    world.until(lambda: (task := world.task(number)) and task.state == "blocked", "it is parked")

    assert_nothing_left(world, number)
    assert why in world.task(number).cause


def test_nothing_is_pushed_to_a_repository_that_was_opened_to_everybody_meanwhile(world: World) -> None:
    number = working(world)
    world.server.set_visibility(REPO, private=False)
    world.open_gate()
    world.until_state(number, "blocked")

    assert_nothing_left(world, number)
    assert "is public" in world.comment(number)


@pytest.mark.parametrize(
    "damage", [{"status": 500}, {"status": 429, "headers": {"Retry-After": "2"}}, {"kind": "disconnect"}]
)
@pytest.mark.parametrize("match", [PERMISSION, "GET /repos/octo/hello/issues/?"])
def test_a_server_that_fails_decides_nothing_and_it_is_pushed_once_it_has_answered(
    world: World, damage: dict, match: str
) -> None:
    number = working(world)
    fault = world.server.faults.add(Fault(match=match, **damage))
    world.open_gate()
    world.until_hit(fault)
    world.until_logged("will publish later", item="pull_request")
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None
    world.advance(20)
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    assert len(world.server.requests_matching("POST /repos/octo/hello/pulls")) == 1


def test_an_issue_that_is_not_found_just_once_is_no_reason(world: World) -> None:
    number = working(world)
    missed = world.server.faults.add(Fault(match=f"GET /repos/octo/hello/issues/{number}", status=404))
    world.open_gate()
    world.until_hit(missed)
    world.until_logged("will publish later", item="pull_request")
    world.advance(20)
    world.until_state(number, "succeeded")

    assert len(world.pulls(number)) == 1


def test_what_was_allowed_before_a_kill_is_asked_for_again_after_it(world: World) -> None:
    """The look is nowhere but in memory, so that no later daemon can push because of an old one."""
    number = world.issue(WRITE)
    world.environ[VARIABLE] = Point.RECHECKED
    world.start_process()
    world.until(lambda: world.process.poll() is not None, "it has died at the fault point")
    assert world.process.returncode == -signal.SIGKILL
    world.process = None
    del world.environ[VARIABLE]
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None
    revoked(world)
    world.start()
    world.until_state(number, "blocked")

    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None
    assert world.pulls(number) == []


def test_no_retry_starts_for_somebody_who_has_lost_the_right(a_world) -> None:
    world: World = a_world(retries={"base_delay_seconds": 3600, "max_delay_seconds": 3600})
    number = world.issue(FAIL_ONCE, WRITE)
    world.start()
    world.until_state(number, "retry_wait")
    revoked(world)
    world.advance(3700)
    world.until_state(number, "blocked")

    assert world.starts(number) == 1
    assert "not started again" in world.comment(number)
    world.cli("retry", str(number))
    world.until(lambda: len(world.events("revoked")) == 2, "it was looked at again")
    assert world.starts(number) == 1
    world.server.set_permission(REPO, MAINTAINER, "write")
    world.cli("retry", str(number))
    world.until(lambda: world.starts(number) == 2, "it is started")


def test_a_retry_waits_for_a_server_that_fails_and_holds_nobody_else_up(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    world.server.set_permission(REPO, "grace", "write")
    fault = world.server.faults.add(Fault(match=PERMISSION, status=502, skip=1, times=1))
    number = world.issue(FAIL_ONCE, WRITE)
    world.start()
    world.until_hit(fault)
    world.until(lambda: world.task(number).state == "blocked", "it waits")
    other = world.issue(WRITE, by="grace")
    world.until_state(other, "succeeded")
    assert world.starts(number) == 1
    world.advance(20)
    world.until_state(number, "succeeded")

    assert world.starts(number) == 2


def test_a_first_start_asks_for_no_right_beyond_admission(world: World) -> None:
    working(world)

    assert len(world.server.requests_matching(PERMISSION)) == 1


def test_the_record_says_what_was_pushed_for_whom_and_with_whose_token(world: World) -> None:
    number = world.issue(WRITE)
    base = world.server.branch_sha(REPO, "main")
    world.start()
    world.until_state(number, "succeeded")
    pushed = world.store.decisions_of(1, 9)[-1].record

    assert (pushed.decision, pushed.reason) == ("rechecked", "pushed")
    assert pushed.details == {
        "base": base,
        "head": world.server.branch_sha(REPO, f"auto/gh-{number}"),
        "token": "token",
    }
    assert (pushed.standing.actor.login, pushed.standing.role) == (MAINTAINER, "write")
    assert pushed.event_id == world.task(number).trigger_event_id
