"""Public repositories need an explicit switch: without it nothing is started there, whoever asks."""

from __future__ import annotations

import pytest
from world import LISTS, MAINTAINER, REPO, WAIT, WRITE, Fault, World

OTHER = "octo/other"


def opened(world: World, full_name: str = REPO) -> None:
    world.server.set_visibility(full_name, private=False)


def test_nothing_is_started_in_a_public_repository_and_everything_says_what_to_set(world: World) -> None:
    opened(world)
    number = world.issue(WRITE)
    world.start()
    world.until_logged("closed", repo=REPO)
    world.until_polls(3)

    assert world.task(number) is None
    assert len(world.events("closed")) == 1
    key = "admission.public_repositories = true"
    assert key in world.cli("status")
    assert key in world.output("why", str(number))
    assert key in world.output("doctor")
    world.write_config(admission={"public_repositories": True})
    world.until_state(number, "succeeded")


def test_one_repository_may_be_public_and_the_others_may_not(a_world) -> None:
    world: World = a_world(repositories=[{"owner": "octo", "name": "other", "public": True}])
    world.add_repo(OTHER)
    opened(world)
    opened(world, OTHER)
    here, there = world.issue(WRITE), world.issue(WRITE, repo=OTHER)
    world.start()
    world.until_state(there, "succeeded", OTHER)

    assert world.task(here) is None


@pytest.mark.parametrize("said", [{"private": None}, {}])
def test_a_repository_whose_visibility_github_does_not_tell_counts_as_public(
    world: World, said: dict
) -> None:
    number = world.issue(WRITE)
    body = {"id": 1, "full_name": REPO, "default_branch": "main", **said}
    world.server.faults.add(Fault(match=f"GET /repos/{REPO}", status=200, body=body, times=None))
    world.start()
    world.until_logged("closed", repo=REPO)
    world.until_polls(2)

    assert world.starts(number) == 0


def test_a_repository_that_becomes_public_stops_new_claims_and_leaves_the_live_run_alone(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    queued = world.issue(WRITE)
    world.until_state(queued, "queued")
    opened(world)
    late = world.issue(WRITE)
    world.until_logged("closed", repo=REPO)
    world.server.close_issue(REPO, running, actor=MAINTAINER)
    world.until_state(queued, "blocked")

    assert "is public" in world.task(queued).cause
    assert world.task(late) is None
    assert [run.outcome for run in world.runs(running)][-1] is not None
    world.write_config(admission={"public_repositories": True})
    for number in (queued, late):
        world.until_state(number, "succeeded")


def test_what_was_queued_stays_so_when_the_next_daemon_cannot_ask(a_world) -> None:
    world: World = a_world(coordinator={"max_concurrent_workers": 1})
    running = world.issue(WAIT)
    world.start()
    world.until_working(running)
    queued = world.issue(WRITE)
    world.until_state(queued, "queued")
    opened(world)
    world.issue(WRITE)
    world.until_logged("closed", repo=REPO)
    world.stop()
    world.server.faults.add(Fault(match=LISTS, status=502, times=None))
    world.server.close_issue(REPO, running, actor=MAINTAINER)
    world.write_config(coordinator={"max_concurrent_workers": 2})
    world.start()
    world.until(lambda: world.task(queued).state == "blocked", "it is parked")

    assert world.starts(queued) == 0
