"""`coordinator experiments`: what came of each arm, and whether there is an answer. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.config import ExperimentSettings
    from adw_modules.routing.evidence import Interval
    from adw_modules.routing.trials import ArmResult, Result
    from coordinator.settings import LoadedSettings

HEAD = ("arm", "target", "tasks", "open", "success", "rework", "cost, USD", "working time, min")


def register(app: typer.Typer) -> None:
    app.command()(experiments)


def experiments(
    name: Annotated[
        str | None,
        typer.Argument(help="One of the configured experiments; all without it.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show what came of each arm of the experiments, with intervals, and whether to stop."""
    from coordinator.cli.common import print_json, settings_in_force

    loaded = settings_in_force(config).loaded
    wanted = _wanted(loaded, name)
    results = _results(loaded, wanted)
    if as_json:
        print_json(
            {
                "config": str(config),
                "experiments": [_facts(*each) for each in zip(wanted, results, strict=True)],
            }
        )
        return
    if not results:
        typer.echo(f"{config} has no [[experiments]].")
    for settings, result in zip(wanted, results, strict=True):
        for line in _lines(settings, result):
            typer.echo(line)


def _wanted(loaded: LoadedSettings, name: str | None) -> list[ExperimentSettings]:
    from adw_modules.errors import CoordinatorError
    from adw_modules.routing.attributes import suggestion

    configured = loaded.settings.experiments
    if name is None:
        return list(configured)
    found = [each for each in configured if each.name.casefold() == name.casefold()]
    if not found:
        names = [each.name for each in configured]
        hint = suggestion(name, names) if names else "none is configured"
        raise CoordinatorError(f'There is no experiment "{name}"; {hint}')
    return found


def _results(loaded: LoadedSettings, wanted: list[ExperimentSettings]) -> list[Result]:
    from adw_modules.routing.trials import result_of
    from coordinator.cli.common import has_state, reading

    if not wanted or not has_state(loaded):
        return [result_of(each, ()) for each in wanted]
    with reading(loaded) as store:
        return [result_of(each, store.trial_runs(each.name)) for each in wanted]


def _facts(settings: ExperimentSettings, result: Result) -> dict[str, Any]:
    return {**asdict(result), "share": settings.share, "stop": settings.stop.model_dump()}


# --- printing -----------------------------------------------------------------------------------


def _lines(settings: ExperimentSettings, result: Result) -> Iterator[str]:
    yield f"{result.name}: {result.answer.text}"
    rows = [HEAD, *map(_row, result.arms)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    percent = 100 * settings.stop.confidence
    yield (
        f"  {percent:g} % intervals: of rates Wilson's, of cost and time those of the median. "
        "The answer goes by wider ones of success, which hold however often one looks."
    )


def _row(arm: ArmResult) -> tuple[str, ...]:
    return (
        arm.arm,
        arm.target or "(no longer configured)",
        str(arm.tasks),
        str(arm.open),
        _rate(arm.succeeded, arm.tasks, arm.success),
        _rate(arm.reworked, arm.tasks, arm.rework),
        _amount(arm.cost, arm.cost_interval, 1)
        + (f", {arm.unknown_costs} unknown" if arm.unknown_costs else ""),
        _amount(arm.seconds, arm.seconds_interval, 60),
    )


def _rate(count: int, of: int, interval: Interval) -> str:
    if not of:
        return "-"
    return f"{100 * count / of:.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"


def _amount(value: float | None, interval: Interval | None, unit: float) -> str:
    if value is None:
        return "-"
    span = f"{interval.low / unit:.2f} to {interval.high / unit:.2f}" if interval else "too few to say"
    return f"{value / unit:.2f} ({span})"
