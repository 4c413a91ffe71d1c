from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.routing import RoutingDecision
from adw_modules.tasks.model import Task
from adw_modules.tasks.planning import JUST_BEGUN, Dispatch, Limits, Park, Supply, plan
from adw_modules.tasks.quotas import Caps, Day, Share, day_of, keys, too_soon
from tests.builders import NOW, a_snapshot, a_task, later

MIDNIGHT = later(3600)


def to_somewhere(_attrs, _eligible):
    return RoutingDecision(provider="p", model="m", rule="r", reason="because", trace=())


def limits(caps: Caps, slots: int = 10) -> Limits:
    return Limits(
        max_concurrent=slots, max_runs_per_issue=15, max_tokens_per_issue=10, per_provider={}, caps=caps
    )


def task_of(number: int, *, repo: int = 1, author: int = 2, labeller: int = 3) -> Task:
    return a_task(
        task_id=number,
        name=f"gh-{number}",
        issue_number=number,
        repo_id=repo,
        author_id=author,
        labeller_id=labeller,
    )


def planned(tasks: tuple[Task, ...], caps: Caps, counts: dict[tuple[Share, int], int] | None = None):
    supply = Supply(today=Day(ends_at=MIDNIGHT, counts=Counter(counts or {})))
    return plan(a_snapshot(ready=tasks), limits=limits(caps), route=to_somewhere, supply=supply)


@pytest.mark.parametrize(
    ("caps", "word"),
    [
        (Caps(repository=2), "repository"),
        (Caps(author=2), "author"),
        (Caps(labeller=2), "labeller"),
    ],
)
def test_the_task_beyond_a_limit_is_parked_until_the_day_is_over(caps: Caps, word: str) -> None:
    first, second, third = planned(tuple(task_of(n) for n in (1, 2, 3)), caps)
    assert isinstance(first, Dispatch)
    assert isinstance(second, Dispatch)
    assert isinstance(third, Park)
    assert third.wake_at == MIDNIGHT
    assert f"limits.runs_per_{word}_per_day" in third.cause
    assert "all 2 runs" in third.cause


def test_what_one_has_used_up_is_still_there_for_others() -> None:
    full: dict[tuple[Share, int], int] = {(Share.AUTHOR, 2): 5, (Share.LABELLER, 3): 5}
    mine, theirs = planned((task_of(1), task_of(2, author=8, labeller=9)), Caps(author=5, labeller=5), full)
    assert isinstance(mine, Park)
    assert isinstance(theirs, Dispatch)


def test_a_plan_counts_nothing_for_good() -> None:
    today = Day(ends_at=MIDNIGHT)
    for _ in range(3):
        supply = Supply(today=today)
        (action,) = plan(
            a_snapshot(ready=(task_of(1),)),
            limits=limits(Caps(repository=1)),
            route=to_somewhere,
            supply=supply,
        )
        assert isinstance(action, Dispatch)


def test_accounts_that_nobody_knows_are_limited_by_their_repository_only() -> None:
    assert keys(7, 0, 0) == ((Share.REPOSITORY, 7),)


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)), max_size=12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_no_plan_begins_more_than_is_allowed(
    whose: list[tuple[int, int, int]], repository: int, author: int, labeller: int
) -> None:
    caps = Caps(repository=repository, author=author, labeller=labeller)
    tasks = tuple(
        task_of(number, repo=ids[0], author=ids[1], labeller=ids[2])
        for number, ids in enumerate(whose, start=1)
    )
    begun: Counter[tuple[Share, int]] = Counter()
    for action in planned(tasks, caps):
        if isinstance(action, Dispatch):
            begun.update(keys(action.task.repo_id, action.task.author_id, action.task.labeller_id))
    assert all(not caps.of(share) or count <= caps.of(share) for (share, _), count in begun.items())


WAIT = Caps(retrigger=timedelta(minutes=2))


@pytest.mark.parametrize(
    ("changes", "until"),
    [
        ({"claimed_at": None, "claimed_event": None}, None),
        ({"claimed_at": NOW, "claimed_event": 7}, None),  # a retry: the label is the same
        ({"claimed_at": NOW, "claimed_event": 6}, later(120)),
        ({"claimed_at": later(-119), "claimed_event": 6}, later(1)),
        ({"claimed_at": later(-120), "claimed_event": 6}, None),
        ({"claimed_at": later(600), "claimed_event": 6}, None),  # the clock was set back
    ],
)
def test_a_label_put_on_again_waits_from_the_last_start(changes: dict[str, object], until: object) -> None:
    assert too_soon(a_task(trigger_event_id=7, **changes), WAIT, NOW) == until


def test_a_label_put_on_again_too_soon_parks_the_task() -> None:
    task = a_task(trigger_event_id=7, claimed_at=NOW, claimed_event=6)
    (action,) = plan(a_snapshot(ready=(task,)), limits=limits(WAIT), route=to_somewhere)
    assert action == Park(task=task, cause=JUST_BEGUN, wake_at=later(120))


@pytest.mark.parametrize(
    ("now", "zone", "end"),
    [
        (datetime(2026, 3, 28, 12, tzinfo=UTC), "UTC", datetime(2026, 3, 29, tzinfo=UTC)),
        (datetime(2026, 3, 29, 12, tzinfo=UTC), "Europe/Berlin", datetime(2026, 3, 29, 22, tzinfo=UTC)),
        (datetime(2026, 3, 28, 23, 30, tzinfo=UTC), "Europe/Berlin", datetime(2026, 3, 29, 22, tzinfo=UTC)),
    ],
)
def test_a_day_ends_where_people_are(now: datetime, zone: str, end: datetime) -> None:
    start, found = day_of(now, ZoneInfo(zone))
    assert found == end
    assert start <= now < found
