"""What runs cost, added up: groups of ended runs, their total, and a report as rows, text lines and CSV.

Pure: the store counts and adds whole numbers, here groups become what people read. Must not price anything,
and must never show a cost that nobody knows as 0.

An amount is the sum of what is known: of runs with a cost, and of the priced models of runs of unknown cost.
Every way of grouping adds up to the same total, except by label, where a task counts once for each it has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from adw_modules.money.pricing import EXACT
from adw_modules.tasks.model import ModelUsage
from adw_modules.tasks.report import SUBSCRIPTION, dollars

NO_LABEL = "(no label)"
SEVERAL_MODELS = "(several models)"  # a charge told as one sum for them
DEFAULT_RULE = "default"
NO_TOKENS = ModelUsage()
PLACES = Decimal("0.000001")  # of a cost per success: a quotient, so rounded
_STEP = timedelta(hours=6)  # no zone has changed its clock twice within it
_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class ReportError(ValueError):
    """A wish that makes no sense, in one sentence."""


class Grouping(StrEnum):
    """What the rows of a report may be by."""

    DAY = "day"
    MODEL = "model"
    RULE = "rule"  # the strategy
    TASK = "task"
    LABEL = "label"
    REPOSITORY = "repository"
    PROVIDER = "provider"


_ALSO_CALLED = {"strategy": Grouping.RULE, "repo": Grouping.REPOSITORY}
TOTAL_ONLY = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Which ended runs count: from `since` up to, not including, `until` (aware; None: no bound)."""

    since: datetime | None
    until: datetime | None
    zone: tzinfo  # whose days the days are
    zone_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over some runs. `usd` is what is known; `unknown`: runs of whose cost at least a part is not."""

    runs: int = 0
    succeeded: int = 0
    unknown: int = 0
    subscription: int = 0
    subscription_succeeded: int = 0  # of those, and in `succeeded` too
    tokens: ModelUsage = NO_TOKENS
    usd: Decimal = Decimal(0)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            runs=self.runs + other.runs,
            succeeded=self.succeeded + other.succeeded,
            unknown=self.unknown + other.unknown,
            subscription=self.subscription + other.subscription,
            subscription_succeeded=self.subscription_succeeded + other.subscription_succeeded,
            tokens=self.tokens + other.tokens,
            usd=EXACT.add(self.usd, other.usd),
        )

    @property
    def known_usd(self) -> Decimal | None:
        """`usd`, or None where nothing of it is known."""
        has_known = self.usd or self.runs == 0 or self.runs > self.unknown + self.subscription
        return self.usd if has_known else None

    @property
    def known_tokens(self) -> ModelUsage | None:
        """`tokens`, or None where no run has told any: without tokens a cost would be known, and 0."""
        return self.tokens if self.tokens.total or self.known_usd is not None else None

    @property
    def per_success(self) -> Decimal | None:
        """What one success cost, the failures on the way to it included; None without both.

        Successes on a subscription were not paid with this money.
        """
        paid = self.succeeded - self.subscription_succeeded
        if not paid or self.known_usd is None:
            return None
        with localcontext(EXACT):
            return (self.usd / paid).quantize(PLACES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row: a value for each thing the report is by."""

    keys: tuple[str, ...]
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rows, and the sums over all runs of the period (of runs, not of rows)."""

    by: tuple[Grouping, ...]
    period: Period
    groups: tuple[Group, ...]
    total: Figures


# -- what was asked for -----------------------------------------------------------------------------------


def groupings(text: str) -> tuple[Grouping, ...]:
    """`model,day` -> what the rows are by; nothing for `total`. Raises ReportError."""
    words = [word.strip().lower() for word in text.split(",")]
    if words == [TOTAL_ONLY]:
        return ()
    known = {each.value: each for each in Grouping} | _ALSO_CALLED
    for word in words:
        if word not in known:
            names = ", ".join(Grouping)
            raise ReportError(
                f"costs cannot be grouped by {word!r}: use some of {names} with commas, or {TOTAL_ONLY}"
            )
    found = tuple(dict.fromkeys(known[word] for word in words))
    if len(found) < len(words):
        raise ReportError(f"{text!r} names something twice")
    return found


def period_of(since: str | None, until: str | None, zone_name: str) -> Period:
    """The period of two dates or ISO instants in words; a last date is included. Raises ReportError."""
    zone = _zone(zone_name)
    start = None if since is None else _instant(since, zone, "since", days=0)
    end = None if until is None else _instant(until, zone, "until", days=1)
    if start is not None and end is not None and start >= end:
        raise ReportError(
            f"there is nothing between since {since} and until {until}: since has to be earlier"
        )
    return Period(since=start, until=end, zone=zone, zone_name=zone_name)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # must work on a machine without time zone data
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ReportError(
            f"{name!r} is not a time zone of the IANA list, such as UTC or Europe/Berlin"
        ) from None


def _instant(text: str, zone: tzinfo, option: str, *, days: int) -> datetime:
    """The start of a date plus `days` in `zone`, or the instant, which has a zone of its own or `zone`."""
    try:
        if len(text.strip()) <= len("2026-11-21") and "T" not in text:
            day = date.fromisoformat(text.strip()) + timedelta(days=days)
            return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ReportError(
            f"{option} {text!r} is neither a date, such as 2026-11-21, nor an instant, "
            "such as 2026-11-21T09:30:00Z"
        ) from None


def offsets(zone: tzinfo, first: datetime, last: datetime) -> list[tuple[datetime, timedelta]]:
    """How far `zone` is ahead of UTC between two instants: each offset with the instant it ends at.

    The last one never ends; its instant is `last`.
    """
    found: list[tuple[datetime, timedelta]] = []
    at, offset = first.astimezone(UTC), _offset(zone, first)
    while at < last:
        following = min(at + _STEP, last)
        if _offset(zone, following) != offset:
            found.append((_change(zone, at, following), offset))
            offset = _offset(zone, following)
        at = following
    return [*found, (last, offset)]


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """The first whole second of the new offset."""
    old = _offset(zone, before)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before).total_seconds() // 2)
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


# -- adding up --------------------------------------------------------------------------------------------


def total_of(amounts: str | None) -> Decimal:
    """The exact sum of amounts joined by commas, as a database hands them over."""
    if not amounts:
        return Decimal(0)
    with localcontext(EXACT):
        return sum(map(Decimal, amounts.split(",")), Decimal(0))


def report(by: Sequence[Grouping], period: Period, parts: Iterable[Group], total: Figures) -> Report:
    """Add up the parts of equal keys; days in order, then the dearest first."""
    sums: dict[tuple[str, ...], Figures] = {}
    for part in parts:
        known = sums.get(part.keys)
        sums[part.keys] = part.figures if known is None else known + part.figures
    groups = [Group(keys=keys, figures=figures) for keys, figures in sums.items()]
    day = by.index(Grouping.DAY) if Grouping.DAY in by else None
    groups.sort(
        key=lambda group: (group.keys[day] if day is not None else "", -group.figures.usd, group.keys)
    )
    return Report(by=tuple(by), period=period, groups=tuple(groups), total=total)


def once_per_label(
    groups: Iterable[Group], place: int, labels_of: dict[str, tuple[str, ...]]
) -> Iterator[Group]:
    """Groups by all labels of a task together become groups by each of them; `place`: where the key is."""
    for group in groups:
        for label in labels_of[group.keys[place]] or (NO_LABEL,):
            yield replace(group, keys=(*group.keys[:place], label, *group.keys[place + 1 :]))


# -- for people and programs ------------------------------------------------------------------------------


def row_of(figures: Figures) -> dict[str, Any]:
    """The figures by the names that JSON and CSV have for them; money as text, None for what is unknown."""
    tokens = figures.known_tokens
    return {
        "runs": figures.runs,
        "succeeded": figures.succeeded,
        "input_tokens": None if tokens is None else tokens.input,
        "cache_read_tokens": None if tokens is None else tokens.cache_read,
        "cache_write_tokens": None if tokens is None else tokens.cache_write,
        "output_tokens": None if tokens is None else tokens.output,
        "cost_usd": _plain(figures.known_usd),
        "runs_of_unknown_cost": figures.unknown,
        "runs_on_subscription": figures.subscription,
        "cost_per_success_usd": _plain(figures.per_success),
    }


def as_data(found: Report) -> dict[str, Any]:
    """The whole report as plain data."""
    return {
        "by": [each.value for each in found.by],
        "since": found.period.since,
        "until": found.period.until,
        "timezone": found.period.zone_name,
        "groups": [
            dict(zip((each.value for each in found.by), group.keys, strict=True)) | row_of(group.figures)
            for group in found.groups
        ],
        "total": row_of(found.total),
    }


def as_csv(found: Report) -> str:
    """The rows as RFC 4180 has it: CRLF, quotes where needed. Without the total: sums are the reader's.

    Text that a spreadsheet would take for a formula gets an apostrophe in front: labels come from strangers.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*(each.value for each in found.by), *row_of(Figures())])
    groups = found.groups if found.by else (Group(keys=(), figures=found.total),)
    for group in groups:
        writer.writerow([*map(harmless, group.keys), *row_of(group.figures).values()])
    return out.getvalue()


