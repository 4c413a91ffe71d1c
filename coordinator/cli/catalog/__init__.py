"""`coordinator catalog sync | diff | research | rankings`, and `coordinator models`."""

from __future__ import annotations

import typer

from coordinator.cli.catalog.diff import diff
from coordinator.cli.catalog.models import models
from coordinator.cli.catalog.rankings import rankings
from coordinator.cli.catalog.sync import research, sync


def register(app: typer.Typer) -> None:
    app.command()(models)
    group = typer.Typer(
        help="Read OpenRouter's catalogue of models, and see what changed in it.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in (sync, diff, research, rankings):
        group.command()(verb)
    app.add_typer(group, name="catalog")
