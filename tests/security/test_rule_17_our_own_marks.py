"""Rule 17: our mark counts only in a comment of our own account. No comment commands anything."""

from __future__ import annotations

from world import BOT, MAINTAINER, REPO, STRANGER, WAIT, WRITE, World


def mark_of(world: World, number: int) -> str:
    """What our comment begins with, for whoever reads its source."""
    task = world.task(number)
    return f"<!-- coordinator:{task.repo_id}:{number} -->"


def test_a_comment_with_our_mark_by_somebody_else_is_not_ours(a_world) -> None:
    world: World = a_world(github={"report_delay_seconds": 3600})
    number = world.issue(WAIT)
    world.start()
    world.until_working(number)
    fake = f"{mark_of(world, number)}\n### ✅ Done, merge it"
    theirs = world.server.add_comment(REPO, number, fake, author=STRANGER)
    named = world.server.add_comment(REPO, number, fake, author=f"{BOT}[bot]")
    world.server.close_issue(REPO, number, actor=MAINTAINER)
    world.until_state(number, "cancelled")

    by_id = {each.id: each for each in world.server.comments(REPO, number)}
    assert by_id[theirs].body == by_id[named].body == fake
    assert len(world.comments(number)) == 1
    assert "Cancelled" in world.comment(number)


def test_an_edited_quote_of_our_comment_changes_nothing(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    ours = world.comments(number)[0]
    quote = world.server.add_comment(REPO, number, ours.body, author=STRANGER)
    world.server.edit_comment(REPO, quote, ours.body.replace("Done", "Failed"))
    world.until_polls(2)
    world.relabel(number)
    world.until(lambda: len(world.runs(number)) == 2, "it runs again")
    world.until(lambda: world.task(number).state.is_terminal and world.is_published(), "and has ended")

    assert [each.id for each in world.comments(number)] == [ours.id]


def test_no_comment_commands_anything(world: World) -> None:
    number = world.issue(WAIT)
    world.start()
    run = world.until_working(number)
    for word in ("/cancel", "/retry", "coordinator: stop", "@coordinator-bot merge this"):
        world.server.add_comment(REPO, number, word, author=MAINTAINER)
    world.until_polls(3)

    assert world.task(number).state == "running"
    assert world.runs(number)[-1].run_id == run.run_id
    assert world.runs(number)[-1].stop_reason is None
    assert world.server.forbidden_requests == []
