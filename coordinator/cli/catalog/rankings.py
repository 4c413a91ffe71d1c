"""`coordinator catalog rankings`: what others use and measure, and how models did in our own runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.catalogue.rankings import Ranking
    from coordinator.store import ResearchRecord

SHOWN = 10  # of each list


def rankings(
    days: Annotated[int, typer.Option(help="How far back our own runs count.", min=1, max=3650)] = 90,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Rank models by our own runs, and show what the last research found."""
    from adw_modules.catalogue.rankings import rank
    from coordinator.cli.common import print_json, reading, settings_in_force
    from coordinator.clock import utc_now

    with reading(settings_in_force(config).loaded) as store:
        own = rank(store.run_results(utc_now() - timedelta(days=days)))
        records = store.latest_research()
    if as_json:
        print_json(
            {
                "days": days,
                "own": [_facts(each) for each in own],
                "researched_at": records[0].at if records else None,
                "research": {each.source: {"problem": each.problem, "data": each.data} for each in records},
            }
        )
        return
    _show_own(own, days)
    _show_research(records)


def _facts(ranking: Ranking) -> dict[str, Any]:
    duration = ranking.median_duration
    return {
        "provider": ranking.provider,
        "model": ranking.model,
        "runs": ranking.runs,
        "successes": ranking.successes,
        "success_rate": ranking.success_rate,
        "median_duration_seconds": None if duration is None else duration.total_seconds(),
        "cost_usd": ranking.cost,
        "cost_per_success_usd": ranking.cost_per_success,
        "runs_of_unknown_cost": ranking.runs_of_unknown_cost,
    }


def _show_own(own: Sequence[Ranking], days: int) -> None:
    if not own:
        typer.echo(f"No run has ended in the last {days} days.")
        return
    typer.echo(f"Our own runs of the last {days} days:")
    for each in own:
        duration = "?" if each.median_duration is None else f"{each.median_duration.total_seconds():.0f} s"
        per_success = each.cost_per_success
        cost = "cost unknown" if per_success is None else f"${per_success:.4f} a success"
        typer.echo(
            f"  {each.success_rate:>4.0%} of {each.runs:<4} {each.provider}/{each.model}  {duration}, {cost}"
        )


def _show_research(records: Sequence[ResearchRecord]) -> None:
    from adw_modules.catalogue.research import CAPABILITY_MATRIX
    from coordinator.logs import printable

    asked = [each for each in records if each.source != CAPABILITY_MATRIX]
    if not asked:
        typer.echo("Models were never researched: `coordinator catalog research` does it now.")
        return
    typer.echo(f"Research of {asked[0].at:%Y-%m-%d %H:%M} UTC (what everybody uses, not how good it is):")
    for each in asked:
        rows = each.data or []
        told = each.problem or ", ".join(_entry(row) for row in rows[:SHOWN]) or "nothing"
        typer.echo(printable(f"  {each.source}: {told}"))


def _entry(row: dict[str, str]) -> str:
    """A model, with the task that it is used for."""
    return f"{row['task']}: {row['model']}" if "task" in row else row["model"]
