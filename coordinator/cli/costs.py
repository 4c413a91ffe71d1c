"""`coordinator costs`: what runs cost, by whatever is asked for. Reads the store, beside a daemon or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.money.reports import Report
    from coordinator.settings import LoadedSettings

GAP = "  "
MOST_NAME = 60  # characters of one name in the table; JSON and CSV have all of it


def register(app: typer.Typer) -> None:
    app.command()(costs)


def costs(  # noqa: PLR0917  # typer gives options by name
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="What the rows are by: some of day, model, rule (or strategy), task, label, repository, "
            "provider, with commas; or total.",
        ),
    ] = "day,model",
    since: Annotated[
        str | None,
        typer.Option("--since", help="From this date or ISO instant on.", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", help="Up to and including this date, or before this instant.", show_default=False
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", help="Whose days these are; else that of coordinator.timezone.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show what runs cost by model, rule, task, label, repository or provider, and by day."""
    import sys

    from adw_modules.money import reports
    from coordinator.cli.common import print_json, settings_in_force

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other.")
    loaded = settings_in_force(config).loaded
    found = _report(loaded, by, since, until, timezone or loaded.settings.coordinator.timezone)
    if as_json:
        print_json(reports.as_data(found))
    elif as_csv:
        sys.stdout.write(reports.as_csv(found))
    else:
        sys.stdout.write("\n".join(_lines(found)) + "\n")


def _report(loaded: LoadedSettings, by: str, since: str | None, until: str | None, timezone: str) -> Report:
    from adw_modules.money.reports import ReportError, groupings, period_of
    from coordinator.cli.common import reading

    try:
        wanted, period = groupings(by), period_of(since, until, timezone)
    except ReportError as error:
        raise typer.BadParameter(f"{error}.") from None
    with reading(loaded) as store:
        return store.costs(wanted, period, own_prefix=loaded.settings.github.status_label_prefix)


def _lines(found: Report) -> Iterator[str]:
    from adw_modules.money.reports import HEADINGS, cells_of, remarks

    if not found.total.runs:
        yield "No run has ended in that time."
        return
    names = len(found.by)
    rows = [(*map(_name, group.keys), *cells_of(group.figures)) for group in found.groups]
    head = (*(each.value for each in found.by), *HEADINGS)
    total = ("total", *[""] * (names - 1), *cells_of(found.total)) if names else cells_of(found.total)
    # Of the last two, a column in which nothing stands is left out.
    shown = [place for place in range(len(head)) if place < len(head) - 2 or total[place]]
    widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]
    for row in (head, *rows, total) if names else (head, total):
        cells = (
            row[place].ljust(widths[place]) if place < names else row[place].rjust(widths[place])
            for place in shown
        )
        yield GAP.join(cells).rstrip()
    yield from remarks(found)


def _name(text: str) -> str:
    from coordinator.logs import printable

    shown = printable(" ".join(text.split()))
    return shown if len(shown) <= MOST_NAME else shown[: MOST_NAME - 1] + "…"
