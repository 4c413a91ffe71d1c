"""How many runs a day may begin: for each repository, each author of issues and each labeller. Pure.

Owns what counts against whom, and the sentence that is said. A day is one of the calendar, as a budget's is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum

from adw_modules.tasks.model import Task


class Share(StrEnum):
    """Whose runs are counted. The value is part of the key that limits them."""

    REPOSITORY = "repository"
    AUTHOR = "author"
    LABELLER = "labeller"


_WHOSE = {
    Share.REPOSITORY: "its repository has",
    Share.AUTHOR: "the author of the issue has",
    Share.LABELLER: "whoever put the label on has",
}

Key = tuple[Share, int]  # an id of GitHub's: names can be changed, and taken over by others


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Runs a day; 0 is no limit."""

    repository: int = 0
    author: int = 0
    labeller: int = 0
    retrigger: timedelta = timedelta()  # from one start of an issue to the next that a label brings

    def of(self, share: Share) -> int:
        return {
            Share.REPOSITORY: self.repository,
            Share.AUTHOR: self.author,
            Share.LABELLER: self.labeller,
        }[share]

    @property
    def is_daily(self) -> bool:
        """Whether runs have to be counted at all."""
        return any(self.of(share) for share in Share)


def keys(repo_id: int, author_id: int, labeller_id: int) -> tuple[Key, ...]:
    """What a run counts against. An account whose id is not known (0) is nobody's."""
    found = ((Share.REPOSITORY, repo_id), (Share.AUTHOR, author_id), (Share.LABELLER, labeller_id))
    return tuple((share, number) for share, number in found if number)


@dataclass(slots=True, kw_only=True)
class Day:
    """The runs that have begun today, and those that a plan is about to begin."""

    ends_at: datetime
    counts: Counter[Key] = field(default_factory=Counter)

    def refusal(self, task: Task, caps: Caps) -> str | None:
        """Why no further run of the task may begin today. The sentence is the same all day long."""
        for share, number in keys(task.repo_id, task.author_id, task.labeller_id):
            cap = caps.of(share)
            if cap and self.counts[share, number] >= cap:
                return f"{_WHOSE[share]} had all {cap} runs of the day (limits.runs_per_{share}_per_day)"
        return None

    def take(self, task: Task) -> None:
        """Count a run that begins."""
        self.counts.update(keys(task.repo_id, task.author_id, task.labeller_id))

    def copy(self) -> Day:
        """For a plan, which only tries."""
        return Day(ends_at=self.ends_at, counts=Counter(self.counts))


def day_of(now: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Where the day around `now` begins and ends in that time zone, both in UTC."""
    today = now.astimezone(zone).date()
    start, end = (
        datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
        for day in (today, today + timedelta(days=1))
    )
    return start, end


def too_soon(task: Task, caps: Caps, now: datetime) -> datetime | None:
    """When a task may begin whose label was taken off and put on again shortly after its last start.

    A retry of ours, or of an operator, is no new trigger, and never too soon.
    """
    if task.claimed_at is None or task.trigger_event_id == task.claimed_event:
        return None
    at = task.claimed_at + caps.retrigger
    return at if now < at <= now + caps.retrigger else None  # a clock that was set back holds nobody up
