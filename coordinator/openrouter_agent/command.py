"""The command line of tools/openrouter-cli.py: options in, records out, exit code.

Owns the options and what a signal does. Exit code 0 only for a result that is no error, 1 for one that
is, 2 for a command line that cannot be used. Starts in a fraction of a second, so the rest is imported
when it is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from coordinator.openrouter_agent.running import Order

EX_ERROR, EX_USAGE = 1, 2
LARGEST_PROMPT = 8 << 20
TOOLS = ("read_file", "list_files", "search", "write_file", "edit_file", "run_command")
FORMATS = ("text", "json", "stream-json")
ABOUT = """\
Work on a task with a model of OpenRouter and tools in one directory. The prompt is a file (-p) or comes on
standard input. The key is in OPENROUTER_API_KEY; OPENROUTER_BASE_URL is another address of the service."""


class UsageError(Exception):
    """The command line cannot be used; `str(error)` is one sentence."""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the program; its exit code."""
    environ = dict(os.environ) if environ is None else environ
    # Closed by whoever started us: what would be printed there goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  for as long as the program runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    options = _parser().parse_args(arguments)
    # httpx brings a command line of its own, which would load a renderer of terminals for nothing.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        order = _order(options, environ)
    except UsageError as error:
        return _complain(str(error), EX_USAGE)
    from adw_modules.openrouter.wire import KEY_VARIABLE
    from coordinator.openrouter_agent.commands import hide
    from coordinator.openrouter_agent.running import run

    hide(KEY_VARIABLE)
    try:
        return asyncio.run(run(order))
    except OSError as error:
        return _complain(f"{error.filename or 'a file'}: {(error.strerror or str(error)).lower()}.", EX_ERROR)


def complain(sentence: str) -> None:
    """Say it on standard error, if that takes it: a full disk there is no reason to end."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _complain(sentence: str, code: int) -> int:
    complain(sentence)
    return code


# --- options ---------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Complains in one sentence."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_complain(f"{self.prog}: {message}; --help shows the options.", EX_USAGE))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=ABOUT, prog="openrouter-cli.py", allow_abbrev=False)
    add = parser.add_argument
    add("-p", "--prompt", metavar="FILE", help="file with the prompt; without it: standard input")
    add("--model", required=True, help="such as anthropic/claude-sonnet-4.5")
    add("--fallback-model", default="", metavar="A,B", help="models to try when the first one fails")
    add("--output-file", type=Path, metavar="FILE", help="write what is printed into this file too")
    add("--output-format", choices=FORMATS, help="default: text; with --output-file: stream-json")
    add("--workspace", type=Path, metavar="DIR", help="where the model works; default: here")
    add("--tools", default="all", metavar="LIST", help=f"all, none, or some of {','.join(TOOLS)}")
    add("--allow-web", action="store_true", help="add the tool fetch_url")
    add("--allow-writes", type=Path, action="append", default=[], metavar="DIR", help=_WRITES)
    add("--system-prompt-file", type=Path, metavar="FILE", help="instead of the one built in")
    add("--max-turns", type=_count, default=100, metavar="N", help="answers of the model; default: 100")
    add("--max-tokens", type=_count, metavar="N", help="tokens of the whole run")
    add("--max-output-tokens", type=_count, metavar="N", help="tokens of one answer")
    add("--max-cost", type=_money, metavar="USD", help="checked after each answer")
    add("--timeout", type=_minutes, metavar="MINUTES", help="of the whole run")
    add("--silence-timeout", type=_minutes, default=5.0, metavar="MINUTES", help=_SILENCE)
    add("--context-tokens", type=_count, metavar="N", help="what the model takes; default: 128000")
    add("--config", type=Path, metavar="FILE", help="default: $COORDINATOR_CONFIG, else adws/config.toml")
    return parser


_WRITES = "further directory that commands may write to (repeatable); / is everywhere"
_SILENCE = "of an answer of which no further piece comes; default: 5"


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:19]) <= 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 < amount < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of dollars above 0")
    return amount


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not 0 < minutes < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return minutes


# --- from options to an order ----------------------------------------------------------------------------


def _order(options: argparse.Namespace, environ: Mapping[str, str]) -> Order:
    """Everything the run needs. Raises UsageError."""
    from coordinator.openrouter_agent.running import Order

    return Order(
        prompt=_prompt(options.prompt),
        system=_text_of(options.system_prompt_file) if options.system_prompt_file else None,
        model=_model(options.model),
        fallbacks=tuple(_model(name) for name in _listed(options.fallback_model)),
        workspace=_directory(options.workspace or Path.cwd()),
        tools=_tools(options),
        writable=tuple(options.allow_writes),
        form=options.output_format or ("stream-json" if options.output_file else "text"),
        output_file=options.output_file,
        max_turns=options.max_turns,
        max_tokens=options.max_tokens,
        max_output_tokens=options.max_output_tokens,
        max_cost=options.max_cost,
        seconds=options.timeout * 60 if options.timeout else None,
        silence_seconds=options.silence_timeout * 60,
        context_tokens=options.context_tokens,
        config=options.config,
        environ=environ,
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _model(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise UsageError("--model is empty or has characters that no model's name has.")
    return name.strip()


def _tools(options: argparse.Namespace) -> tuple[str, ...]:
    wanted = _listed(options.tools)
    names = {"all": TOOLS, "none": ()}.get(options.tools.strip(), tuple(dict.fromkeys(wanted)))
    unknown = [name for name in names if name not in TOOLS]
    if unknown or (not names and options.tools.strip() != "none"):
        bad = unknown[0] if unknown else ""
        raise UsageError(f"--tools has no {bad!r}: write all, none, or some of {','.join(TOOLS)}.")
    return (*names, "fetch_url") if options.allow_web else names


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"--workspace {path} is not a directory.")
    return path


def _prompt(name: str | None) -> str:
    if name is not None and name != "-":
        text = _text_of(Path(name))
    elif sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no prompt: name a file with -p, or give the prompt on standard input.")
    else:
        text = _decoded(sys.stdin.buffer.read(LARGEST_PROMPT + 1), "the prompt")
    if not text.strip():
        raise UsageError("the prompt is empty.")
    return text


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _decoded(file.read(LARGEST_PROMPT + 1), str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _decoded(content: bytes, name: str) -> str:
    if len(content) > LARGEST_PROMPT:
        raise UsageError(f"{name} is over {LARGEST_PROMPT} bytes.")
    return content.decode("utf-8", "replace")
