"""How a daemon is ended, what becomes of its runs, and what is bounded when it ends again and again."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from world import LABEL, MAINTAINER, PATIENCE, REPO, WAIT, WRITE, Result, World

pytestmark = pytest.mark.crash
DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


@pytest.fixture
def a_hanging_remote() -> Iterator[str]:
    """The address of a git server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{{owner}}/{{name}}.git"


def verb(world: World, *arguments: str) -> subprocess.Popen[str]:
    """A command as a process of its own, for one that waits."""
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator", *arguments, "--config", str(world.path)],
        env=world.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.strip(), err.strip()


def exit_of(world: World) -> int:
    assert world.process is not None
    process, world.process = world.process, None
    return process.wait(timeout=PATIENCE)


# -- drain and stop -----------------------------------------------------------------------------------


def test_drain_starts_nothing_new_waits_for_the_live_run_and_its_report_and_ends_the_daemon(
    world: World,
) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    draining = verb(world, "drain")
    world.until_logged("operator", verb="drain")
    assert world.cli("status", "--json")["daemon"]["draining"] is True
    late = world.issue()
    world.until(lambda: world.task(late), "the late issue is a task")
    world.until_polls(2)
    assert "the daemon is being drained" in world.cli("why", str(late))
    assert "Draining: the daemon ends with its last run" in world.cli("status")

    world.open_gate()
    assert told(draining) == (
        0,
        "The daemon has ended, and no run is live.",
        f"Waiting for gh-{number}.",
    )
    assert exit_of(world) == 0
    assert world.result(number) == DONE
    assert world.starts(late) == 0

    world.start()
    world.until_state(late, "succeeded")


