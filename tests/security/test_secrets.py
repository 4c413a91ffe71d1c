"""What an agent says aloud of its keys never reaches GitHub, the log or an operator's screen."""

from __future__ import annotations

import pytest
from world import MAINTAINER, REPO, STRANGER, World, program

PASSED, LITERAL, LATER = "passed-through-1234567", "literal-value-7654321", "brought-by-a-reload-99"
# The shortest first: what is said of a failure is cut, and may be no more than a long PATH.
TELLS_ALL = (
    "import os, sys; known = sorted(os.environ.values(), key=len);"
    "print(*known); print(*known, file=sys.stderr); sys.exit(4)"
)


def everything_said(world: World, number: int) -> str:
    return "\n".join([world.comment(number), world.cli("why", str(number)), world.log_stream.getvalue()])


def test_values_that_are_passed_through_or_set_are_known_as_secrets(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    world.environ["SOME_API_KEY"] = PASSED
    provider = program(TELLS_ALL) | {"pass_env": ["SOME_API_KEY"], "env": {"OTHER_TOKEN": LITERAL}}
    world.write_config(**{"providers.claude-cli": provider})
    number = world.issue()
    world.start()
    world.until_state(number, "failed")

    said = everything_said(world, number)
    assert "[redacted]" in said
    assert PASSED not in said
    assert LITERAL not in said


def test_a_key_that_a_reload_brings_is_known_at_once(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    world.environ["NEW_KEY"] = LATER
    world.start()
    world.until_polls(1)
    world.write_config(**{"providers.claude-cli": program(TELLS_ALL) | {"api_key_env": "NEW_KEY"}})
    world.until(lambda: world.events("configuration reloaded"), "the file is taken over")
    number = world.issue()
    world.until_state(number, "failed")

    assert LATER not in everything_said(world, number)


@pytest.mark.parametrize("how", ["the stranger closes it", "an operator cancels it"])
def test_a_refused_issue_stays_refused_after_it_was_cancelled(world: World, how: str) -> None:
    number = world.issue(by=STRANGER)
    world.start()
    world.until(lambda: world.task(number), "it was seen")
    if how == "the stranger closes it":
        world.server.close_issue(REPO, number, actor=STRANGER)
    else:
        world.cli("cancel", str(number))
    world.until(lambda: (task := world.task(number)) and task.state == "cancelled", "it is cancelled")

    assert "retry" not in world.cli("why", str(number))
    assert "write access" in world.cli("retry", str(number))
    world.until_polls(2)
    assert world.starts(number) == 0
    assert world.comments(number) == []

    if how == "an operator cancels it":
        world.relabel(number, by=MAINTAINER)
        world.until(lambda: world.starts(number), "a maintainer's label starts it")


def test_a_new_poll_interval_does_not_wait_for_the_old_one(a_world) -> None:
    world: World = a_world(coordinator={"poll_interval_seconds": 3600})
    world.start()
    world.until_polls(1)
    world.write_config(coordinator={"poll_interval_seconds": 0.1})
    world.until_polls(3)


def test_workers_do_not_find_the_programs_of_our_own_environment(world: World) -> None:
    from coordinator.environment import without_own_programs

    own = f"{__import__('sys').prefix}/bin"
    assert without_own_programs(f"/usr/bin:{own}:/bin") == "/usr/bin:/bin"
