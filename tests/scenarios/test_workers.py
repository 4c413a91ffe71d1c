"""Workers that will not end, end too often, or leave others behind; disks that are full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from world import WAIT, WRITE, Result, World, program

DONE = Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def test_a_worker_deaf_to_int_and_term_is_killed_after_the_grace(world: World) -> None:
    number = world.issue("[[agent: ignore-term]]")
    world.start()
    world.until_working(number)
    world.server.close_issue("octo/hello", number)
    world.until_state(number, "cancelled")
    world.until_quiet()

    assert world.result(number) == Result(state="cancelled", outcomes=("cancelled",), label="cancelled")
    assert len(world.events("stopping")) == 1


def test_a_grandchild_in_its_own_session_does_not_outlive_the_run(world: World) -> None:
    number = world.issue("[[agent: grandchild]]", WRITE)
    world.start()
    world.until_state(number, "succeeded")

    assert world.processes() == []
    assert world.result(number) == DONE


def test_a_worker_that_overstays_its_time_is_ended_and_counted(a_world) -> None:
    world: World = a_world(coordinator={"worker_timeout_hours": 0.5 / 3600, "max_attempts": 1})
    number = world.issue(WAIT)
    world.start()
    world.until_state(number, "failed")
    world.until_quiet()

    assert world.result(number) == Result(state="failed", outcomes=("timed_out",), label="failed")


def test_a_silent_worker_is_ended_and_counted(a_world) -> None:
    world: World = a_world(coordinator={"stall_timeout_minutes": 0.5 / 60, "max_attempts": 1})
    number = world.issue("[[agent: silent 60]]")
    world.start()
    world.until_state(number, "failed")
    world.until_quiet()

    assert world.result(number) == Result(state="failed", outcomes=("stalled",), label="failed")


def test_a_program_that_does_not_exist_parks_the_task_and_names_it(world: World) -> None:
    world.write_config(**{"providers.claude-cli": {"command_template": ["no-such-agent-anywhere"]}})
    number = world.issue(WRITE)
    world.start()
    task = world.until_state(number, "blocked")

    assert "no-such-agent-anywhere" in (task.cause or "")
    assert world.starts(number) == 0


# -- full disks ----------------------------------------------------------------------------------------


@contextmanager
def a_full_disk(world: World, statement: str) -> Iterator[None]:
    """SQLite says "disk is full" to one kind of statement, at exactly that point of the transaction."""

    def change(sql: str) -> None:
        connection = sqlite3.connect(world.state_dir / "coordinator.db", timeout=10)
        connection.execute(sql)
        connection.commit()
        connection.close()

    refusal = "SELECT RAISE(FAIL, 'database or disk is full')"
    change(f"CREATE TRIGGER full_disk BEFORE {statement} BEGIN {refusal}; END")
    try:
        yield
    finally:
        change("DROP TRIGGER full_disk")


def test_a_disk_full_at_the_claim_leaves_nothing_half_claimed(world: World) -> None:
    world.start()
    world.until_polls(1)
    with a_full_disk(world, "INSERT ON runs"):
        number = world.issue(WRITE)
        world.until_logged("the store refuses; it is tried again")
        world.until_state(number, "queued")
        world.until_polls(2)
        assert world.result(number) == Result(state="queued", outcomes=(), attempts=0, label="queued")
        assert not (world.state_dir / "trees" / f"gh-{number}").exists()
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE
    assert len(world.events("the store refuses; it is tried again")) == 1


def test_a_disk_full_when_an_issue_is_first_seen_does_not_lose_the_issue(world: World) -> None:
    world.start()
    world.until_polls(1)
    with a_full_disk(world, "INSERT ON tasks"):
        number = world.issue(WRITE)
        world.until_logged("poll failed")
        world.until_polls(2)
        assert world.task(number) is None
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE
    assert len(world.events("poll failed")) == 1


def test_a_disk_full_at_the_end_of_a_run_keeps_its_slot_and_its_result(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    world.use_gated_agent()
    number = world.issue()
    world.start()
    world.until_working(number)
    with a_full_disk(world, "UPDATE OF finished_at ON runs"):
        world.open_gate()
        world.until_logged("a live run cannot be written down; it is tried again")
        waiting = world.issue()
        world.until_state(waiting, "queued")
        assert world.result(number).outcomes == ("running",)
    world.until_state(number, "succeeded")
    world.until_state(waiting, "succeeded")

    assert world.result(number) == world.result(waiting) == DONE
    assert world.starts(number) == 1


def test_a_disk_full_while_a_worker_talks_costs_neither_the_worker_nor_its_tokens(world: World) -> None:
    number = world.issue("[[agent: slow 1.2]]", WRITE)
    world.start()
    world.until_working(number)
    with a_full_disk(world, "UPDATE OF stream_offset ON runs"):
        world.until_logged("a live run cannot be written down; it is tried again")
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE
    (run,) = world.runs(number)
    assert world.store.usage_of(run.run_id).source == "reported"


def test_a_disk_full_while_publishing_does_not_flood_github(world: World) -> None:
    world.start()
    world.until_polls(1)
    with a_full_disk(world, "UPDATE OF comment_id ON tasks"):
        number = world.issue(WRITE)
        world.until_logged("the outbox cannot be written; it is tried again")
        world.until_polls(5)
        posted = world.server.requests_matching("POST /repos/octo/hello/issues/*/comments")
        assert len(posted) == 1
    world.until_state(number, "succeeded")

    assert world.result(number) == DONE


@pytest.mark.parametrize("code", [0, 1])
def test_an_agent_of_which_nothing_is_known_is_judged_by_its_exit_and_its_work(a_world, code: int) -> None:
    work = f"open('work.txt', 'w').write('done'); raise SystemExit({code})"
    world: World = a_world(**{"providers.claude-cli": program(work), "coordinator": {"max_attempts": 1}})
    number = world.issue()
    world.start()
    world.until_state(number, "failed" if code else "succeeded")

    (run,) = world.runs(number)
    assert run.exit_code == code
    assert len(world.pulls(number)) == (0 if code else 1)
    assert "unknown" in world.comment(number)
