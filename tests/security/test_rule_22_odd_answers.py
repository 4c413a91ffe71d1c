"""Rule 22: a 304, an empty, partial or false answer, a redirect or an error neither cancels nor claims."""

from __future__ import annotations

from typing import Any

import pytest
from world import LISTS, WAIT, WRITE, Result, World

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
