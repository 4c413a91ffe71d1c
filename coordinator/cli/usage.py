"""`coordinator usage parse`: the tokens in an agent's recorded output, as the daemon counts them."""

from __future__ import annotations

import codecs
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from coordinator.cli.common import JsonOption

if TYPE_CHECKING:
    from adw_modules.agents import Dialect
    from adw_modules.agents.stream import StreamSummary
    from adw_modules.tasks.model import ModelUsage, Usage

CHUNK = 1 << 18
COUNTS = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output", "reasoning")
COLUMNS = ("input", "cache_read", "cache_write", "output", "reasoning")


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Look at the tokens that agents say they have used.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.callback()(_group)
    group.command()(parse)
    app.add_typer(group, name="usage")


def _group() -> None:
    """Without it, a group of one verb would be that verb."""


def parse(
    file: Annotated[
        str, typer.Argument(help="What the agent printed; - is standard input.", show_default=False)
    ],
    agent: Annotated[
        str, typer.Option("--agent", help="The dialect it is in: claude, codex, …", show_default=False)
    ],
    side_file: Annotated[
        Path | None,
        typer.Option(
            "--side-file", help="What the agent wrote beside it: see docs/agents.md.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count the tokens in FILE, which may be of any size."""
    from coordinator.cli.common import print_json

    dialect = _dialect(agent, side_file)
    summary = _read(dialect, file)
    if side_file is not None and dialect.side_file is not None:
        reader = dialect.side_file.reader()
        for chunk in _chunks(str(side_file)):
            reader.feed(chunk)
        summary = reader.complete(summary)
    if as_json:
        print_json({"agent": agent, **_figures(summary.usage)})
    else:
        typer.echo(_table(summary.usage))


def _dialect(agent: str, side_file: Path | None) -> Dialect:
    from adw_modules.agents import DIALECTS

    dialect = DIALECTS.get(agent)
    if dialect is None:
        problem = f"There is no agent dialect {agent!r}: use one of {', '.join(sorted(DIALECTS))}."
    elif side_file is not None and dialect.side_file is None:
        problem = f"{agent} writes all it tells to its output: leave --side-file out."
    else:
        return dialect
    from coordinator.cli import EXIT_USAGE

    typer.echo(problem, err=True)
    raise typer.Exit(EXIT_USAGE)


def _read(dialect: Dialect, file: str) -> StreamSummary:
    """What the whole output tells. CoordinatorError if it is no text and nothing can be read in it."""
    from adw_modules.errors import CoordinatorError
    from adw_modules.tasks.model import UsageSource

    parser, is_text = dialect.parser(), True
    for number, chunk in enumerate(_chunks(file)):
        is_text = _is_text(chunk) if number == 0 else is_text
        parser.feed(chunk)
    summary = parser.finish()
    if not is_text and summary.final is None and summary.usage.source is UsageSource.UNKNOWN:
        raise CoordinatorError(f"{_name(file)} is not the output of an agent: it is no text.")
    return summary


def _chunks(file: str) -> Iterator[bytes]:
    from adw_modules.errors import CoordinatorError

    try:
        with _opened(file) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise CoordinatorError(f"There is no file {file}.") from None
    except IsADirectoryError:
        raise CoordinatorError(f"{file} is a folder: name the file with the agent's output.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", None) or str(error)
        raise CoordinatorError(f"{_name(file)} cannot be read: {why}.") from None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream


def _name(file: str) -> str:
    return "Standard input" if file == "-" else file


def _is_text(start: bytes) -> bool:
    """Agents print UTF-8 without NULs. The last character of a piece may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def _figures(usage: Usage) -> dict[str, Any]:
    """What is not known is null, never 0."""
    from adw_modules.tasks.model import UsageSource

    is_known = usage.source is not UsageSource.UNKNOWN
    total = _counts(usage.total) if is_known else dict.fromkeys(COUNTS)
    return {
        **total,
        "source": usage.source.value,
        "models": {model: _counts(tokens) for model, tokens in usage.by_model.items()},
        "cost_usd": usage.reported_cost_usd,
    }


def _counts(tokens: ModelUsage) -> dict[str, int]:
    return {name: getattr(tokens, name) for name in COUNTS}


def _table(usage: Usage) -> str:
    from adw_modules.tasks.model import UsageSource

    if usage.source is UsageSource.UNKNOWN:
        return "It does not tell how many tokens were used."
    rows = [("model", *(name.replace("_", " ") for name in COLUMNS))]
    rows += [_row(model, tokens) for model, tokens in usage.by_model.items()]
    if len(usage.by_model) != 1:
        rows.append(_row("all", usage.total))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    cost = f"; it says this cost ${usage.reported_cost_usd}" if usage.reported_cost_usd is not None else ""
    return "\n".join([*lines, f"source: {usage.source.value}{cost}"])


def _row(model: str, tokens: ModelUsage) -> tuple[str, ...]:
    return (model, *(f"{getattr(tokens, name):,}" for name in COLUMNS))
