"""`coordinator budget` and `budget allow`: what budgets have given, and an operator's exception from one.

An exception is written straight into the store, so that it counts whether a daemon runs or not; the daemon
is only asked to look again at what it refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.money.budget import Allowance, Amounts, Budgets, Standing
    from coordinator.settings import LoadedSettings

GAP = "  "
HEADINGS = ("budget", "for", "limit", "spent", "reserved", "left", "until")
LONGEST = timedelta(days=366)
_DURATION = re.compile(r"(\d{1,5})([mhd])")
PotOption = Annotated[
    str | None,
    typer.Option("--pot", help="Only for this label, repository, author …", show_default=False),
]
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Show what is left of each budget, or allow more for a while.",
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.callback()(budget)
    group.command()(allow)
    group.command("take-back")(take_back)
    app.add_typer(group, name="budget")


def budget(
    context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show what is left of each budget, or allow more for a while."""
    if context.invoked_subcommand is not None:
        return
    from coordinator.cli.common import print_json, reading, settings_in_force
    from coordinator.clock import utc_now

    loaded, now = settings_in_force(config).loaded, utc_now()
    budgets = _budgets(loaded)
    with reading(loaded) as store:
        book = store.budget_book(budgets, now)
    standings = budgets.standings(book, now=now)
    allowed = [each for each in book.allowances if each.until > now]
    if as_json:
        print_json(
            {"budgets": [_data(each) for each in standings], "allowed": [_allowed(a) for a in allowed]}
        )
        return
    for line in (*_table(standings, budgets), *map(_allowed_line, allowed)):
        typer.echo(line)


