"""What ends the work on an issue: it is closed, or its label comes off. Opening it again starts nothing."""

from __future__ import annotations

from world import LABEL, MAINTAINER, REPO, WAIT, WRITE, Result, World


def test_an_issue_that_is_closed_while_it_runs_stops_its_whole_process_tree(world: World) -> None:
    number = world.issue("[[agent: grandchild]]", WAIT)
    world.start()
    world.until_working(number)
    world.server.close_issue(REPO, number, actor=MAINTAINER)
    world.until_state(number, "cancelled")
    world.until_quiet()

    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    assert "the issue was closed" in world.comment(number)
    assert world.starts(number) == 1


def test_a_label_removed_from_a_queued_issue_cancels_it_and_no_other(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    queued = world.issue(WRITE)
    world.until_state(queued, "queued")
    world.server.remove_label(REPO, queued, LABEL, actor=MAINTAINER)
    world.until_state(queued, "cancelled")

    assert world.result(queued) == Result(state="cancelled", outcomes=(), attempts=0, label="cancelled")
    assert f"the label {LABEL} was removed" in world.comment(queued)
    assert world.result(running) == Result(state="running", outcomes=("running",), label="running")


def test_a_closed_and_reopened_issue_stays_cancelled_until_it_is_labelled_again(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.server.close_issue(REPO, number, actor=MAINTAINER)
    world.until_state(number, "cancelled")
    world.github_clock.advance(2)
    world.server.edit_issue(REPO, number, body=WRITE)
    world.server.reopen_issue(REPO, number, actor=MAINTAINER)
    world.until_polls(4)
    assert len(world.runs(number)) == 1

    world.relabel(number)
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(
        state="succeeded", outcomes=("cancelled", "succeeded"), pulls=1, label="done"
    )
