"""Who put a label on: the list of an issue's events, read from its end.

GitHub lists events oldest first, a hundred a page, and strangers can make a list long (each change of their
own title is an event). So the last page comes first, then the one before it, until an event of the label is
there, or the bound is reached. Nothing is believed that other pages contradict. Owns no request but these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from adw_modules.errors import GitHubUnavailable
from coordinator.github import answers
from coordinator.github.answers import LabelBuried, LabelEvent, LabelTakenOff, MalformedError
from coordinator.github.wire import PER_PAGE, Answer, Wire, read

MOST_PAGES = 10  # requests for one question: a thousand events after the label's

Events = Sequence[Mapping[str, Any]]


def newest(wire: Wire, url: str, label: str) -> LabelEvent | LabelTakenOff | LabelBuried | None:
    """The newest event of `label` in the list at `url`; None when the whole list has none.

    LabelBuried: none among its newest events, and it goes on. Raises GitHubUnavailable.
    """
    first = wire.send("GET", url, params={"per_page": PER_PAGE}).expect(200)
    following = wire.follow(first)
    if following is None:
        return _judged(url, first.many(), label)
    numbered = _numbered(following, first.link("last"))
    if numbered is None:  # no pages by number, or no last one: from the front, all of it
        return _judged(url, list(wire.pages(url)), label)
    walk = _Walk(wire=wire, page=numbered.page, left=MOST_PAGES - 1)
    walk.to_the_end(numbered.last)
    return _walked(walk, first, url, label)


def _walked(
    walk: _Walk, first: Answer, url: str, label: str
) -> LabelEvent | LabelTakenOff | LabelBuried | None:
    """From the end towards the front. The first page is read again: meanwhile it may have moved."""
    is_sorted = _in_order(first.many(), walk.events)
    while is_sorted:
        found = _judged(url, walk.events, label)
        if found is not None or walk.first == 1:
            return found
        if not walk.left:
            return LabelBuried(newest_event=_newest_id(url, walk.events))
        earlier = walk.before()
        is_sorted = _in_order(earlier, walk.events)
        walk.take(earlier)
    return _judged(url, list(walk.wire.pages(url)), label)  # not by time: only all of it will do


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What has been read of the end of the list. `left`: how many requests may follow."""

    wire: Wire
    page: Callable[[int], str]  # its address
    left: int
    first: int = 0  # the number of the earliest page that was read
    events: Events = ()

    def to_the_end(self, last: int) -> None:
        """The last page, and those that came to be behind it meanwhile."""
        self.first, pages = last, []
        address: str | None = self.page(last)
        while address is not None:
            answer = self._send(address)
            pages.append(answer.many())
            address = self.wire.follow(answer)
        self.events = [event for page in pages for event in page]

    def before(self) -> Events:
        return self._send(self.page(self.first - 1)).many()

    def take(self, earlier: Events) -> None:
        self.first -= 1
        self.events = [*earlier, *self.events]

    def _send(self, address: str) -> Answer:
        if not self.left:
            raise GitHubUnavailable(
                f"GET {urlsplit(address).path}: the list grows faster than it can be read"
            )
        self.left -= 1
        return self.wire.send("GET", address).expect(200)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    """How to ask for a page by its number, and the number of the last one."""

    page: Callable[[int], str]
    last: int


def _numbered(following: str, last: str | None) -> _Numbered | None:
    """None unless the two addresses of GitHub differ in nothing but the number of the page."""
    if last is None:
        return None
    here, there = urlsplit(following), urlsplit(last)
    query, other = dict(parse_qsl(here.query)), dict(parse_qsl(there.query))
    number = other.pop("page", "")
    is_same = here[:3] == there[:3] and query.pop("page", "") == "2" and query == other
    if not is_same or not re.fullmatch(r"[1-9][0-9]{0,6}", number):
        return None

    def page(wanted: int) -> str:
        return urlunsplit((*here[:3], urlencode({**query, "page": wanted}), ""))

    return _Numbered(page=page, last=int(number)) if int(number) > 1 else None


def _judged(url: str, events: Events, label: str) -> LabelEvent | LabelTakenOff | None:
    return read(f"GET {url}", answers.last_label_event, events, label)


def _newest_id(url: str, events: Events) -> int:
    return max((read(f"GET {url}", answers.number, raw, "id") for raw in events), default=0)


def _in_order(earlier: Events, later: Events) -> bool:
    """Whether nothing of `earlier` is newer than anything of `later`."""
    newest_of_them, oldest = max(_times(earlier), default=None), min(_times(later), default=None)
    return newest_of_them is None or oldest is None or newest_of_them <= oldest


def _times(events: Events) -> Iterator[datetime]:
    for raw in events:
        try:
            yield answers.moment(raw, "created_at")
        except MalformedError:  # of an event that is none of ours; of a label's it is found out later
            continue
