"""The configuration file changes, breaks and is mended while work goes on."""

from __future__ import annotations

import time

from world import WAIT, Result, World

NOT_TAKEN = "configuration not taken; the last good one stays in force"


def test_a_configuration_broken_mid_run_is_reported_once_and_mended_within_half_a_second(
    world: World,
) -> None:
    number = world.issue(WAIT)
    world.start_process()
    world.until_working(number)
    good = world.path.read_text()
    world.write_text(good.replace("poll_interval_seconds", "pol_interval_seconds"))
    world.until_logged(NOT_TAKEN)

    daemon = world.cli("status", "--json")["daemon"]
    assert daemon["running"]
    assert '[coordinator] has no key "pol_interval_seconds"' in daemon["config_error"]
    assert "poll_interval_seconds" in daemon["config_error"]
    assert f"gh-{number} is running" in world.cli("why", str(number))
    world.until_polls(3)
    assert len(world.events(NOT_TAKEN)) == 1
    assert world.result(number) == Result(state="running", outcomes=("running",), label="running")

    began = time.monotonic()
    world.write_text(good.replace("max_attempts = 3", "max_attempts = 4"))
    (reloaded,) = world.until(lambda: world.events("configuration reloaded"), "it is in force", patience=5)
    assert time.monotonic() - began < 0.5 + 0.2
    assert reloaded["changes"] == ["coordinator.max_attempts: 3 -> 4 (live)"]
    assert world.cli("status", "--json")["daemon"]["config_error"] is None
    assert world.starts(number) == 1
    copy = world.state_dir / "last-good.toml"
    world.until(lambda: copy.read_text() == world.path.read_text(), "the copy follows the good file")


def test_a_new_limit_of_workers_is_in_force_for_the_next_decision(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    first = world.issue(WAIT)
    world.start()
    world.until_working(first)
    second = world.issue(WAIT)
    world.until_state(second, "queued")
    world.write_config(coordinator={"max_concurrent_workers": 2})
    world.until_working(second)

    assert world.starts(first) == 1
