"""`coordinator models`: which models there are, what they cost and can do, and how they did in our runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.catalogue import Capabilities, CatalogueModel, Pricing, Wanted
    from adw_modules.catalogue.rankings import Ranking
    from adw_modules.config import ModelSettings, Settings
    from adw_modules.money.quotes import Rates
    from coordinator.settings import LoadedSettings

OWN_RUNS = timedelta(days=90)
WIDTH_OF_A_FILE = 160
_SHORT = {"structured_outputs": "structured", "multimodal_image": "image", "file_pdf": "pdf"}  # in the table


def models(  # noqa: PLR0917  one parameter for each option
    capability: Annotated[
        list[str] | None,
        typer.Option(help="What they must be able to do: tools, reasoning, image …; may be repeated."),
    ] = None,
    max_price: Annotated[
        str | None,
        typer.Option(
            metavar="USD", help="At most this much for a million tokens, in and out.", show_default=False
        ),
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only this family, such as claude-4.5.")] = None,
    min_context: Annotated[int | None, typer.Option(help="Tokens that must fit.", min=1)] = None,
    provider: Annotated[
        str | None, typer.Option(help="A configured provider, or who makes the model: anthropic, openai …")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Excluded ones too, with the reason.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List the models that fit, with price, context, capabilities, family and our own success rate."""
    from adw_modules.catalogue import Wanted
    from coordinator.cli.common import print_json, settings_in_force
    from coordinator.clock import utc_now

    _check_words(capability or (), family)
    loaded, now = settings_in_force(config).loaded, utc_now()
    known = _known(loaded, now)
    wanted = Wanted(
        capabilities=tuple(capability or ()),
        max_price=_dollars(max_price),
        family=family,
        min_context=min_context,
        author=None,
        excluded_too=every,
    )
    rows = _rows(known, loaded.settings, wanted, provider, now)
    if as_json:
        print_json({"source": known.source, "synced_at": known.synced_at, "models": rows})
    else:
        _show(rows, known)


def _check_words(capabilities: Sequence[str], family: str | None) -> None:
    from adw_modules.catalogue.choosing import capability_called, family_called
    from adw_modules.errors import CoordinatorError

    try:
        for word in capabilities:
            capability_called(word)
        if family is not None:
            family_called(family)
    except CoordinatorError as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All models there are, and where they come from: `catalogue`, `api` or `bootstrap`."""

    source: str
    models: Sequence[CatalogueModel]
    synced_at: datetime | None
    sync_id: int | None
    own: Mapping[str, Ranking]


def _known(loaded: LoadedSettings, now: datetime) -> Known:
    """The stored catalogue; without one OpenRouter is asked, and without an answer there is a short list."""
    from adw_modules.catalogue import bootstrap_models
    from adw_modules.catalogue.rankings import rank
    from coordinator.cli.common import has_state, reading

    own: dict[str, Ranking] = {}
    if has_state(loaded):
        with reading(loaded) as store:
            models, last = store.catalogue(), store.last_sync(good=True)
            runs = store.run_results(now - OWN_RUNS)
            own = {each.model: each for each in rank(replace(run, provider="") for run in runs)}
        if models and last is not None:
            return Known(
                source="catalogue",
                models=[*models.values()],
                synced_at=last.at,
                sync_id=last.sync_id,
                own=own,
            )
    asked = _asked(loaded)
    if asked:
        return Known(source="api", models=asked, synced_at=now, sync_id=None, own=own)
    return Known(source="bootstrap", models=bootstrap_models(), synced_at=None, sync_id=None, own=own)


def _asked(loaded: LoadedSettings) -> Sequence[CatalogueModel]:
    import asyncio

    from adw_modules.catalogue import parse_listing
    from adw_modules.openrouter.directory import Directory, DirectoryError
    from coordinator.cli.catalog.sync import access_of

    async def ask(base_url: str) -> Sequence[CatalogueModel]:
        async with Directory(base_url, timeout=5.0) as directory:
            return parse_listing((await directory.models()).data).models

    try:
        return asyncio.run(ask(access_of(loaded).base_url))
    except DirectoryError as error:
        typer.echo(str(error), err=True)
        return ()


# -- rows -----------------------------------------------------------------------------------------------


def _rows(
    known: Known, settings: Settings, wanted: Wanted, provider: str | None, now: datetime
) -> list[dict[str, Any]]:
    """Of the catalogue, and of `[[models]]` those that one provider of another kind is configured with."""
    from adw_modules.catalogue import choose
    from coordinator.catalogue import openrouter_providers

    configured = {each.name: each for each in settings.models}
    own_prices = [
        replace(model, pricing=_configured_pricing(configured[model.model_id]))
        if model.model_id in configured
        else model
        for model in known.models
    ]
    if provider is None or provider in openrouter_providers(settings):
        chosen = choose(own_prices, wanted, now.date())
    elif provider in settings.providers or any(model.provider == provider for model in settings.models):
        chosen = choose(_configured(settings, provider), wanted, now.date())
    else:
        chosen = choose(own_prices, replace(wanted, author=provider), now.date())
    return [_row(model, model.model_id in configured, known, now) for model in chosen]


def _configured(settings: Settings, provider: str) -> list[CatalogueModel]:
    """`[[models]]` in the words of the catalogue."""
    from adw_modules.catalogue import CatalogueModel

    return [
        CatalogueModel(
            model_id=model.name,
            name=model.name,
            context_limit=model.context_window,
            capabilities=_words(model.capabilities),
            pricing=_configured_pricing(model),
        )
        for model in settings.models
        if model.provider == provider
    ]


def _words(capabilities: Sequence[str]) -> Capabilities:
    """The operator's own words, as far as they are capabilities of ours."""
    from adw_modules.catalogue import Capabilities
    from adw_modules.catalogue.choosing import capability_called
    from adw_modules.errors import CoordinatorError

    names = []
    for word in capabilities:
        try:
            names.append(f"supports_{capability_called(word)}")
        except CoordinatorError:
            continue
    return Capabilities(**dict.fromkeys(names, True))


