"""Nothing waits for the next poll that could be done now; `run --once` ends when there is nothing left."""

from __future__ import annotations

from world import WRITE, Result, World


def test_a_result_is_published_at_once_however_far_away_the_next_poll_is(a_world) -> None:
    world: World = a_world(coordinator={"poll_interval_seconds": 3600})
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")

    assert world.polls() == 1
    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def test_one_round_does_everything_that_can_be_done_now_and_ends(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1, "max_concurrent_workers": 1})
    done, failed, empty = (
        world.issue(WRITE),
        world.issue("[[agent: exit 7]]"),
        world.issue("[[agent: no-op]]"),
    )

    assert world.run_once() == 0
    assert world.result(done) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    assert world.result(failed) == Result(state="failed", outcomes=("failed",), label="failed")
    assert world.result(empty) == Result(state="failed", outcomes=("no_changes",), label="failed")
    assert world.polls() == 1
