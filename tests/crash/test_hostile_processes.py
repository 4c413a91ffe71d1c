"""Processes that are killed, frozen, or not the ones they seem to be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from world import WAIT, WRITE, Result, World

from coordinator import shim

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def agent_of(run_dir: Path) -> int:
    started = shim.read_json(str(run_dir / "started"))
    assert started is not None
    return int(started["child_pid"])


def test_a_shim_killed_under_a_living_daemon_is_lost_and_its_agent_does_not_go_on(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    agent = agent_of(world.live()[0])
    world.kill_shims()
    world.until(lambda: len(world.runs(number)) == 2, "the next run")
    world.until_working(number)
    assert shim.look_up(agent) is None or shim.look_up(agent).state in b"ZX"
    assert len(world.live()) == len(world.processes()) == 1
    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("lost", "succeeded")


def test_an_agent_that_is_killed_is_a_failure_by_signal_and_tried_again(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    os.kill(agent_of(world.live()[0]), signal.SIGKILL)
    world.until(lambda: len(world.runs(number)) == 2, "the next run")
    first = world.runs(number)[0]
    assert (first.outcome, first.exit_signal) == ("failed", signal.SIGKILL)
    world.open_gate()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("failed", "succeeded")
    assert world.starts(number) == 2


@pytest.mark.parametrize(
    ("limit", "directive", "outcome"),
    [
        ({"worker_timeout_hours": 1.0 / 3600}, WAIT, "timed_out"),
        ({"stall_timeout_minutes": 1.0 / 60}, "[[agent: silent 60]]", "stalled"),
    ],
    ids=["deadline", "silence"],
)
def test_a_daemon_frozen_past_a_runs_limit_finds_it_ended_and_counts_it_once(
    a_world, limit: dict, directive: str, outcome: str
) -> None:
    world: World = a_world(coordinator={**limit, "max_attempts": 1})
    number = world.issue(directive)
    world.start_process()
    world.until_working(number)
    (run_dir,) = world.live()
    assert world.process is not None
    world.process.send_signal(signal.SIGSTOP)
    try:
        world.until(lambda: (run_dir / "exit").exists() and not world.live(), "the shim ended it by itself")
        assert world.processes() == []
        assert world.result(number).outcomes == ("running",)
    finally:
        world.process.send_signal(signal.SIGCONT)
    world.until_state(number, "failed")
    assert world.result(number) == Result(state="failed", outcomes=(outcome,), label="failed")
    assert world.starts(number) == 1


def test_a_daemon_frozen_past_all_its_time_outs_does_nothing_twice(a_world) -> None:
    """Frozen while an agent works and more is in the queue, for longer than every time-out."""
    world: World = a_world(
        github={"request_timeout_seconds": 1},
        coordinator={"max_concurrent_workers": 1, "poll_interval_seconds": 0.2},
    )
    world.use_gated_agent()
    first, second = world.issue(), world.issue()
    world.start_process()
    world.until_working(first)
    assert world.process is not None
    world.process.send_signal(signal.SIGSTOP)
    try:
        world.open_gate()
        world.until_quiet()
        frozen = time.monotonic()
        world.until(lambda: time.monotonic() - frozen > 2.5, "every time-out is over")
    finally:
        world.process.send_signal(signal.SIGCONT)
    world.until_state(first, "succeeded")
    world.until_state(second, "succeeded")
    assert world.result(first) == world.result(second) == DONE
    assert (world.starts(first), world.starts(second)) == (1, 1)


@pytest.fixture
def a_bystander():
    """Somebody else's process, which must come out alive."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", "import time; time.sleep(120)"], start_new_session=True
    )
    yield process
    assert process.poll() is None, "a process of somebody else was signalled"
    process.kill()
    process.wait()


def dead_run(world: World, number: int) -> Path:
    """A run of which only files are left, as after a power loss: daemon, shim and agent are gone."""
    world.start_process()
    world.until_working(number)
    (run_dir,) = world.live()
    agent = agent_of(run_dir)
    world.kill()
    world.kill_shims()
    os.kill(agent, signal.SIGKILL)
    world.until(lambda: not world.processes(), "the agent is gone")
    return run_dir


def forge(run_dir: Path, victim: int, **changes: object) -> None:
    """Write down that shim and agent were the victim."""
    process = shim.look_up(victim)
    assert process is not None
    who = {"shim_pid": victim, "shim_start": process.start, "child_pid": victim, "child_start": process.start}
    for name in ("started", "lock"):
        path = run_dir / name
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, **who, **changes}))


def test_after_a_reboot_the_old_numbers_mean_nobody(world: World, a_bystander) -> None:
    """Even pid and start time may come again; the id of the boot does not."""
    world.use_gated_agent()
    number = world.issue()
    run_dir = dead_run(world, number)
    forge(run_dir, a_bystander.pid, boot_id="0" * 8)
    world.open_gate()
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("lost", "succeeded")
    assert world.starts(number) == 2


def test_a_pid_that_is_somebody_elses_now_is_neither_waited_for_nor_killed(world: World, a_bystander) -> None:
    world.use_gated_agent()
    number = world.issue()
    run_dir = dead_run(world, number)
    forge(run_dir, a_bystander.pid, shim_start=1, child_start=1)
    world.open_gate()
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("lost", "succeeded")


def test_a_stop_of_a_living_run_with_forged_numbers_signals_nobody_else(world: World, a_bystander) -> None:
    """The shim sees the request in its directory, whatever the numbers say."""
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    (run_dir,) = world.live()
    world.kill()
    forge(run_dir, a_bystander.pid, shim_start=1, child_start=1)
    world.start()
    world.until_logged("found a run")
    world.server.close_issue("octo/hello", number)
    world.until_state(number, "cancelled")
    world.until_quiet()
    assert world.starts(number) == 1


def test_work_that_was_done_when_the_machine_went_down_is_kept(world: World) -> None:
    number = world.issue(WRITE, "[[agent: slow 60]]")
    dead_run(world, number)
    assert (world.state_dir / "trees" / f"gh-{number}").exists()
    world.start()
    world.until(lambda: len(world.runs(number)) == 2, "the next run")
    assert world.runs(number)[0].outcome == "lost"
    assert (world.state_dir / "trees" / f"gh-{number}").exists()