def _configured_pricing(model: ModelSettings) -> Pricing:
    from adw_modules.catalogue import Pricing

    given = {
        "prompt": model.cost_per_million_input,
        "completion": model.cost_per_million_output,
        "input_cache_read": model.cost_per_million_cache_read,
        "input_cache_write": model.cost_per_million_cache_write,
    }
    return Pricing(prices={key: price.scaleb(-6) for key, price in given.items() if price is not None})


def _row(model: CatalogueModel, is_configured: bool, known: Known, now: datetime) -> dict[str, Any]:
    from adw_modules.catalogue import exclusion, rates_at

    rates, own = rates_at(model.pricing, now, 0), known.own.get(model.model_id)
    benchmarks = model.benchmarks
    return {
        "model": model.model_id,
        "name": model.name,
        "family": model.family,
        "price_source": "config" if is_configured else known.source,
        "price": _price_of(rates),
        "context": model.context_limit,
        "max_output": model.max_output,
        "capabilities": list(model.capabilities.names),
        "canonical_slug": model.canonical_slug,
        "created_at": model.created_at,
        "expires_on": None if model.expires_on is None else model.expires_on.isoformat(),
        "alias_of": model.alias_target,
        "has_conditional_prices": bool(model.pricing.overrides),
        "benchmarks": {
            "intelligence": benchmarks.intelligence_index,
            "coding": benchmarks.coding_index,
            "agentic": benchmarks.agentic_index,
        },
        "excluded": exclusion(model, now.date()),
        "own_runs": own.runs if own else 0,
        "own_success_rate": own.success_rate if own else None,
    }


def _price_of(rates: Rates) -> dict[str, Decimal | None]:
    """US dollars for a million tokens, `request` for a request."""
    return {
        "input": rates.input,
        "output": rates.output,
        "cache_read": rates.cache_read,
        "cache_write": rates.cache_write_5m,
        "cache_write_1h": rates.cache_write_1h,
        "request": rates.request,
    }


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise typer.BadParameter(f"{text!r} is not an amount such as 2.50.", param_hint="--max-price")
    return amount


# -- the table ------------------------------------------------------------------------------------------


def _show(rows: Sequence[Mapping[str, Any]], known: Known) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from coordinator.logs import printable

    headings = ("model", "family", "context", "$/M in", "$/M out", "can", "our runs", "")
    lines = [_cells(row) for row in rows]
    shown = [place for place in range(len(headings)) if any(line[place] for line in lines)]
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for place in shown:
        is_number = headings[place] in {"context", "$/M in", "$/M out", "our runs"}
        table.add_column(
            headings[place], justify="right" if is_number else "left", no_wrap=headings[place] == "model"
        )
    for line in lines:
        table.add_row(*(Text(printable(line[place])) for place in shown))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    if rows:
        console.print(table)
    typer.echo(_told(len(rows), known))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    rate = row["own_success_rate"]
    notes = [row["excluded"], "prices vary" if row["has_conditional_prices"] else None]
    return (
        row["model"],
        row["family"] or "",
        "?" if row["context"] is None else f"{row['context']:,}",
        _money(row["price"]["input"]),
        _money(row["price"]["output"]),
        ", ".join(_SHORT.get(name, name) for name in row["capabilities"]),
        "" if rate is None else f"{rate:.0%} of {row['own_runs']}",
        "; ".join(note for note in notes if note),
    )


def _money(amount: Decimal | None) -> str:
    from adw_modules.catalogue.tariff import plain

    return "?" if amount is None else plain(amount)


def _told(count: int, known: Known) -> str:
    many = "1 model" if count == 1 else f"{count or 'No'} models"
    match known.source:
        case "catalogue":
            where = f"catalogue synced at {known.synced_at:%Y-%m-%d %H:%M} UTC (sync {known.sync_id})"
        case "api":
            where = "asked of OpenRouter just now; `coordinator catalog sync` keeps them"
        case _:
            where = "the bootstrap list: no catalogue is stored, and OpenRouter does not answer"
    return f"{many}; {where}."