def test_a_drain_is_called_off_by_resume_and_its_wait_has_an_end(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    code, _, err = told(verb(world, "drain", "--timeout", "0.3"))
    assert code == 1
    assert "has not ended within 0.3 seconds" in err

    world.cli("resume")
    world.open_gate()
    late = world.issue()
    world.until_state(late, "succeeded")
    assert world.end_process(signal.SIGTERM)[0] == 0


def test_stop_ends_the_daemon_and_leaves_its_run_to_the_next_one(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    world.start_process()
    world.until_working(number)
    code, out, _ = told(verb(world, "stop"))
    assert (code, exit_of(world)) == (0, 0)
    assert out == f"The daemon has ended; the next one takes over what goes on: gh-{number}."
    assert len(world.live()) == 1

    _, out, _ = told(verb(world, "doctor"))
    assert f"! run            a live run without a daemon: gh-{number} (in {world.state_dir}" in out
    code, _, err = told(verb(world, "stop"))
    assert code == 1
    assert f"these runs go on by themselves: gh-{number}." in err

    world.open_gate()
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number) == DONE


def test_stop_with_kill_runs_ends_them_and_they_cost_no_attempt(world: World) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    code, out, _ = told(verb(world, "stop", "--kill-runs"))
    assert (code, out) == (0, "The daemon has ended, and no run is live.")
    assert exit_of(world) == 0
    world.until_quiet()
    result = world.result(number)
    assert (result.state, result.outcomes, result.attempts) == ("queued", ("interrupted",), 0)


def test_without_a_daemon_kill_runs_ends_what_goes_on_by_itself(world: World) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    world.kill()
    code, out, _ = told(verb(world, "stop", "--kill-runs"))
    assert (code, out) == (0, f"No daemon runs; ended gh-{number}. The next daemon queues them again.")
    world.until_quiet()
    assert told(verb(world, "stop"))[:2] == (0, "No daemon runs, and no run is live.")

    world.server.edit_issue(REPO, number, body=WRITE)
    world.start()
    world.until(lambda: len(world.runs(number)) == 2, "the next run")
    assert world.runs(number)[0].outcome == "interrupted"


def test_an_order_to_stop_does_not_end_the_daemon_that_is_started_after_it(world: World) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    assert world.process is not None
    os.kill(world.process.pid, signal.SIGSTOP)  # it will never take the order
    code, _, err = told(verb(world, "stop", "--timeout", "0.2"))
    assert code == 1
    assert f"`kill -9 {world.process.pid}` loses nothing" in err
    world.kill()

    world.start()
    world.until_logged("operator", verb="stop", answer="that was meant for an earlier daemon")
    world.until_polls(2)
    assert len(world.live()) == 1


# -- Ctrl-C ---------------------------------------------------------------------------------------------


class Terminal:
    """`coordinator run` on a terminal of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "run", "--config", str(world.path)],
            env=world.environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text[-2000:]}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode(errors="replace")

    def press(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        try:
            return self.process.wait(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.ours)


@pytest.mark.parametrize(
    ("answer", "live", "state"),
    [("l\n", 1, "running"), ("\n", 1, "running"), ("what?\ne\n", 0, "queued"), (None, 1, "running")],
    ids=["leave", "Enter", "end, after nonsense", "Ctrl-C again"],
)
def test_ctrl_c_on_a_terminal_asks_what_is_to_become_of_live_runs(
    world: World, answer: str | None, live: int, state: str
) -> None:
    number = world.issue(WAIT)
    terminal = Terminal(world)
    world.until_working(number)
    terminal.interrupt()
    terminal.until(f"The run of gh-{number} is live. [l]eave it running and exit (Enter, Ctrl-C), [e]nd it")
    terminal.interrupt() if answer is None else terminal.press(answer)
    assert terminal.end() == 130
    assert len(world.live()) == live
    assert world.result(number).state == state


def test_ctrl_c_may_turn_out_to_be_a_mistake(world: World) -> None:
    world.use_gated_agent()
    number = world.issue()
    terminal = Terminal(world)
    world.until_working(number)
    terminal.interrupt()
    terminal.until("[c]ontinue? ")
    terminal.press("c\n")
    world.open_gate()
    world.until_state(number, "succeeded")
    terminal.interrupt()  # nothing is live now, so nothing is asked
    assert terminal.end() == 130


# -- what an adopted run has to obey ----------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["label", "issue"])
def test_a_run_whose_issue_was_withdrawn_while_no_daemon_lived_is_stopped_after_its_adoption(
    world: World, gone: str
) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    world.kill()
    if gone == "label":
        world.server.remove_label(REPO, number, LABEL, actor=MAINTAINER)
    else:
        world.server.close_issue(REPO, number)
    world.start()
    world.until_state(number, "cancelled")
    world.until_quiet()
    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")


def test_an_adopted_run_that_is_over_the_limit_on_tokens_is_stopped_and_parked(world: World) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    world.kill()
    world.write_config(coordinator={"max_tokens_per_issue": 100})
    world.start()
    task = world.until_state(number, "blocked")
    world.until_quiet()
    assert world.result(number).outcomes == ("over_budget",)
    assert "of its 100 tokens (coordinator.max_tokens_per_issue)" in (task.cause or "")
    assert task.tokens == world.store.usage_of(world.runs(number)[0].run_id).total.total > 100

    world.cli("retry", str(number))
    world.until_logged("parked", task=f"gh-{number}")
    assert world.starts(number) == 1


# -- bounds -----------------------------------------------------------------------------------------------


def test_a_task_that_ends_daemon_after_daemon_is_parked_and_another_one_is_not(
    a_world, a_hanging_remote: str
) -> None:
    world: World = a_world(coordinator={"max_crashes_per_task": 2})
    good = world.config["github"]["remote_url"]
    world.write_config(github={"remote_url": a_hanging_remote})
    number = world.issue(WRITE)
    for runs in (1, 2):
        world.start_process()
        world.until(lambda wanted=runs: len(world.runs(number)) == wanted, f"run {runs}")
        world.kill()
    world.write_config(github={"remote_url": good})
    other = world.issue(WRITE)
    world.start()
    task = world.until_state(number, "blocked")
    assert "2 daemons in a row ended while they handled it" in (task.cause or "")
    world.until_state(other, "succeeded")
    assert world.starts(number) == 0

    world.cli("retry", str(number))
    world.until_state(number, "succeeded")


def test_daemons_that_end_in_order_put_no_task_under_suspicion(a_world, a_hanging_remote: str) -> None:
    world: World = a_world(coordinator={"max_crashes_per_task": 1})
    good = world.config["github"]["remote_url"]
    world.write_config(github={"remote_url": a_hanging_remote})
    number = world.issue(WRITE)
    world.start_process()
    world.until_state(number, "running")
    world.end_process(signal.SIGTERM)
    world.write_config(github={"remote_url": good})
    world.start()
    world.until_state(number, "succeeded")
    assert world.result(number).outcomes == ("never_started", "succeeded")


@pytest.mark.parametrize(
    ("retries", "state", "runs"), [({"max_lost_runs": 2}, "failed", 2), ({"on_lost": "park"}, "blocked", 1)]
)
def test_lost_runs_are_bounded_or_parked(a_world, retries: dict, state: str, runs: int) -> None:
    world: World = a_world(retries=retries)
    number = world.issue(WAIT)
    world.start()
    for count in range(1, runs + 1):
        world.until(lambda wanted=count: len(world.runs(number)) == wanted, f"run {count}")
        world.until_working(number)
        world.kill_shims()
    world.until_state(number, state)
    result = world.result(number)
    assert (result.outcomes, result.attempts) == (("lost",) * runs, 0)
    world.until_quiet()
