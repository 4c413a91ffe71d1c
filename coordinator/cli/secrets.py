"""`coordinator secrets show` and `secrets allow`: what the scan before a push found; letting one find pass.

No value is ever shown: kind, file, line and length are. The daemon decides; this leaves it a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, IssueArgument, JsonOption

if TYPE_CHECKING:
    from adw_modules.tasks.model import Task
    from coordinator.finds import Finds

FindArgument = Annotated[
    str, typer.Argument(help="The find's name, as `secrets show` prints it.", show_default=False)
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Show what the scan for secrets found in a task, or let one find pass.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.command()(show)
    group.command()(allow)
    app.add_typer(group, name="secrets")


def show(issue: IssueArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show what keeps a task from being published: kind, file, line and length, never the value."""
    from coordinator import finds
    from coordinator.cli.common import find_task, print_json, reading, settings_in_force
    from coordinator.logs import printable

    loaded = settings_in_force(config).loaded
    with reading(loaded) as store:
        task = find_task(store, issue)
        known = finds.get(store, task)
    if as_json:
        data = [asdict(each) | {"may_be_allowed": not each.leak.is_known} for each in known.open]
        print_json({"task": task.name, "head": known.head, "open": data, "passed": _passed(known)})
        return
    for line in _lines(task, known, loaded.worktree_dir / task.name):
        typer.echo(printable(line))


def _passed(known: Finds) -> list[dict[str, object]]:
    return [asdict(each) for each in known.passed]


def _lines(task: Task, known: Finds, tree: object) -> Iterator[str]:
    if not known.open:
        yield f"Nothing that was found keeps {task.name} from being published."
    else:
        yield f"Commit {known.head[:12]} of {task.name} is not pushed; its worktree is {tree}."
    for each in known.open:
        may = "never passes: it is known as a secret" if each.leak.is_known else each.shape
        yield f"  {each.name}  {each.leak}  {may}"
    for passed in known.passed:
        yield f"  {passed.find.name}  {passed.find.leak}  let pass at {passed.at}: {passed.reason}"


def allow(
    issue: IssueArgument,
    find: FindArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why it is no secret; kept in the audit trail.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let one find pass: this value at this place of this file, and no other. Never a known secret."""
    import json

    from adw_modules.security.leaks import without_tokens
    from coordinator import finds
    from coordinator.cli.common import find_task, reading, settings_in_force
    from coordinator.cli.operate import request
    from coordinator.logs import REDACTED

    if not reason.strip():
        raise typer.BadParameter("--reason must say why it is no secret.")
    with reading(settings_in_force(config).loaded) as store:
        key = finds.chosen(finds.get(store, find_task(store, issue)), find).key
    asked = {"find": key, "reason": without_tokens(reason, REDACTED)}
    request(config, "allow-find", issue, json.dumps(asked), as_json)
