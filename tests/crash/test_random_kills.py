"""Killed at random: twice at steps drawn by lot, sixty times in a soak, for ten minutes in `make chaos`."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import storm
from stage import FREE, Stage
from storm import Storm
from world import WRITE

from adw_modules.tasks.model import Outcome
from coordinator.faultpoints import Point

KILLS, RUNS = 60, 200
ROUNDS_OF_TWO = 12
MINUTES = float(os.environ.get("COORDINATOR_CHAOS_MINUTES", "10"))
FAILED_ONCE = FREE | {Outcome.FAILED}
# Points that a task with a slow agent comes by; of others (a stop, a retry) there is a story of their own.
ON_THE_WAY = [point for point in Point if not point.is_of_shim]


@pytest.mark.crash
@pytest.mark.parametrize("number", range(ROUNDS_OF_TWO))
def test_daemons_killed_at_two_steps_drawn_by_lot_lose_and_double_nothing(stage: Stage, number: int) -> None:
    """The second may die where the first one did, on the way there, or while it clears up."""
    dice = random.Random(f"{storm.seed()} {number}")
    issue = stage.issue("[[agent: slow 0.7]]", WRITE)
    faults = [f"{dice.choice(ON_THE_WAY)}:{dice.choice((1, 1, 2))}" for _ in range(2)]
    print("faults:", *faults)
    for fault in faults:
        stage.start_armed(fault)
        stage.until(lambda: stage.died(0.05) or is_done(stage, issue), f"{fault}, or the end")
        if stage.process is not None:
            stage.kill()  # not every task comes by there
    stage.start_process()
    stage.until_state(issue, "succeeded")
    stage.check_task(issue)
    stage.check_quiet()
    assert len(stage.begins()) == 1


def is_done(stage: Stage, number: int) -> bool:
    task = stage.task(number)
    return task is not None and task.state.is_terminal and stage.is_published()


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_two_hundred_runs_survive_sixty_random_ends_of_their_daemon(a_stage) -> None:
    stage: Stage = a_stage(**storm.CONFIG)
    weather = Storm(stage, random.Random(storm.seed()))
    for kill in range(KILLS):
        due = RUNS * (kill + 1) // KILLS
        weather.add_issues(due - len(weather.issues))
        stage.start_process()
        weather.live_a_little(weather.dice.uniform(0.5, 1.6))
        weather.end_daemon(signal.SIGTERM if kill % 4 == 3 else signal.SIGKILL)
    stage.start_process()
    weather.calm_down(patience=120)

    for repo, number in weather.issues:
        stage.check_task(number, repo, besides=FAILED_ONCE)
    runs = [run for repo, number in weather.issues for run in stage.runs(number, repo)]
    stage.check_quiet()
    found = [line["found"] for line in stage.events("found a run")]
    print(f"{len(runs)} runs, daemons ended: {weather.ended}, found by the next: {found_counts(found)}")
    assert sum(run.outcome is Outcome.SUCCEEDED for run in runs) == RUNS
    assert weather.ended == {signal.SIGKILL: 45, signal.SIGTERM: 15}
    assert weather.polite > 0
    assert {"alive", "exited"} <= set(found)  # or the kills have met nothing


def found_counts(found: list[str]) -> dict[str, int]:
    return {state: found.count(state) for state in sorted(set(found))}


@pytest.mark.chaos
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_minutes_of_killed_daemons_shims_and_agents_double_nothing(a_stage) -> None:
    """Runs may be lost or fail here, and are tried again; no agent begins twice, or beside another."""
    stage: Stage = a_stage(**storm.CONFIG)
    weather = Storm(stage, random.Random(storm.seed()))
    until = time.monotonic() + MINUTES * 60
    while time.monotonic() < until:
        weather.add_issues(max(0, 24 - weather.unfinished()))
        stage.start_process()
        for _ in range(weather.dice.randrange(2, 12)):
            weather.live_a_little(weather.dice.uniform(0.3, 0.8))
            weather.strike()
        weather.end_daemon(weather.dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        if weather.dice.random() < 0.3:
            weather.strike()  # while nobody looks
    stage.start_process()
    weather.calm_down(patience=300)

    for repo, number in weather.issues:
        stage.check_task(number, repo, besides=FAILED_ONCE | {Outcome.LOST})
    stage.check_quiet()
    print(f"{len(weather.issues)} issues, daemons ended: {weather.ended}, killed besides: {weather.struck}")
    assert min(weather.struck["shim"], weather.struck["agent"]) > 0
