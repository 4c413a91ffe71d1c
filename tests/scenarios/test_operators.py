"""What operators ask a running daemon for, and the sentences it explains itself with."""

from __future__ import annotations

import signal
from pathlib import Path

from world import MAINTAINER, REPO, STRANGER, WAIT, WRITE, Result, World, program

BLOCKS = "open('BLOCKED.md', 'w').write('Which of the two greetings?')"


def test_retry_cancel_pause_and_resume_reach_a_daemon_that_is_another_process(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    failing, waiting = world.issue("[[agent: fail]]"), world.issue(WAIT)
    world.start_process()
    world.until_state(failing, "failed")
    world.until_working(waiting)

    assert "o new runs" in world.cli("pause")
    assert world.cli("retry", str(failing)) == f"gh-{failing} is queued again."
    world.until_state(failing, "queued")
    world.until_polls(2)
    assert world.starts(failing) == 1
    assert "paused" in world.cli("why", str(failing))
    assert world.cli("status", "--json")["paused"] is True

    assert "started again" in world.cli("resume")
    world.until(lambda: world.starts(failing) == 2, "it is tried again")
    world.until_state(failing, "failed")
    assert world.result(failing) == Result(state="failed", outcomes=("failed", "failed"), label="failed")

    assert (
        world.cli("cancel", str(waiting), "--reason", "no longer wanted")
        == f"gh-{waiting} is being cancelled."
    )
    world.until_state(waiting, "cancelled")
    world.until_quiet()
    assert "no longer wanted" in world.comment(waiting)
    assert "already ended" in world.cli("cancel", str(waiting))
    assert world.end_process(signal.SIGTERM)[0] == 0


def test_a_request_made_while_no_daemon_runs_is_taken_by_the_next_one(world: World) -> None:
    number = world.issue("[[agent: no-op]]")
    world.start()
    world.until_state(number, "failed")
    world.stop()
    world.server.edit_issue(REPO, number, body=WRITE)
    assert "no daemon runs" in world.cli("retry", str(number))

    world.start()
    world.until(lambda: len(world.runs(number)) == 2, "the retry")


def test_why_explains_every_state_in_one_sentence(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1, "max_attempts": 1})
    refused = world.issue(WRITE, by=STRANGER)
    done = world.issue(WRITE)
    world.start()
    world.until_state(refused, "blocked")
    world.until_state(done, "succeeded")
    failed = world.issue("[[agent: fail]]")
    world.until_state(failed, "failed")
    running = world.issue(WAIT)
    world.until_working(running)
    queued = world.issue(WRITE)
    world.until_state(queued, "queued")

    assert f"applied by {STRANGER}, who has no write access" in world.cli("why", str(refused))
    assert "/pull/" in world.cli("why", str(done))
    assert "told to fail" in world.cli("why", str(failed))
    assert f"`coordinator retry {failed}`" in world.cli("why", str(failed))
    assert "running on claude-cli/claude-sonnet-4-5" in world.cli("why", str(running))
    assert "busy" in world.cli("why", str(queued))
    world.write_config(coordinator={"max_concurrent_workers": 2, "reserved_high_priority_workers": 1})
    world.until_logged("configuration reloaded")
    assert "1 of the 2 worker slots is kept for critical and high" in world.cli("why", str(queued))
    world.stop()
    assert "no daemon runs" in world.cli("why", str(queued))


def test_a_task_that_waits_for_its_retry_says_when_it_is_due(a_world) -> None:
    world: World = a_world(retries={"fast_exit_base_delay_seconds": 300, "max_delay_seconds": 600})
    number = world.issue("[[agent: exit 7]]")
    world.start()
    world.until_state(number, "retry_wait")

    assert world.result(number) == Result(state="retry_wait", outcomes=("failed",), label="waiting")
    assert "exited with 7" in world.cli("why", str(number))
    assert world.cli("why", str(number), "--json")["wake_at"] is not None
    world.advance(301)
    world.until(lambda: world.starts(number) == 2, "the retry when its time has come")


def test_an_agent_that_asks_for_a_human_blocks_the_task_with_its_question(world: World) -> None:
    world.write_config(**{"providers.claude-cli": program(BLOCKS)})
    number = world.issue()
    world.start()
    world.until_state(number, "blocked")

    assert world.result(number) == Result(state="blocked", outcomes=("needs_human",), label="blocked")
    assert "Which of the two greetings?" in world.comment(number)
    assert "Which of the two greetings?" in world.cli("why", str(number))

    answered = "open('work.txt', 'w').write('hello')"
    world.write_config(**{"providers.claude-cli": program(answered)})
    world.until_logged("configuration reloaded")
    world.relabel(number, by=MAINTAINER)
    world.until_state(number, "succeeded")
    assert world.result(number) == Result(
        state="succeeded", outcomes=("needs_human", "succeeded"), pulls=1, label="done"
    )


def test_refused_credentials_end_the_run_early_and_cost_no_attempt(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    sample = Path(__file__).parents[1] / "samples" / "claude" / "error-401.jsonl"
    code = f"import time; print(open({str(sample)!r}).readlines()[1], flush=True); time.sleep(60)"
    world.write_config(**{"providers.claude-cli": program(code, dialect="claude")})
    number = world.issue()
    world.start()
    task = world.until_state(number, "blocked")
    world.until_quiet()

    assert world.result(number) == Result(
        state="blocked", outcomes=("auth_failed",), attempts=0, label="blocked"
    )
    assert "refused the credentials (401" in (task.cause or "")
    assert task.wake_at is not None
    assert [(line["kind"], line["status"]) for line in world.events("provider health")] == [
        ("auth_failed", 401)
    ]


def test_a_rate_limit_of_the_provider_is_waited_out_and_costs_no_attempt(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    number = world.issue("[[agent: api-error 429]]")
    world.start()
    task = world.until_state(number, "retry_wait")

    assert world.result(number) == Result(
        state="retry_wait", outcomes=("rate_limited",), attempts=0, label="waiting"
    )
    assert task.wake_at is not None
    world.server.edit_issue(REPO, number, body=WRITE)
    world.advance(301)
    world.until(lambda: world.starts(number) == 2, "it is tried again when the wait is over")
    world.until(lambda: len(world.events("worker finished")) == 2, "the second run has met the same limit")
    assert [line["kind"] for line in world.events("provider health")] == ["rate_limited"]


def test_a_daemon_that_runs_once_finishes_what_it_finds_and_ends(world: World) -> None:
    number = world.issue(WRITE)
    assert world.run_once() == 0

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def test_a_second_daemon_on_the_same_state_is_turned_away(world: World) -> None:
    world.start()
    world.until_polls(1)

    assert world.run_once() == 75
