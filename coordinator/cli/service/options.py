"""The options that the verbs of the service share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UnitDirOption = Annotated[Path, typer.Option(help="Where the unit file is.")]
EnvFileOption = Annotated[Path, typer.Option(help="The file with the token, the keys and PATH.")]
