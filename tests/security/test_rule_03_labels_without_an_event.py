"""Rule 3: a label that no event tells of was there from the beginning: whoever opened the issue is judged."""

from __future__ import annotations

from world import BOT, LABEL, LISTS, MAINTAINER, REPO, STRANGER, WRITE, Fault, Result, World


def from_a_template(world: World, author: str, **more: str) -> int:
    """An issue whose template has put the label on, whoever wrote it."""
    return world.server.add_issue(
        REPO, title="From a form", body=WRITE, author=author, labels=[LABEL], label_events=False, **more
    )


def test_an_outsiders_template_label_starts_nothing_and_says_nothing(world: World) -> None:
    number = from_a_template(world, STRANGER)
    world.start()
    world.until_state(number, "blocked")
    world.until_polls(3)

    assert world.result(number) == Result(state="blocked", outcomes=(), attempts=0, comments=0)
    assert f"opened with the label by {STRANGER}" in world.cli("why", str(number))
    assert world.starts(number) == 0
    written = [each for each in world.server.requests if each.method in ("POST", "PATCH", "DELETE")]
    assert {each.path for each in written} == {"/graphql"}


def test_a_person_with_write_access_may_open_an_issue_with_the_label(world: World) -> None:
    number = from_a_template(world, MAINTAINER)
    world.start()
    world.until_state(number, "succeeded")


def test_an_app_that_opens_an_issue_starts_nothing(world: World) -> None:
    world.server.set_permission(REPO, "forms[bot]", "admin")
    number = from_a_template(world, "forms[bot]")
    world.start()
    world.until_state(number, "blocked")

    assert world.starts(number) == 0


def test_a_maintainer_who_puts_the_label_on_anew_starts_it(world: World) -> None:
    number = from_a_template(world, STRANGER)
    world.start()
    world.until_state(number, "blocked")
    world.relabel(number)
    world.until_state(number, "succeeded")


def test_a_label_that_was_taken_off_meanwhile_starts_nothing(world: World) -> None:
    """The list still shows it, and no creator is asked: the events know better."""
    number = from_a_template(world, MAINTAINER)
    listed = world.server.faults.add(Fault(match=LISTS, kind="late", seconds=60))
    world.start()
    world.until_hit(listed)
    world.server.remove_label(REPO, number, LABEL, actor=MAINTAINER)
    world.server.release()
    world.until_polls(3)

    assert world.starts(number) == 0


def test_at_most_one_comment_is_written_and_only_where_that_is_configured(a_world) -> None:
    world: World = a_world(admission={"comment_on_refusal": True})
    number = from_a_template(world, STRANGER)
    world.start()
    world.until(lambda: world.comments(number), "it is told")
    world.server.add_comment(REPO, number, "Why not?", author=STRANGER)  # looked at again, and nothing new
    world.until_polls(4)
    world.relabel(number, by=STRANGER)  # another reason: the same comment is edited
    world.until(lambda: "applied by" in world.comment(number), "the reason is the new one")
    world.until_polls(2)

    assert "Not started" in world.comment(number)
    assert [each.author for each in world.server.comments(REPO, number)] == [BOT, STRANGER]
    assert world.label(number) == ""
    assert world.starts(number) == 0
