"""What broke other programs of this kind when they were run, one test a failure."""

from __future__ import annotations

import signal

from world import REPO, WAIT, WRITE, Result, World


def test_one_busy_issue_over_many_polls_starts_once(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.until_polls(6)

    assert world.result(number) == Result(state="running", outcomes=("running",), label="running")
    assert world.starts(number) == 1
    assert len(world.live()) == 1


def test_a_finished_worker_never_stops_other_tasks(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 2})
    busy = world.issue(WAIT)
    world.start()
    world.until_working(busy)
    ends = {
        world.issue("[[agent: fail]]"): "failed",
        world.issue(WRITE): "succeeded",
        world.issue("[[agent: no-op]]"): "failed",
        world.issue("[[agent: write docs/last.md]]"): "succeeded",
    }
    for number, state in ends.items():
        world.until_state(number, state)

    assert world.result(busy) == Result(state="running", outcomes=("running",), label="running")
    assert len(world.server.pulls(REPO)) == 2


def test_polling_goes_on_while_workers_run(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    busy = world.issue(WAIT)
    world.start()
    world.until_working(busy)
    world.until_polls(5)
    seen_meanwhile = world.issue(WRITE)
    world.until_state(seen_meanwhile, "queued")

    assert world.result(busy) == Result(state="running", outcomes=("running",), label="running")


def test_an_agent_that_exits_with_7_at_once_is_started_a_bounded_number_of_times(world: World) -> None:
    number = world.issue("[[agent: exit 7]]")
    world.start()
    world.until_state(number, "failed")
    world.until_polls(5)

    assert world.result(number) == Result(
        state="failed", outcomes=("failed",) * 3, attempts=3, label="failed"
    )
    assert world.starts(number) == 3
    assert [run.exit_code for run in world.runs(number)] == [7, 7, 7]
    assert {run.failure_class for run in world.runs(number)} == {"fast_exit"}
    assert "exited with 7" in world.comment(number)
    assert "(exit 7)" in world.comment(number)
    assert [line["backoff"] for line in world.events("will retry")] == ["0.1 s", "0.1 s"]
    assert all("exited with 7" in line["detail"] for line in world.events("worker finished"))
    assert "exited with 7" in world.events("failed permanently")[0]["cause"]


def test_a_broken_configuration_says_so_once_and_the_run_goes_on(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    world.write_text("[coordinator\npoll_interval_seconds = ")
    world.until_logged("configuration not taken; the last good one stays in force")
    world.until_polls(5)

    assert len(world.events("configuration not taken; the last good one stays in force")) == 1
    assert world.result(number) == Result(state="running", outcomes=("running",), label="running")


def test_a_killed_daemon_with_three_live_and_two_queued_loses_and_doubles_nothing(world: World) -> None:
    world.use_gated_agent()
    live = [world.issue() for _ in range(3)]
    world.start_process()
    for number in live:
        world.until_working(number)
    queued = [world.issue() for _ in range(2)]
    for number in queued:
        world.until_state(number, "queued")
    world.kill()
    assert len(world.live()) == 3

    world.start_process()
    for number in live:
        assert world.until_logged("found a run", task=f"gh-{number}")["found"] == "alive"
    world.open_gate()
    for number in live + queued:
        world.until_state(number, "succeeded")
        assert world.starts(number) == 1
        assert world.result(number) == Result(
            state="succeeded", outcomes=("succeeded",), pulls=1, label="done"
        )
    assert len(world.server.pulls(REPO)) == 5
    assert world.end_process(signal.SIGTERM)[0] == 0
