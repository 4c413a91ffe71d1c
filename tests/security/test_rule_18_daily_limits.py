"""Rule 18: runs of a day are limited by repository, author and labeller; toggling a label gains nothing."""

from __future__ import annotations

import pytest
from world import LABEL, MAINTAINER, REPO, STRANGER, WRITE, World

from adw_modules.tasks.model import TaskState

DAY = 86_400
OTHER = "grace"


def _begun(world: World, numbers: list[int]) -> int:
    return sum(world.starts(number) for number in numbers)


def _has_cause(world: World, number: int, part: str) -> bool:
    task = world.task(number)
    return task is not None and task.state is TaskState.BLOCKED and part in (task.cause or "")


@pytest.mark.parametrize("share", ["repository", "author", "labeller"])
def test_the_run_beyond_a_days_limit_waits_for_the_next_day(a_world, share: str) -> None:
    world: World = a_world(limits={f"runs_per_{share}_per_day": 2})
    numbers = [world.issue(WRITE) for _ in range(4)]
    world.start()
    world.until(lambda: sum(world.pulls(number) != [] for number in numbers) == 2, "two are done")
    late = [number for number in numbers if not world.starts(number)]
    for number in late:
        task = world.until_state(number, "blocked")
        assert f"limits.runs_per_{share}_per_day" in (task.cause or "")
        assert task.attempts == 0
        assert task.wake_at is not None
        assert f"limits.runs_per_{share}_per_day" in world.comment(number)
        assert f"limits.runs_per_{share}_per_day" in world.cli("why", str(number))
    edits = world.server.requests_matching("PATCH /repos/octo/hello/issues/comments")

    for _ in range(3):  # it is looked at again and again, and nothing is written for that
        polls = world.polls()
        world.until(lambda polls=polls: world.polls() > polls, "another poll")
    assert world.server.requests_matching("PATCH /repos/octo/hello/issues/comments") == edits
    assert _begun(world, numbers) == 2

    world.advance(DAY)
    world.until(lambda: all(world.pulls(number) for number in numbers), "the others are done, a day later")
    assert [world.task(number).attempts for number in numbers] == [1] * 4  # type: ignore[union-attr]


def test_a_restart_forgets_no_run_of_the_day_and_a_changed_file_lifts_the_limit(a_world) -> None:
    world: World = a_world(limits={"runs_per_repository_per_day": 1})
    first = world.issue(WRITE)
    world.start()
    world.until_state(first, "succeeded")
    world.stop()
    second = world.issue(WRITE)
    world.start()
    world.until_state(second, "blocked")
    assert world.starts(second) == 0

    world.write_config(limits={"runs_per_repository_per_day": 5})
    world.until_state(second, "succeeded")


def test_what_one_author_has_used_up_is_not_taken_from_others(a_world) -> None:
    """Somebody opens many issues, and whoever labels them does not look who it is."""
    world: World = a_world(limits={"runs_per_author_per_day": 1})
    world.server.set_permission(REPO, OTHER, "read")
    flood = [_opened_by(world, STRANGER) for _ in range(3)]
    honest = _opened_by(world, OTHER)
    world.start()
    world.until_state(honest, "succeeded")
    world.until(
        lambda: sum(_has_cause(world, number, "runs_per_author_per_day") for number in flood) == 2,
        "two of the flood wait",
    )
    assert _begun(world, flood) == 1


def _opened_by(world: World, login: str) -> int:
    return world.server.add_issue(
        REPO, title="Say hello", body=WRITE, author=login, labels=[LABEL], labelled_by=MAINTAINER
    )


def test_a_thousand_toggles_of_the_label_start_little_and_write_little(a_world) -> None:
    """Over an hour of the daemon's time, so that each wait that there is comes to its end many times."""
    world: World = a_world(
        limits={"retrigger_minutes": 10},
        coordinator={"poll_interval_seconds": 3600, "max_runs_per_issue": 500},
    )
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    before = len(world.server.requests)
    polls = 0
    for toggle in range(1000):
        world.github_clock.advance(2)
        (world.server.add_label if toggle % 2 else world.server.remove_label)(
            REPO, number, LABEL, actor=MAINTAINER
        )
        if toggle % 25 == 24:  # GitHub is asked forty times in this hour, half of them without the label
            listed = world.polls()
            world.advance(90)
            world.until(lambda listed=listed: world.polls() > listed or world.advance(0), "it was polled")
            world.until(world.is_published, "all is told")
            polls += 1

    asked = world.server.requests[before:]
    written = [each for each in asked if each.method != "GET" and each.path != "/graphql"]
    assert polls == 40
    assert 1 < world.starts(number) <= 8  # an hour has six times ten minutes
    assert len(world.comments(number)) == 1
    assert len(written) <= 2 * polls
    assert len(asked) <= 8 * polls  # although the issue has 1,000 events by now, ten pages of them
