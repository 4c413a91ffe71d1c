"""Rule 21: whatever happens to the answer to a write, it has its effect once: one comment, one label, one
pull request, one branch.

Being killed between any two steps is the matter of tests/crash/test_every_step.py; what GitHub's odd answers
do to the client of tests/adapters/test_github_faults.py. Here all writes of a publication meet the same harm.
"""

from __future__ import annotations

import signal

import pytest
from world import MAINTAINER, REPO, WRITE, Fault, Result, World

from coordinator.demo.server import FaultKind
from coordinator.faultpoints import VARIABLE, Point

DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
NEW_NAME = "octo/renamed"
WRITES = {
    "comment": "POST */issues/*/comments",
    "label": "POST */issues/*/labels",
    "pull request": "POST */pulls",
}


def over_http(world: World) -> None:
    """Git as with GitHub, so that the server sees the push."""
    world.write_config(github={"remote_url": f"{world.server.api_url}/git/{{owner}}/{{name}}.git"})


def published(world: World, number: int, faults: list[Fault]) -> None:
    """Until all harm is done and everything has been written all the same."""

    world.until(lambda: world.task(number), "the daemon is up")

    def look() -> bool:
        world.advance(20)  # what is tried again later is due
        task = world.task(number)
        is_over = task is not None and task.state == "succeeded" and world.is_published()
        return is_over and all(world.server.faults.hits(fault) for fault in faults)

    world.until(look, "it is published")


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param({"kind": FaultKind.AFTER_COMMIT, "status": 502}, id="502 after commit"),
        pytest.param({"kind": FaultKind.AFTER_COMMIT, "status": 0}, id="reset after commit"),
        pytest.param({"kind": FaultKind.LATE, "seconds": 1.6}, id="time-out after commit"),
    ],
)
def test_an_answer_that_is_lost_after_the_write_doubles_nothing(a_world, harm: dict) -> None:
    world: World = a_world(github={"request_timeout_seconds": 1})
    faults = [world.server.faults.add(Fault(match=match, **harm)) for match in WRITES.values()]
    number = world.issue(WRITE)
    world.start()
    published(world, number, faults)

    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_a_push_whose_answer_is_lost_is_found_done(world: World) -> None:
    """The server takes the commits and its answer never arrives."""
    over_http(world)
    lost = world.server.faults.add(
        Fault(match="GET /repos/octo/hello/pulls", kind=FaultKind.DISCONNECT, times=1)
    )
    hook = world.folder / "github" / "octo" / "hello.git" / "hooks" / "post-receive"
    marker = world.folder / "answer-was-lost"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n[ -e {marker} ] || {{ touch {marker}; kill -9 $PPID; }}\n")
    hook.chmod(0o755)
    number = world.issue(WRITE)
    world.start()
    published(world, number, [lost])

    assert marker.exists()
    world.server.failures.clear()  # git's, which we have killed
    assert world.result(number) == DONE
    events = [each for each in world.store.decisions_of(1, 9) if each.record.reason == "pushed"]
    assert len({each.record.details["head"] for each in events}) == 1


def test_a_repository_that_is_renamed_meanwhile_gets_each_write_once_under_its_new_name(world: World) -> None:
    """Writes to the old name are answered 307, which carries nothing out."""
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_state(number, "running")
    world.server.rename_repo(REPO, NEW_NAME)
    world.open_gate()
    published(world, number, [])

    assert world.task(number).state == "succeeded"
    assert len(world.comments(number, NEW_NAME)) == 1
    assert len(world.server.pulls(NEW_NAME)) == 1


def test_a_label_event_that_is_seen_twice_is_one_task_and_one_of_everything(world: World) -> None:
    """As a webhook that is delivered again, a poll beside it and a restarted daemon see it."""
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.stop()
    world.start()
    world.until_polls(3)
    world.server.add_comment(REPO, number, "Thank you", author=MAINTAINER)
    world.until_polls(3)

    assert world.result(number) == DONE
    assert world.starts(number) == 1


@pytest.mark.parametrize("point", [Point.PUSHED, Point.PULL_CREATED, Point.COMMENT_WRITTEN])
def test_a_daemon_that_is_killed_right_after_a_write_doubles_nothing(world: World, point: Point) -> None:
    number = world.issue(WRITE)
    world.environ[VARIABLE] = point
    world.start_process()
    world.until(lambda: world.process.poll() is not None, "it has died at the fault point")
    assert world.process.returncode == -signal.SIGKILL
    world.process = None
    del world.environ[VARIABLE]
    world.start()
    world.until_state(number, "succeeded")

    assert (len(world.comments(number)), len(world.pulls(number)), world.label(number)) == (1, 1, "done")
    assert world.starts(number) == 1
