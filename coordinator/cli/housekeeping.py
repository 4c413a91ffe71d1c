"""`coordinator housekeeping`: removes what nobody needs any more, now; with `--dry-run` it only says what.

Beside a daemon the daemon does it, as it owns the store; without one this command holds its lock meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from adw_modules.tasks.model import Task
    from coordinator.housekeeping import Removal
    from coordinator.settings import LoadedSettings
    from coordinator.store import StatePaths, Store
    from coordinator.workspaces import Workspace, Workspaces


def register(app: typer.Typer) -> None:
    app.command()(housekeeping)


def housekeeping(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Remove old runs, logs, worktrees and history now; never work that is not on GitHub."""
    from coordinator.cli.common import daemon_status, has_state, reading, settings_in_force
    from coordinator.cli.operate import leave, sentence
    from coordinator.clock import utc_now
    from coordinator.store import StateDir, StatePaths, Store

    loaded = settings_in_force(config).loaded
    if not has_state(loaded):
        with reading(loaded):  # says that there is none
            return
    if dry_run:
        with reading(loaded) as store:
            _show(_look(loaded, StatePaths(loaded.state_dir), store, is_dry=True), as_json, is_dry=True)
        return
    if daemon_status(loaded) is not None:
        _, answer, is_running = leave(loaded, "housekeeping", None, None)
        _show([], as_json, said=sentence(answer, None, is_running=is_running))
        return
    with StateDir(loaded.state_dir) as state_dir, Store.open(loaded.database_url, now=utc_now()) as store:
        _show(_look(loaded, state_dir, store, is_dry=False), as_json)


def _look(loaded: LoadedSettings, paths: StatePaths, store: Store, *, is_dry: bool) -> list[Removal]:
    from coordinator.cli.common import open_workspaces
    from coordinator.clock import utc_now
    from coordinator.housekeeping import Removal, Sweep, facts, forget_events

    found = list[Removal]()
    known = facts(store, loaded, utc_now())
    workspaces = open_workspaces(loaded)
    sweep = Sweep(
        loaded=loaded,
        paths=paths,
        facts=known,
        workspaces=workspaces,
        find=lambda task: _workspace(workspaces, loaded, task),
        tell=found.append,
        is_dry=is_dry,
    )
    sweep.all()
    forget_events(store, known, tell=found.append, is_dry=is_dry)
    return found


def _workspace(workspaces: Workspaces, loaded: LoadedSettings, task: Task) -> Workspace | None:
    """The task's worktree as it stands there. Makes and mends no mirror."""
    from coordinator.cli.common import mirror_of

    mirror = mirror_of(loaded, task)
    return workspaces.find(mirror, task.name, task.branch) if mirror else None


def _show(found: list[Removal], as_json: bool, *, is_dry: bool = False, said: str | None = None) -> None:
    from coordinator.cli.common import print_json

    if as_json:
        gone = [each for each in found if not each.problem]
        data = {"removed": [asdict(each) for each in gone], "bytes": sum(each.size for each in gone)}
        data["resisted"] = [asdict(each) for each in found if each.problem]
        print_json({"dry_run": is_dry, **data, "said": said})
        return
    for line in [said] if said else _lines(found, is_dry=is_dry):
        typer.echo(line)


def _lines(found: Iterable[Removal], *, is_dry: bool) -> Iterator[str]:
    from coordinator.logs import printable

    total = 0
    for each in found:
        if each.problem:
            yield printable(f"not removed: {each.path}: {each.problem}")
            continue
        total += each.size
        where = each.path or str(each.number)
        yield printable(
            f"{each.what}  {where}  {_megabytes(each.size)}" if each.path else f"{each.what}  {where}"
        )
    verb = "would be freed; nothing was removed" if is_dry else "freed"
    yield f"{_megabytes(total)} {verb}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
