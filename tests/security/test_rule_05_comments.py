"""Rule 5: no comment reaches the agent; where configured, those from before the label by who may start."""

from __future__ import annotations

import json

from world import LABEL, MAINTAINER, REPO, STRANGER, Fault, World

NO_OP = "[[agent: no-op]]"
ANOTHER = "another"


def an_issue(world: World) -> int:
    world.server.set_permission(REPO, ANOTHER, "admin")
    number = world.server.add_issue(REPO, title="Say hello", body=NO_OP, author=STRANGER)
    world.github_clock.advance(2)
    return number


def says(world: World, number: int, body: str, author: str, **how: str) -> int:
    return world.server.add_comment(REPO, number, body, author=author, **how)


def label(world: World, number: int) -> None:
    world.github_clock.advance(2)
    world.server.add_label(REPO, number, LABEL, actor=MAINTAINER)


def prompt(world: World, number: int) -> str:
    world.until(lambda: world.starts(number), "it is started")
    (path,) = (world.state_dir / "runs").glob("*/prompt.md")
    return path.read_text()


def test_comments_are_not_even_asked_for_unless_that_is_configured(world: World) -> None:
    number = an_issue(world)
    says(world, number, "Mind the greeting", MAINTAINER)
    label(world, number)
    world.start()

    assert "Mind the greeting" not in prompt(world, number)
    assert world.store.decisions_of(1, 5)[0].record.details == {}


def test_only_what_permitted_people_said_before_the_label_reaches_the_agent(a_world) -> None:
    world: World = a_world(admission={"comments": True})
    number = an_issue(world)
    says(world, number, "one: by a maintainer", MAINTAINER)
    says(world, number, "two: by an outsider", STRANGER)
    edited = says(world, number, "three: fine as it was", MAINTAINER)
    says(world, number, "four: through an app", MAINTAINER, via_app="some-app")
    says(world, number, "five: by a bot", "helper[bot]")
    says(world, number, "six: by somebody else who may", ANOTHER)
    label(world, number)
    says(world, number, "seven: in the second of the label or later", MAINTAINER)
    world.github_clock.advance(2)
    world.server.edit_comment(REPO, edited, "three: turned into something else")
    world.start()
    text = prompt(world, number)

    assert [
        word for word in ("one", "two", "three", "four", "five", "six", "seven") if f"{word}: " in text
    ] == [
        "one",
        "six",
    ]
    task = world.task(number)
    assert [(each.author, each.body) for each in task.snapshot_comments] == [
        (MAINTAINER, "one: by a maintainer"),
        (ANOTHER, "six: by somebody else who may"),
    ]
    assert text.index("BEGIN ISSUE") < text.index("BEGIN COMMENT") < text.index("one: by")


def test_a_comment_of_an_account_that_gave_its_name_away_is_not_the_new_ones(a_world) -> None:
    """The comment keeps the id; asking for the rights of its login would ask about somebody else."""
    world: World = a_world(admission={"comments": True})
    number = an_issue(world)
    says(world, number, "by the stranger", STRANGER)
    label(world, number)
    mallory = world.server.add_user(STRANGER)
    body = {"permission": "admin", "role_name": "admin", "user": {"id": mallory + 4242, "login": STRANGER}}
    world.server.faults.add(
        Fault(match=f"GET */collaborators/{STRANGER}/permission", status=200, body=body, times=None)
    )
    world.start()

    assert "by the stranger" not in prompt(world, number)


def test_a_renamed_person_keeps_their_rights_and_their_comment(a_world) -> None:
    world: World = a_world(admission={"comments": True})
    number = an_issue(world)
    says(world, number, "said before the new name", ANOTHER)
    world.server.rename_user(ANOTHER, "somebody")
    world.server.add_user(ANOTHER)
    says(world, number, "said by who took the old name", ANOTHER)
    label(world, number)
    world.start()
    text = prompt(world, number)

    assert "said before the new name" in text
    assert "said by who took the old name" not in text


def test_comments_are_never_asked_for_again(a_world) -> None:
    world: World = a_world(admission={"comments": True}, coordinator={"max_attempts": 2})
    number = world.server.add_issue(REPO, title="Try", body="[[agent: fail]]", author=STRANGER)
    world.github_clock.advance(2)
    said = says(world, number, "first words", MAINTAINER)
    label(world, number)
    asked = f"GET /repos/{REPO}/issues/{number}/comments"
    world.start()
    world.until_working(number)
    before = len(world.server.requests_matching(asked))
    world.github_clock.advance(2)
    world.server.edit_comment(REPO, said, "other words")
    world.until_state(number, "failed")
    texts = [path.read_text() for path in (world.state_dir / "runs").glob("*/prompt.md")]

    assert len(texts) == 2
    assert all("first words" in text and "other words" not in text for text in texts)
    assert len(world.server.requests_matching(asked)) <= before + 1  # our own comment is looked for once
    assert "first words" not in json.dumps(world.cli("why", str(number), "--json"))
