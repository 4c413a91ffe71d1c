"""`coordinator content`: the change that waits for a person, as a patch, with what makes it wait. Reads only.

The commit is nowhere else: pushed under any name it would be on GitHub, for its programs to act on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from adw_modules.tasks.model import Task
    from coordinator.holds import Hold
    from coordinator.settings import LoadedSettings


def register(app: typer.Typer) -> None:
    app.command()(content)


def content(
    issue: IssueArgument,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="Lines of the patch; 0 shows all.", min=0)
    ] = 2000,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show the change of a task that needs a person's approval: why, how much, and the patch."""
    from coordinator import holds
    from coordinator.cli.common import find_task, print_json, reading, settings_in_force
    from coordinator.logs import printable

    loaded = settings_in_force(config).loaded
    with reading(loaded) as store:
        task = find_task(store, issue)
        hold = holds.get(store, task)
    if hold is None or not hold.base:
        raise CoordinatorError(f"No change of {task.name} needs, or needed, a person's approval.")
    patch = _patch(loaded, task, hold)
    shown = patch.split("\n")[: lines or None]
    left = patch.count("\n") + 1 - len(shown)
    if as_json:
        data: dict[str, object] = {
            "task": task.name,
            "base": hold.base,
            "head": hold.head,
            "approved_by": hold.approved_by or None,
        }
        data |= {"reasons": list(hold.reasons), "files": hold.files, "bytes": hold.size}
        print_json({**data, "patch": "\n".join(shown), "lines_left_out": left})
        return
    for line in (*_head(task, hold), *shown):
        typer.echo(printable(line.rstrip("\r")))
    if left:
        typer.echo(f"... {left} more lines: --lines 0 shows all.")


def _head(task: Task, hold: Hold) -> Iterator[str]:
    from coordinator import holds

    by = f", approved by {hold.approved_by}" if hold.approved_by else ""
    yield f"{task.name}: commit {hold.head}{by}, {holds.size_of(hold)} beyond {hold.base[:12]}"
    for reason in hold.reasons:
        yield f"  ! {reason}"
    yield ""


def _patch(loaded: LoadedSettings, task: Task, hold: Hold) -> str:
    """Read from our mirror, which has the commit as long as the task's branch is there."""
    from adw_modules.errors import WorkspaceError
    from coordinator.cli.common import mirror_of, open_workspaces

    mirror = mirror_of(loaded, task)
    if mirror is None:
        raise CoordinatorError(f"The mirror of {task.repo} is gone, and with it the change of {task.name}.")
    try:
        return open_workspaces(loaded).difference(mirror, hold.base, hold.head)
    except WorkspaceError as error:
        raise CoordinatorError(f"The change of {task.name} cannot be read: {error}") from error
