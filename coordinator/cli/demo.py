"""`coordinator demo`: see the whole job done without an account."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.common import JsonOption


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    keep: Annotated[
        Path | None, typer.Option(help="An empty folder for everything the demo makes; kept afterwards.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Six sample issues from label to draft pull request, on a loopback server, with a scripted agent."""
    import shutil

    from adw_modules.errors import CoordinatorError

    if shutil.which("git") is None:
        raise CoordinatorError("The demo needs git, which is not on PATH: install it and try again.")
    if keep is not None:
        keep = keep.absolute()
        if keep.exists() and any(keep.iterdir()):
            raise CoordinatorError(f"{keep} is not empty; give a new folder to --keep.")
        keep.mkdir(parents=True, exist_ok=True)
    from coordinator.demo import show

    raise typer.Exit(show.run(keep, as_json=as_json))
