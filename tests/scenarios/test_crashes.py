"""The daemon ends at the worst moments; the next one neither loses nor doubles anything."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import REPO, WAIT, WRITE, Result, World

from adw_modules.tasks.model import UsageSource
from coordinator.demo.server import Fault, FaultKind

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
AFTER = {"kind": FaultKind.AFTER_COMMIT, "status": 502, "headers": {"Retry-After": "1"}}
NEVER_ANSWERED = {"kind": FaultKind.TIMEOUT, "seconds": 60.0}


@pytest.fixture
def a_hanging_remote() -> Iterator[str]:
    """The address of a git server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{{owner}}/{{name}}.git"


def test_a_crash_between_claim_and_spawn_costs_no_attempt(a_world, a_hanging_remote: str) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    good = world.config["github"]["remote_url"]
    world.write_config(github={"remote_url": a_hanging_remote})
    number = world.issue(WRITE)
    world.start_process()
    world.until_state(number, "running")
    world.kill()
    assert world.starts(number) == 0

    world.write_config(github={"remote_url": good})
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(
        state="succeeded", outcomes=("never_started", "succeeded"), pulls=1, label="done"
    )
    assert world.starts(number) == 1


def test_sigterm_while_git_hangs_ends_the_daemon_within_five_seconds(
    world: World, a_hanging_remote: str
) -> None:
    world.write_config(github={"remote_url": a_hanging_remote})
    number = world.issue(WRITE)
    world.start_process()
    world.until_state(number, "running")
    code, seconds = world.end_process(signal.SIGTERM)

    assert code == 0
    assert seconds < 5


@pytest.mark.parametrize("asked", ["GET /repos/octo/hello/issues", "POST *"])
def test_sigterm_while_github_hangs_ends_the_daemon_within_five_seconds_and_no_run(
    world: World, asked: str
) -> None:
    """With the usual time-out of 15 s for one request: neither a poll nor a write may hold the process up."""
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    hanging = world.server.faults.add(Fault(match=asked, times=None, **NEVER_ANSWERED))
    world.issue(WRITE)  # something to say: without news nobody would write
    world.until_hit(hanging)
    code, seconds = world.end_process(signal.SIGTERM)

    assert code == 0
    assert seconds < 5
    assert f"gh-{number}" in {run_dir.name.partition(".")[0] for run_dir in world.live()}


def test_after_sigterm_the_live_run_goes_on_and_the_next_daemon_adopts_it(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    code, seconds = world.end_process(signal.SIGTERM)
    assert code == 0
    assert seconds < 5
    assert len(world.live()) == 1

    world.start()
    world.until_logged("found a run")
    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_an_adopted_run_is_read_in_the_dialect_it_was_started_with(world: World) -> None:
    number = world.issue("[[agent: slow 1]]", WRITE)
    world.start_process()
    world.until_working(number)
    world.kill()
    world.write_config(**{"providers.claude-cli": {"agent": "generic"}})
    world.start()
    world.until_state(number, "succeeded")
    (run,) = world.runs(number)
    assert world.store.usage_of(run.run_id).source is UsageSource.REPORTED


def test_a_run_that_ended_while_no_daemon_watched_is_settled_by_the_next_one(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    world.kill()
    world.open_gate()
    world.until_quiet()

    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE
    assert world.starts(number) == 1


def test_a_run_whose_shim_was_killed_as_well_is_lost_and_tried_again_without_using_up_an_attempt(
    world: World,
) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    world.kill()
    world.kill_shims()
    world.start()
    world.until(lambda: len(world.runs(number)) == 2, "the second attempt")
    world.until_working(number)
    assert len(world.live()) == len(world.processes()) == 1

    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(
        state="succeeded", outcomes=("lost", "succeeded"), pulls=1, label="done"
    )
    task = world.task(number)
    assert task is not None
    assert task.lost == 1


def test_a_run_that_cannot_be_judged_does_not_keep_the_daemon_from_other_tasks(world: World) -> None:
    world.use_gated_agent()
    damaged = world.issue()
    world.start_process()
    run = world.until_working(damaged)
    world.kill()
    lock, started = Path(run.run_dir) / "lock", Path(run.run_dir) / "started"
    owner, record = lock.read_bytes(), started.read_bytes()
    lock.write_bytes(b"{}")  # in place: the kernel's lock is on this file
    started.write_bytes(b"{}")
    other = world.issue()
    world.start()
    world.until_logged("a run cannot be judged")
    world.open_gate()
    world.until_state(other, "succeeded")
    assert world.result(damaged).state == "running"

    world.stop()
    lock.write_bytes(owner)
    started.write_bytes(record)
    world.start()
    world.until_state(damaged, "succeeded")
    assert world.result(damaged) == world.result(other) == DONE


@pytest.mark.parametrize(
    ("match", "how"),
    [
        pytest.param("GET /repos/octo/hello/issues/*/comments", NEVER_ANSWERED, id="looking for the comment"),
        pytest.param("POST /repos/octo/hello/issues/*/comments", AFTER, id="comment made, id lost"),
        pytest.param("POST /repos/octo/hello/issues/*/labels", NEVER_ANSWERED, id="comment made, label not"),
        pytest.param("GET /repos/octo/hello/pulls", NEVER_ANSWERED, id="pushed, before the pull request"),
        pytest.param("POST /repos/octo/hello/pulls", NEVER_ANSWERED, id="pull request asked for"),
        pytest.param("POST /repos/octo/hello/pulls", AFTER, id="pull request made, number lost"),
        pytest.param("PATCH /repos/octo/hello/issues/comments/*", NEVER_ANSWERED, id="comment being edited"),
    ],
)
def test_killed_between_two_steps_of_publishing_there_is_one_comment_and_one_pull_request(
    world: World, match: str, how: dict
) -> None:
    number = world.issue(WRITE)
    fault = world.server.faults.add(Fault(match=match, **how))
    world.start_process()
    world.until_hit(fault)
    world.kill()
    world.server.faults.clear()
    world.server.release()

    world.start()
    world.until_state(number, "succeeded")
    result = world.result(number)
    assert (result.comments, result.pulls, result.label, result.attempts) == (1, 1, "done", 1)
    assert world.starts(number) == 1


def test_a_stop_that_was_asked_for_before_the_crash_is_carried_out_after_it(world: World) -> None:
    number = world.issue("[[agent: ignore-term]]")
    world.write_config(coordinator={"stop_grace_seconds": 60})
    world.start_process()
    world.until_working(number)
    world.server.close_issue(REPO, number)
    world.until(lambda: world.runs(number)[-1].stop_reason, "the stop is written down")
    world.kill()
    world.kill_shims()
    world.start()
    world.until_state(number, "cancelled")

    world.until_quiet()
    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    assert world.starts(number) == 1
