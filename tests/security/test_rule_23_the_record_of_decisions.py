"""Rule 23: each decision about who may start work leaves a record, without secrets and without texts."""

from __future__ import annotations

import json
import sqlite3

from world import LABEL, MAINTAINER, REPO, STRANGER, TOKEN, WAIT, World

from adw_modules.security.admission import fingerprint

CANARY = "canary-in-the-text-8c1f2e"


def test_every_decision_is_recorded_with_all_that_it_was_made_of(world: World) -> None:
    body = f"{WAIT}\n{CANARY}"
    number = world.server.add_issue(REPO, title=CANARY, body=body, author=STRANGER)
    world.server.add_label(REPO, number, LABEL, actor=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    world.relabel(number)
    world.until_working(number)
    label = [each for each in world.server.events(REPO, number) if each.label == LABEL][-1]
    world.github_clock.advance(2)
    world.server.edit_issue(REPO, number, body=f"{CANARY} again")
    world.until_state(number, "blocked")

    found = [each.record for each in world.store.decisions_of(world.task(number).task_id, 10)]
    assert [each.decision for each in found] == ["refused", "admitted", "paused"]
    refused, admitted, paused = found
    assert (refused.standing.actor.login, refused.standing.permission) == (STRANGER, "read")
    assert (admitted.standing.actor.login, admitted.standing.role) == (MAINTAINER, "write")
    assert admitted.standing.actor.user_id == world.server.add_user(MAINTAINER)
    assert (admitted.event_id, admitted.snapshot) == (label.id, fingerprint(CANARY, body))
    assert paused.standing.actor.login == STRANGER
    assert paused.details["approved"] == admitted.snapshot
    assert len({each.config_version for each in found}) == 1


def test_a_decision_that_is_made_once_more_fills_neither_the_store_nor_the_log(world: World) -> None:
    number = world.issue(WAIT, by=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    for _ in range(3):
        world.github_clock.advance(2)
        world.server.add_comment(REPO, number, "And now?", author=STRANGER)
        world.until_polls(2)

    assert len(world.store.decisions_of(1, 10)) == 1
    assert len(world.events("decided")) == 1


def test_records_and_log_lines_hold_neither_texts_nor_secrets(a_world) -> None:
    world: World = a_world(admission={"comments": True})
    number = world.server.add_issue(REPO, title=CANARY, body=f"{WAIT} {CANARY} {TOKEN}", author=MAINTAINER)
    world.github_clock.advance(2)
    world.server.add_comment(REPO, number, f"{CANARY} {TOKEN}", author=MAINTAINER)
    world.github_clock.advance(2)
    world.server.add_label(REPO, number, LABEL, actor=MAINTAINER)
    world.start()
    world.until(lambda: world.events("decided"), "it is decided")
    (line,) = world.events("decided")
    said = json.dumps(line) + json.dumps(world.cli("why", str(number), "--json")["decisions"])

    assert line["actor"] == MAINTAINER
    assert line["snapshot"] == world.store.decisions_of(1, 1)[0].record.snapshot
    assert world.task(number).snapshot_comments[0].body.startswith(CANARY)
    assert CANARY not in said
    assert TOKEN not in said + world.log_stream.getvalue()


def test_the_record_is_only_ever_added_to(world: World) -> None:
    """No statement of ours changes or deletes a row: the database sees none."""
    number = world.issue(WAIT, by=STRANGER)
    world.start()
    world.until_state(number, "blocked")
    file = world.state_dir / "coordinator.db"
    with sqlite3.connect(file) as connection:
        for what in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER no_{what} BEFORE {what} ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
    connection.close()
    world.relabel(number)
    world.until_working(number)
    world.server.close_issue(REPO, number, actor=MAINTAINER)
    world.until_state(number, "cancelled")

    assert [each.record.decision for each in world.store.decisions_of(1, 10)] == ["refused", "admitted"]
