"""Rule 2: bots and apps start nothing, but for those that the configuration names by their account id."""

from __future__ import annotations

from world import LABEL, MAINTAINER, REPO, World

NO_OP = "[[agent: no-op]]"
BOTS = ("mallory[bot]", "github-actions[bot]", "renovate[bot]")


def an_issue(world: World) -> int:
    return world.server.add_issue(REPO, title="Update", body=NO_OP, author=MAINTAINER)


def labelled(world: World, actor: str, **how: str) -> int:
    number = an_issue(world)
    world.server.add_label(REPO, number, LABEL, actor=actor, **how)
    return number


def judged(world: World, numbers: dict[str, int]) -> set[str]:
    """Those that were started, once all of them were decided."""
    world.until(lambda: all(world.task(number) for number in numbers.values()), "all are judged")
    world.until(
        lambda: all(world.task(n).state in ("blocked", "failed") for n in numbers.values()), "all rest"
    )
    return {name for name, number in numbers.items() if world.starts(number)}


def test_no_bot_and_no_app_starts_anything_even_as_a_user_with_write_access(world: World) -> None:
    numbers = {name: labelled(world, name) for name in BOTS}
    for name in BOTS:
        world.server.set_permission(REPO, name, "admin")
    numbers["as its user"] = labelled(world, MAINTAINER, via_app="some-app")
    numbers["agent of its user"] = labelled(world, MAINTAINER, intent="I think that this is ready")
    world.start()

    assert judged(world, numbers) == set()
    assert "app" in world.cli("why", str(numbers["as its user"]))


def test_a_listed_bot_starts_work_and_none_that_looks_like_it(a_world) -> None:
    world: World = a_world()
    listed = world.server.add_user("renovate[bot]", kind="Bot")
    person = world.server.add_user("person", kind="User")  # its id in the list makes no bot of it
    world.write_config(admission={"bots": [listed, person]})
    numbers = {
        "listed": labelled(world, "renovate[bot]"),
        "as its app": labelled(world, "renovate[bot]", via_app="renovate"),
        "look-alike": labelled(world, "renovate-bot"),
        "person": labelled(world, "person"),
        "person through an app": labelled(world, "person", via_app="renovate"),
        "other bot": labelled(world, "rcnovate[bot]"),
    }
    world.server.add_user("renovate", kind="User")
    numbers["person with the name of the app"] = labelled(world, "renovate")
    world.start()

    assert judged(world, numbers) == {"listed", "as its app"}


def test_somebody_who_takes_over_the_name_of_a_listed_bot_is_not_it(a_world) -> None:
    world: World = a_world()
    listed = world.server.add_user("helper[bot]", kind="Bot")
    world.write_config(admission={"bots": [listed]})
    world.server.rename_user("helper[bot]", "retired[bot]")
    numbers = {"new": labelled(world, "helper[bot]"), "old": labelled(world, "retired[bot]")}
    world.start()

    assert judged(world, numbers) == {"old"}


def test_whoever_lists_the_bot_of_all_workflows_is_warned(a_world) -> None:
    world: World = a_world(admission={"bots": [41898282]})
    assert "github-actions[bot]" in world.output("doctor")