def allow(  # noqa: PLR0917  # typer gives options by name
    name: Annotated[str, typer.Argument(help="The budget's name.", show_default=False)],
    usd: Annotated[
        str | None, typer.Option("--usd", help="How many US dollars more.", show_default=False)
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="How many tokens more.", min=1, show_default=False)
    ] = None,
    lasting: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.", show_default=False)] = "",
    reason: Annotated[str, typer.Option("--reason", help="Kept in the audit trail.")] = "",
    pot: PotOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let the pots of a budget give more until the time is over; what was started by then may go on."""
    from adw_modules.money.budget import Allowance
    from coordinator.cli.common import daemon_status, print_json, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    loaded, now = settings_in_force(config).loaded, utc_now()
    allowance = Allowance(
        budget=name,
        amounts=_wanted(_budgets(loaded), name, _dollars(usd), tokens),
        at=now,
        until=now + _duration(lasting),
        reason=reason,
        pot=_pot(_budgets(loaded), name, pot) or "",
    )
    _need_state(loaded)
    with Store.open(loaded.database_url, now=now, migrate=daemon_status(loaded) is None) as store:
        store.allow(allowance, text=_allowed_line(allowance))
    StatePaths(loaded.state_dir).touch_wake()
    if as_json:
        print_json(_allowed(allowance))
    else:
        typer.echo(f"{_allowed_line(allowance)}.")


def take_back(
    name: Annotated[str, typer.Argument(help="The budget's name.", show_default=False)],
    pot: PotOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """End what was allowed beyond a budget; what was started meanwhile may go on."""
    from coordinator.cli.common import daemon_status, print_json, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.store import StatePaths, Store

    loaded, now = settings_in_force(config).loaded, utc_now()
    pot = _pot(_budgets(loaded), name, pot)
    _need_state(loaded)
    with Store.open(loaded.database_url, now=now, migrate=daemon_status(loaded) is None) as store:
        title = f"budget {name}" + (f" for {pot}" if pot else "")
        count = store.take_back(name, pot, text=f"{title} gives no more than it has", now=now)
    StatePaths(loaded.state_dir).touch_wake()
    if as_json:
        print_json({"budget": name, "for": pot, "taken_back": count})
    else:
        exceptions = "1 exception" if count == 1 else f"{count} exceptions"
        typer.echo(f"{title}: {exceptions} taken back.")


# -- what was asked for -----------------------------------------------------------------------------------


def _budgets(loaded: LoadedSettings) -> Budgets:
    from adw_modules.errors import CoordinatorError
    from coordinator.budgeting import budgets_of

    found = budgets_of(loaded.settings)
    if found is None:
        raise CoordinatorError("No budget is configured: add a [[budgets]] table (docs/budgets.md).")
    return found


def _need_state(loaded: LoadedSettings) -> None:
    from coordinator.cli.common import reading

    with reading(loaded):
        pass


def _wanted(budgets: Budgets, name: str, usd: Decimal | None, tokens: int | None) -> Amounts:
    """How much more of what the budget limits."""
    from adw_modules.config.wording import suggestion
    from adw_modules.money.budget import NOTHING, Amounts, Unit

    known = {each.name: each for each in budgets.budgets}
    if name not in known:
        raise typer.BadParameter(f"there is no budget {name!r}{suggestion(name, known, what='there are')}.")
    wanted = {unit for unit, amount in ((Unit.USD, usd), (Unit.TOKENS, tokens)) if amount is not None}
    if not wanted:
        raise typer.BadParameter("say how much: --usd or --tokens.")
    for unit in sorted(wanted - {unit for unit, _ in known[name].limits()}):
        what = "money" if unit is Unit.USD else "tokens"
        raise typer.BadParameter(f"budget {name} does not limit {what}, so --{unit} would change nothing.")
    return Amounts(usd=usd or NOTHING, tokens=tokens or 0)


def _pot(budgets: Budgets, name: str, pot: str | None) -> str | None:
    """The name of the pot as the configuration spells it, if it does."""
    from adw_modules.config.wording import suggestion
    from adw_modules.money.budget import Scope

    known = {each.name: each for each in budgets.budgets}
    if name not in known:
        raise typer.BadParameter(f"there is no budget {name!r}{suggestion(name, known, what='there are')}.")
    if pot is None:
        return None
    found = known[name]
    if found.scope is Scope.ALL or not pot.strip():
        raise typer.BadParameter(f"budget {name} has one pot for everything: leave --pot out.")
    spelled = {each.casefold(): each for each in found.only}
    if spelled and pot.casefold() not in spelled:
        hint = suggestion(pot, found.only, what="there are")
        raise typer.BadParameter(f"budget {name} has no pot for {found.scope} {pot!r}{hint}.")
    return spelled.get(pot.casefold(), pot)


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        found = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        found = Decimal(0)
    if not found.is_finite() or not 0 < found <= 1_000_000_000:
        raise typer.BadParameter(f"--usd must be a number greater than 0, not {text!r}.")
    return found


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    lasting = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < lasting <= LONGEST:
        given = f", not {text!r}" if text else ""
        raise typer.BadParameter(f"--for must be a time such as 30m, 2h or 1d, at most 366d{given}.")
    return lasting


# -- what is shown ----------------------------------------------------------------------------------------


def _table(standings: Sequence[Standing], budgets: Budgets) -> Iterator[str]:
    from adw_modules.money.budget import shown

    rows: list[tuple[str, ...]] = [HEADINGS]
    for each in standings:
        amounts = (each.limit, each.spent, each.reserved, each.left)
        end = each.span.end
        rows.append(
            (
                each.pot.budget.name + ("" if each.pot.budget.is_hard else " (soft)"),
                each.pot.name or "all",
                *(shown(each.unit, amount) for amount in amounts),
                f"{end.astimezone(budgets.zone):%Y-%m-%d %H:%M %Z}" if end else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if 2 <= place <= 5 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield GAP.join(cells).rstrip()
    if len(rows) == 1:
        yield "Nothing was taken from any of them yet."


def _data(each: Standing) -> dict[str, Any]:
    budget = each.pot.budget
    return {
        "budget": budget.name,
        "scope": budget.scope.value,
        "for": each.pot.name or None,
        "per": budget.per.value,
        "hard": budget.is_hard,
        "unit": each.unit.value,
        "limit": _plain(each, each.limit),
        "spent": _plain(each, each.spent),
        "reserved": _plain(each, each.reserved),
        "left": _plain(each, each.left),
        "from": each.span.start,
        "until": each.span.end,
    }


def _plain(each: Standing, amount: Decimal) -> str | int:
    """Money as text, exact; tokens as a number."""
    return int(amount) if each.unit.value == "tokens" else format(amount, "f")


def _allowed(allowance: Allowance) -> dict[str, Any]:
    return {
        "budget": allowance.budget,
        "usd": format(allowance.amounts.usd, "f"),
        "tokens": allowance.amounts.tokens,
        "from": allowance.at,
        "until": allowance.until,
        "reason": allowance.reason,
        "for": allowance.pot or None,
    }


def _allowed_line(allowance: Allowance) -> str:
    from adw_modules.money.budget import Unit, shown

    amounts = [shown(unit, allowance.amounts.of(unit)) for unit in Unit if allowance.amounts.of(unit)]
    why = f" ({allowance.reason})" if allowance.reason else ""
    until = f"{allowance.until:%Y-%m-%d %H:%M} UTC"
    name = allowance.budget + (f" for {allowance.pot}" if allowance.pot else "")
    return f"budget {name} may give {' and '.join(amounts)} more until {until}{why}"
