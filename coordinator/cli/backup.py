"""`coordinator backup | restore`: a copy of the store while the daemon runs, and back while none does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from coordinator.settings import LoadedSettings
    from coordinator.store import Copy


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Copy the store into FILE, complete and checked, while the daemon goes on."""
    from coordinator.cli.common import print_json, settings_in_force
    from coordinator.store import back_up

    database = _database(settings_in_force(config).loaded, "back it up with pg_dump")
    copy = back_up(database, file, replace=force)
    if as_json:
        print_json({"backup": str(copy.path), **_figures(copy)})
    else:
        typer.echo(f"Wrote {copy.path}: {_told(copy)}.")


def restore(
    file: Annotated[Path, typer.Argument(help="A copy that `backup` made.", show_default=False)],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Put FILE in the place of the store while no daemon runs; what was there is set aside."""
    from coordinator.cli.common import print_json, settings_in_force
    from coordinator.clock import utc_now
    from coordinator.ownerless import newer_runs
    from coordinator.store import DAEMON, StateDir, Store
    from coordinator.store import restore as put_back

    loaded = settings_in_force(config).loaded
    database = _database(loaded, "restore it with pg_restore or psql, while no daemon runs")
    with StateDir(loaded.state_dir) as state_dir:
        restored = put_back(file, database, utc_now())
        with Store.open(database, now=utc_now()) as store:
            store.set_state(DAEMON, None)  # it was running when the copy was made, which is no crash
            newer = newer_runs(state_dir.runs, store.tokens())
    aside = None if restored.aside is None else str(restored.aside)
    if as_json:
        names = [path.name for path in newer]
        print_json({"restored": str(file), **_figures(restored.copy), "aside": aside, "newer_runs": names})
        return
    typer.echo(f"Restored {file}: {_told(restored.copy)}.")
    if aside:
        typer.echo(f"The database that was there is {aside} now.")
    if newer:
        many, of, waits = ("1 run is", "it", "its task waits")
        if len(newer) > 1:
            many, of, waits = f"{len(newer)} runs are", "them", "their tasks wait"
        typer.echo(
            f"{many} newer than this backup: what still lives of {of} is ended when the daemon starts, and "
            f"{waits} for `coordinator retry`."
        )


def _database(loaded: LoadedSettings, instead: str) -> Path:
    from adw_modules.errors import CoordinatorError
    from coordinator.store import sqlite_file

    database = sqlite_file(loaded.database_url)
    if database is None:
        raise CoordinatorError(f"The store is a PostgreSQL database: {instead}.")
    return database


def _figures(copy: Copy) -> dict[str, int | str]:
    return {"bytes": copy.size, "tasks": copy.tasks, "runs": copy.runs, "schema": copy.schema}


def _told(copy: Copy) -> str:
    tasks = "1 task" if copy.tasks == 1 else f"{copy.tasks} tasks"
    runs = "1 run" if copy.runs == 1 else f"{copy.runs} runs"
    return f"{copy.size:,} bytes, {tasks}, {runs}"
