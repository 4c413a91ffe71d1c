"""Rule 1: work starts only for a person whose permission *now* is write or admin, or of a configured role.

404, 403, a missing event, a deleted account: refused. A server that fails or limits has said nothing.
"""

from __future__ import annotations

import pytest
from world import LABEL, MAINTAINER, REPO, STRANGER, WRITE, Fault, Result, World

NO_OP = "[[agent: no-op]]"


def labelled_by(world: World, login: str | None) -> int:
    """An issue of a stranger that somebody else has labelled."""
    number = world.server.add_issue(REPO, title="Please", body=NO_OP, author=STRANGER)
    world.server.add_label(REPO, number, LABEL, actor=login)
    return number


def judged(world: World, numbers: dict[str, int]) -> dict[str, bool]:
    """Whether each was started, once all of them were decided."""
    world.until(lambda: all(world.task(number) for number in numbers.values()), "all are judged")
    world.until(
        lambda: all(world.task(n).state in ("blocked", "failed") for n in numbers.values()), "all rest"
    )
    return {name: world.starts(number) > 0 for name, number in numbers.items()}


def test_only_those_who_may_write_start_anything(world: World) -> None:
    roles = ("admin", "maintain", "write", "triage", "read", "none")
    for role in roles:
        world.server.set_permission(REPO, f"the-{role}", role)
    world.server.add_user("an-organisation", kind="Organization")
    numbers = {role: labelled_by(world, f"the-{role}") for role in roles}
    numbers |= {"ghost": labelled_by(world, None), "organisation": labelled_by(world, "an-organisation")}
    world.start()

    started = judged(world, numbers)
    assert {name for name, was in started.items() if was} == {"admin", "maintain", "write"}
    assert "triage" in world.cli("why", str(numbers["triage"]))
    assert "no longer exists" in world.cli("why", str(numbers["ghost"]))


def test_further_roles_start_work_only_where_the_configuration_names_them(a_world) -> None:
    world: World = a_world(admission={"roles": ["Triage", "security-champion"]})
    world.server.set_permission(REPO, "tess", "triage")
    world.server.set_permission(REPO, "sam", "read", custom_role="security-champion")
    world.server.set_permission(REPO, "rob", "read", custom_role="reader-of-everything")
    numbers = {name: labelled_by(world, name) for name in ("tess", "sam", "rob", STRANGER)}
    world.start()

    assert judged(world, numbers) == {"tess": True, "sam": True, "rob": False, STRANGER: False}


@pytest.mark.parametrize("status", [403, 404])
def test_a_permission_that_github_does_not_tell_refuses(world: World, status: int) -> None:
    world.server.faults.add(Fault(match="GET */collaborators/ada/permission", status=status, times=None))
    number = world.issue(NO_OP)
    world.start()
    world.until_state(number, "blocked")
    world.until_polls(2)

    assert world.starts(number) == 0
    assert "refused" in world.cli("why", str(number))


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 403, "headers": {"Retry-After": "1"}},
        {"status": 429, "headers": {"Retry-After": "1"}},
    ],
)
def test_a_failing_or_limiting_server_decides_nothing_and_is_asked_again(world: World, fault: dict) -> None:
    asked = world.server.faults.add(Fault(match="GET */collaborators/ada/permission", times=1, **fault))
    number = world.issue(NO_OP)
    world.start()
    world.until_hit(asked)
    assert world.task(number) is None
    world.advance(5)
    world.until_state(number, "failed")

    assert world.starts(number) == 1
    assert world.store.decisions_of(1, 10)[0].record.decision == "admitted"


def test_the_login_of_a_renamed_account_does_not_lend_its_rights_to_who_takes_it_over(world: World) -> None:
    number = labelled_by(world, STRANGER)  # the event keeps the id of the stranger
    world.server.set_permission(REPO, "boss", "admin")
    answer = world.server.faults.add(
        Fault(
            match="GET */collaborators/mallory/permission",
            status=200,
            body={"permission": "admin", "role_name": "admin", "user": {"id": 424242, "login": STRANGER}},
        )
    )
    world.start()
    world.until_hit(answer)
    world.until_state(number, "blocked")

    assert world.starts(number) == 0
    assert "another account" in world.cli("why", str(number))


def test_a_label_from_somebody_without_write_access_never_starts_anything(world: World) -> None:
    number = world.issue(WRITE, by=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    world.until_polls(3)

    assert world.result(number) == Result(state="blocked", outcomes=(), attempts=0, comments=0)
    assert STRANGER in world.cli("why", str(number))
    assert "no write access" in world.cli("why", str(number))
    assert not world.live()


def test_a_maintainer_who_applies_the_label_again_starts_a_refused_issue(world: World) -> None:
    number = world.issue(WRITE, by=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    world.relabel(number, by=MAINTAINER)
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")


def test_an_operator_cannot_retry_what_nobody_with_write_access_has_asked_for(world: World) -> None:
    number = world.issue(WRITE, by=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    answer = world.cli("retry", str(number))
    world.until_polls(3)

    assert "refused" in answer
    assert world.result(number) == Result(state="blocked", outcomes=(), attempts=0, comments=0)
