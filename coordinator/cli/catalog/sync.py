"""`coordinator catalog sync | research`: read the catalogue, or all that is known about models, now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from coordinator.catalogue import Access, Researched, Synced
    from coordinator.settings import LoadedSettings
    from coordinator.store import Store

SHOWN = 20


def sync(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the catalogue now; exit code 1 when that fails, and the last one stays."""
    import asyncio

    from coordinator.cli.common import print_json, settings_in_force

    loaded = settings_in_force(config).loaded
    with writing(loaded) as store:
        synced = asyncio.run(_sync(store, access_of(loaded)))
    if as_json:
        print_json(_facts(synced))
    else:
        _show(synced)
    if synced.problem is not None:
        raise typer.Exit(1)


def research(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the catalogue, then rankings and benchmarks; exit code 1 when none of them answers."""
    import asyncio
    from collections import Counter

    from coordinator.cli.common import print_json, settings_in_force

    loaded = settings_in_force(config).loaded
    with writing(loaded) as store:
        found = asyncio.run(_research(store, access_of(loaded)))
    if as_json:
        print_json(
            {
                "at": found.at,
                "answers": found.answers,
                "new": list(found.new),
                "problems": list(found.problems),
            }
        )
    else:
        for problem, times in Counter(found.problems).items():
            typer.echo(problem if times == 1 else f"{problem} ({times} times)", err=True)
        typer.echo(f"{found.answers} answers, {len(found.new)} new models: {', '.join(found.new) or 'none'}.")
    if not found.answers:
        raise typer.Exit(1)


@contextmanager
def writing(loaded: LoadedSettings) -> Iterator[Store]:
    """The store for writing beside a daemon; made, where none has run yet."""
    from coordinator.cli.common import has_state
    from coordinator.clock import utc_now
    from coordinator.store import StateDir, Store

    if has_state(loaded):
        with Store.open(loaded.database_url, now=utc_now(), migrate=False) as store:
            yield store
    else:
        with StateDir(loaded.state_dir), Store.open(loaded.database_url, now=utc_now()) as store:
            yield store


def access_of(loaded: LoadedSettings) -> Access:
    """How this configuration reaches OpenRouter. Raises ConfigError for an address that cannot be one."""
    import os

    from coordinator.catalogue import access

    return access(loaded.settings, os.environ)


async def _sync(store: Store, access: Access) -> Synced:
    from coordinator import catalogue
    from coordinator.clock import utc_now

    async with access.directory() as directory:
        return await catalogue.sync(store, directory, now=utc_now)


async def _research(store: Store, access: Access) -> Researched:
    from coordinator import catalogue
    from coordinator.clock import utc_now

    async with access.directory() as directory:
        synced = await catalogue.sync(store, directory, now=utc_now)
        if synced.problem is not None:
            typer.echo(synced.problem, err=True)
        return await catalogue.research(store, directory, has_key=access.key is not None, now=utc_now)


def _facts(synced: Synced) -> dict[str, Any]:
    from coordinator.cli.catalog.diff import change_facts

    return {
        "sync": synced.sync_id,
        "at": synced.at,
        "result": synced.result.value,
        "models": synced.models,
        "first": synced.is_first,
        "counts": synced.counts,
        "changes": [change_facts(change) for change in synced.changes],
        "left_out": list(synced.problems),
        "problem": synced.problem,
    }


def _show(synced: Synced) -> None:
    from coordinator.cli.catalog.diff import change_line, counts_in_words
    from coordinator.logs import printable
    from coordinator.store import SyncResult

    for problem in synced.problems[:SHOWN]:
        typer.echo(printable(problem), err=True)
    if len(synced.problems) > SHOWN:
        typer.echo(f"{len(synced.problems) - SHOWN} more rows are left out.", err=True)
    if synced.result is SyncResult.FAILED:
        kept = f"the last catalogue stays, {synced.models} models" if synced.models else "there is none yet"
        typer.echo(printable(f"{(synced.problem or '').rstrip('.')}; {kept}."), err=True)
    elif synced.result is SyncResult.UNCHANGED:
        typer.echo(f"{synced.models} models, unchanged since the last sync.")
    elif synced.is_first:
        typer.echo(f"{synced.models} models; this is the first sync.")
    else:
        typer.echo(f"{synced.models} models; {counts_in_words(synced.counts)}.")
        for change in synced.changes[:SHOWN]:
            typer.echo(f"  {change_line(change)}")
        if len(synced.changes) > SHOWN:
            typer.echo(f"  and {len(synced.changes) - SHOWN} more: `coordinator catalog diff`")
