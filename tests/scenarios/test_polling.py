"""Listings that fail or lie, and repositories that break: nothing is concluded from them."""

from __future__ import annotations

from typing import Any

import pytest
from world import LABEL, LISTS, REPO, WAIT, WRITE, Result, World

from coordinator.demo.server import Fault, FaultKind

RUNNING = Result(state="running", outcomes=("running",), label="running")
QUEUED = Result(state="queued", outcomes=(), attempts=0, label="queued")
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


NO = "GitHub says no"
NONSENSE = "the answer is nonsense"
NOTHING = "there is no answer"
DAMAGES: dict[str, list[dict[str, Any]]] = {
    NO: [
        {"status": 301, "headers": {"Location": "/nowhere"}},
        {"status": 304},
        {"status": 403},
        {"status": 403, "headers": {"Retry-After": "1"}},
        {"status": 404},
        {"status": 410},
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 500},
        {"status": 503},
    ],
    NONSENSE: [
        {"status": 200, "body": b"[]"},
        {"status": 200, "body": b"{}"},
        {"status": 200, "body": b'[{"number": 1}]'},
        {"kind": FaultKind.TRUNCATED_JSON},
        {"kind": FaultKind.HTML_200},
    ],
    NOTHING: [
        {"kind": FaultKind.DISCONNECT},
        {"kind": FaultKind.TIMEOUT, "seconds": 60.0},
    ],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_listings_cancel_claim_and_double_nothing(a_world, kind: str) -> None:
    """One damage after another, each for two polls; in between one sound listing that shows a new issue."""
    world: World = a_world(coordinator={"max_concurrent_workers": 1}, github={"request_timeout_seconds": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    queued = [world.issue(WRITE)]
    world.until_state(queued[0], "queued")
    for damage in DAMAGES[kind]:
        fault = world.server.faults.add(Fault(match=LISTS, times=None, **damage))
        unseen = world.issue(WRITE)
        world.until_hit(fault, 2)
        assert world.task(unseen) is None, damage
        world.server.faults.clear()
        world.server.release()
        world.until_state(unseen, "queued")
        queued.append(unseen)

        assert world.result(running) == RUNNING, damage
        assert [world.result(number) for number in queued] == [QUEUED] * len(queued), damage
    assert [world.starts(number) for number in [running, *queued]] == [1] + [0] * len(queued)


def test_an_issue_missing_from_the_list_is_not_cancelled_while_github_cannot_confirm_it(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.faults.add(Fault(match=LISTS, status=200, body=b"[]", times=None))
    unsure = world.server.faults.add(Fault(match=f"{LISTS}/{number}", status=500, times=None))
    world.until_hit(unsure, 2)

    assert world.result(number) == RUNNING


def test_a_deleted_issue_ends_its_run(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.delete_issue(REPO, number)
    world.until(lambda: world.task(number).state == "cancelled", "it is cancelled")  # type: ignore[union-attr]
    world.until_quiet()

    assert [run.outcome for run in world.runs(number)] == ["cancelled"]


def test_a_renamed_repository_goes_on_under_its_new_name(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.rename_repo(REPO, "octo/renamed")
    later = world.server.add_issue("octo/renamed", title="Later", body=WRITE, author="ada", labels=[LABEL])
    world.until_state(later, "succeeded")

    assert world.task(number).state == "running"  # type: ignore[union-attr]
    assert world.starts(number) == 1
    assert len([pull for pull in world.server.pulls("octo/renamed") if pull.head == f"auto/gh-{later}"]) == 1


@pytest.mark.parametrize("status", [401, 404, 410, 500])
def test_a_broken_repository_does_not_stop_another(a_world, status: int) -> None:
    world: World = a_world(repositories=[{"owner": "octo", "name": "broken"}])
    world.add_repo("octo/broken")
    fault = world.server.faults.add(Fault(match="* /repos/octo/broken*", status=status, times=None))
    waiting = world.issue(WRITE, repo="octo/broken")
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until_hit(fault, 2)

    assert world.result(number) == DONE
    assert len(world.events("poll failed")) == 1
    world.server.faults.clear()
    world.until_state(waiting, "succeeded", "octo/broken")
    assert world.result(waiting, "octo/broken") == DONE


def test_a_repository_whose_git_server_is_gone_fails_alone(a_world) -> None:
    world: World = a_world(
        repositories=[{"owner": "octo", "name": "broken", "remote_url": "/nowhere/at/all.git"}],
        coordinator={"max_attempts": 2},
    )
    world.add_repo("octo/broken")
    broken = world.issue(WRITE, repo="octo/broken")
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until_state(broken, "failed", "octo/broken")

    assert world.result(number) == DONE
    assert world.result(broken, "octo/broken") == Result(
        state="failed", outcomes=("failed", "failed"), attempts=2, label="failed"
    )
    assert {run.failure_class for run in world.runs(broken, "octo/broken")} == {"workspace"}


def test_issues_seen_in_one_poll_start_in_the_order_of_their_numbers(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    numbers = [world.issue("[[agent: no-op]]") for _ in range(5)]
    for _ in range(200):  # four pages of history: who labelled the first one is known last
        world.server.add_label(REPO, numbers[0], "seen", actor="ada")
        world.server.remove_label(REPO, numbers[0], "seen", actor="ada")
    world.start()
    for number in numbers:
        world.until_state(number, "failed")

    in_order_of_start = sorted(numbers, key=lambda number: world.runs(number)[0].run_id)
    assert in_order_of_start == numbers


def test_a_listing_older_than_the_label_starts_the_text_that_the_label_approved(world: World) -> None:
    number = world.issue("[[agent: no-op]]")
    late = world.server.faults.add(Fault(match=LISTS, kind=FaultKind.LATE, seconds=60))
    world.start()
    world.until_hit(late)
    world.server.edit_issue(REPO, number, body=WRITE)
    world.relabel(number)
    world.server.release()
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
