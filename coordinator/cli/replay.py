"""`coordinator route replay`: recorded tasks decided again by another configuration. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, JsonOption

if TYPE_CHECKING:
    from adw_modules.routing import Resolver
    from adw_modules.routing.replay import Change, Estimate, Replay
    from coordinator.settings import LoadedSettings

MOST_SHOWN = 20  # changes; JSON has all of them
ASSUMED = (
    "Each target that the configuration has and enables counts as eligible, unless the recorded trace says "
    "that it was not. A retry is decided as it was recorded, also where its first run would now go "
    "elsewhere. Selections are worked out with what is known today."
)

_SPAN = re.compile(r"^(?P<count>\d{1,5})(?P<unit>[hdw])$")
_HOURS = {"h": 1, "d": 24, "w": 24 * 7}


def replay(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The configuration to try.", show_default=True)
    ] = DEFAULT_CONFIG,
    since: Annotated[
        str, typer.Option("--since", help="Only what was decided since: 30d, 12h, 4w or a date.")
    ] = "30d",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many decisions, the newest.")
    ] = None,
    recorded_by: Annotated[
        Path,
        typer.Option(
            "--recorded-by",
            envvar="COORDINATOR_CONFIG",
            help="The configuration that the daemon runs on: its tasks are decided again.",
        ),
    ] = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Decide recorded tasks again with another configuration: what would change, and what it would cost."""
    from coordinator.cli.common import print_json, settings_source
    from coordinator.clock import utc_now

    tried = settings_source(config).current
    began = _since(since, utc_now())
    found = _replayed(tried, recorded_by if recorded_by.exists() else config, began, limit)
    if as_json:
        print_json(_facts(found, tried, config, began))
        return
    from coordinator.logs import printable

    for line in _lines(found, config, began):
        typer.echo(printable(line))


def _since(text: str, now: datetime) -> datetime:
    if found := _SPAN.match(text.strip()):
        return now - timedelta(hours=int(found["count"]) * _HOURS[found["unit"]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a span such as 30d, 12h or 4w, nor a date such as 2026-03-01",
            param_hint="--since",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _replayed(tried: LoadedSettings, recorded_by: Path, since: datetime, limit: int | None) -> Replay:
    from adw_modules.routing import ModelRouter
    from adw_modules.routing.replay import replay as decide_again
    from coordinator.cli.common import reading, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.selecting import listing_of, resolvers_of

    providers, moment = tried.settings.providers, utc_now()

    def why_not(name: str) -> str | None:
        if name not in providers:
            return "not configured"
        return None if providers[name].enabled else "disabled"

    with reading(settings_in_force(recorded_by).loaded) as store:
        recorded, history = store.decided(since=since, limit=limit), store.history()
        today = resolvers_of(tried.settings, store, lambda: moment)
        # The router gets no clock, so that an hour that was not recorded stays unknown.
        resolvers = {word: _at(moment, resolver) for word, resolver in today.items()}
        listing = listing_of(tried.settings, store)
        router = ModelRouter(tried.settings, resolvers=resolvers, listing=listing)
        return decide_again(router, recorded, history, why_not=why_not)


def _at(moment: datetime, resolver: Resolver) -> Resolver:
    return lambda spec, attrs, _unknown: resolver(spec, attrs, moment)


def _facts(found: Replay, tried: LoadedSettings, config: Path, since: datetime) -> dict[str, Any]:
    facts = {"config": str(config), "config_version": tried.version, "since": since, **asdict(found)}
    return {**facts, "changed": found.changed, "assumed": ASSUMED}


# --- printing -----------------------------------------------------------------------------------


def _lines(found: Replay, config: Path, since: datetime) -> Iterator[str]:
    if not found.decisions:
        yield f"Nothing was decided since {since:%Y-%m-%d %H:%M} UTC."
        return
    replayed = found.decisions - found.not_replayable
    yield f"{replayed:,} decisions on {_of(found.tasks, 'task')} decided again with {config}."
    yield from _left_out(found)
    others = f"{found.same:,} would not, {found.other_rule:,} of them by another rule"
    yield f"{found.changed:,} would go elsewhere; {others}."
    for change in found.changes[:MOST_SHOWN]:
        yield from _change(change)
    if len(found.changes) > MOST_SHOWN:
        yield f"  … and {len(found.changes) - MOST_SHOWN:,} more kinds of change (--json has all)"
    if found.changed:
        yield f"Cost:    {_cost(found.cost)}"
        yield f"Success: {_success(found.success)}"
    yield ASSUMED


def _left_out(found: Replay) -> Iterator[str]:
    if found.not_replayable:
        yield f"{_of(found.not_replayable, 'decision')} cannot be: no attributes were kept with them."
    for name, count in found.missing.items():
        yield f"{_of(count, 'decision')} kept no {name}, so that conditions on it did not match."


def _change(change: Change) -> Iterator[str]:
    rules = f"{change.old_rule or 'the defaults'} → {change.new_rule or 'the defaults'}"
    yield f"  {change.count:>6,}  {change.before} → {change.after or 'nobody'}"
    yield f"          {rules if change.after else change.why}; such as {', '.join(change.examples)}"
    yield f"          cost {_cost(change.cost)}"
    yield f"          success {_success(change.success)}"


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _cost(found: Estimate) -> str:
    if found.difference is None or found.interval is None:
        return f"not known for any of {found.unknown:,}{_WHY}"
    span = f"{found.interval.low:+,.2f} to {found.interval.high:+,.2f}"
    return f"{found.difference:+,.2f} USD ({span}) for {found.of:,}{_unknown(found)}"


def _success(found: Estimate) -> str:
    if found.difference is None or found.interval is None:
        return f"not known for any of {found.unknown:,}{_WHY}"
    span = f"{found.interval.low:+,.1f} to {found.interval.high:+,.1f}"
    return f"{found.difference:+,.1f} runs ({span}) for {found.of:,}{_unknown(found)}"


_WHY = ": too few runs of that target, or nothing to compare with"


def _unknown(found: Estimate) -> str:
    return f"; not known for {found.unknown:,}" if found.unknown else ""