def harmless(cell: str) -> str:
    """A cell that no spreadsheet runs."""
    return f"'{cell}" if cell.startswith(_STARTS_FORMULA) else cell


HEADINGS = ("runs", "done", "tokens in", "tokens out", "cost", "per success", "unknown", "subscr.")


def cells_of(figures: Figures) -> tuple[str, ...]:
    """A row of the table: what stands under HEADINGS. The last two count runs that are not in the money."""
    tokens, each, usd = figures.known_tokens, figures.per_success, figures.known_usd
    at_least = "≥ " if figures.unknown else ""
    nothing = SUBSCRIPTION if figures.runs == figures.subscription else "unknown"
    return (
        f"{figures.runs:,}",
        f"{figures.succeeded:,}",
        "?" if tokens is None else f"{tokens.prompt:,}",
        "?" if tokens is None else f"{tokens.output:,}",
        nothing if usd is None else at_least + dollars(usd),
        "" if each is None else at_least + dollars(each),
        f"{figures.unknown:,}" if figures.unknown else "",
        f"{figures.subscription:,}" if figures.subscription else "",
    )


def remarks(found: Report) -> Iterator[str]:
    """What has to be known to read the rows."""
    if Grouping.LABEL in found.by:
        yield (
            "A task counts once for each of its labels, so the rows add up to more than the total, "
            "which is of runs."
        )
    if found.total.unknown:
        yield "unknown: runs of whose cost nobody knows all; what is known of it is in the sums."
    if found.total.subscription:
        yield "subscr.: runs on a subscription, whose tokens have no price."
    if Grouping.MODEL in found.by:
        yield "A run counts in the row of each model it used; the total counts it once."


def _plain(usd: Decimal | None) -> str | None:
    return None if usd is None else format(usd, "f")
