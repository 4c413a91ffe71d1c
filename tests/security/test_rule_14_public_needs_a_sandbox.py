"""Rule 14: what strangers write reaches an agent only in a sandbox, or where somebody has said otherwise."""

from __future__ import annotations

import pytest
from world import MAINTAINER, REPO, WAIT, WRITE, World

PUBLIC = {"public_repositories": True}
NOWHERE = "/nowhere/bwrap"
SWITCH = "sandbox.required_for_public = false"


def without(a_world, **sandbox) -> World:
    """A public repository, meant to be worked on, and a host without a sandbox."""
    world: World = a_world(admission=PUBLIC, sandbox={"required_for_public": True, **sandbox})
    world.server.set_visibility(REPO, private=False)
    return world


@pytest.mark.parametrize("host", [{"mode": "off"}, {"mode": "auto", "bwrap": NOWHERE}])
def test_without_a_sandbox_nothing_is_started_in_public_and_everything_says_what_to_do(
    a_world, host: dict
) -> None:
    world = without(a_world, **host)
    number = world.issue(WRITE)
    world.start()
    world.until_logged("closed", repo=REPO)
    world.until_polls(3)

    assert world.task(number) is None
    assert SWITCH in world.events("closed")[0]["reason"]
    assert SWITCH in world.cli("status")
    assert SWITCH in world.output("why", str(number))
    assert SWITCH in world.output("doctor")


def test_who_has_said_so_works_in_public_without_a_sandbox(a_world) -> None:
    world = without(a_world, mode="off", required_for_public=False)
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")

    assert SWITCH not in world.output("doctor")


def test_with_a_sandbox_public_work_is_done(a_world) -> None:
    world = without(a_world, mode="auto")
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")

    assert not world.events("closed")


def test_a_private_repository_needs_no_sandbox(a_world) -> None:
    world: World = a_world(sandbox={"mode": "off", "required_for_public": True})
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")


def test_what_is_queued_when_the_sandbox_goes_is_parked_and_goes_on_when_it_is_allowed(a_world) -> None:
    world = without(a_world, mode="off", required_for_public=False)
    world.write_config(coordinator={"max_concurrent_workers": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    number = world.issue(WRITE)
    world.until_state(number, "queued")
    world.write_config(sandbox={"mode": "off", "required_for_public": True})
    world.until_logged("closed", repo=REPO)
    world.server.close_issue(REPO, running, actor=MAINTAINER)
    world.until_state(number, "blocked")

    assert SWITCH in world.task(number).cause
    assert SWITCH in world.output("why", str(number))
    assert world.starts(number) == 0
    world.write_config(sandbox={"mode": "off", "required_for_public": False})
    world.until_state(number, "succeeded")
