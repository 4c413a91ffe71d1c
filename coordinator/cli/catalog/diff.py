"""`coordinator catalog diff`: what the last sync changed, or all syncs since a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.catalogue import Change


def diff(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="From this day on (UTC), such as 2026-11-14, or from 2026-11-14T08:00.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show which models are new, gone, or have other prices, capabilities or context limits."""
    from coordinator.cli.common import print_json, reading, settings_in_force, time_of_day
    from coordinator.clock import utc_now

    start = None if since is None else _instant(since)
    with reading(settings_in_force(config).loaded) as store:
        last, found = store.last_sync(good=True), store.catalogue_changes(since=start)
    if as_json:
        entries = [{"sync": each.sync_id, "at": each.at, **change_facts(each.change)} for each in found]
        print_json({"since": start, "last_sync": last.at if last else None, "changes": entries})
        return
    if last is None:
        typer.echo("The catalogue was never synced: `coordinator catalog sync` does it now.")
        return
    for each in found:
        typer.echo(f"{time_of_day(each.at, utc_now())}  {change_line(each.change)}")
    if not found:
        what = "The last sync with a new list" if start is None else f"No sync since {since}"
        typer.echo(f"{what} has changed {'nothing' if start is None else 'anything'}.")


def change_facts(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind.value,
        "model": change.model_id,
        "before": change.before,
        "after": change.after,
    }


def change_line(change: Change) -> str:
    """`price         openai/gpt-x  $3 in, $15 out → $2 in, $10 out`."""
    from coordinator.logs import printable

    told = " → ".join(text for text in (change.before, change.after) if text)
    return printable(f"{change.kind.value:<12}  {change.model_id}{f'  {told}' if told else ''}")


def counts_in_words(counts: Mapping[str, int]) -> str:
    said = [f"{count} {_COUNTED[kind]}" for kind, count in counts.items() if count]
    return ", ".join(said) or "nothing has changed"


_COUNTED = {
    "new": "new",
    "gone": "gone",
    "price": "with another price",
    "capabilities": "with other capabilities",
    "context": "with another context limit",
    "alias": "aliases moved",
}


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day such as 2026-11-14.", param_hint="--since") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
