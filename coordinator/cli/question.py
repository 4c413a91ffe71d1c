"""The question that Ctrl-C on `coordinator run` leads to while runs are live."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence

from coordinator.daemon import Choice

_ANSWERS = {"": Choice.LEAVE, "l": Choice.LEAVE, "e": Choice.END, "c": Choice.CONTINUE}


def can_ask() -> bool:
    """Whether somebody sits in front of this process."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask_about_runs(names: Sequence[str]) -> Choice:
    """Ask until there is an answer that means something; the daemon's loop goes on meanwhile."""
    question = (
        f"\n{_what_is_live(names)} [l]eave it running and exit (Enter, Ctrl-C), [e]nd it and exit, "
        "[c]ontinue? "
        if len(names) == 1
        else f"\n{_what_is_live(names)} [l]eave them running and exit (Enter, Ctrl-C), [e]nd them and exit, "
        "[c]ontinue? "
    )
    while True:
        print(question, end="", file=sys.stderr, flush=True)
        answer = await _line()
        choice = _ANSWERS.get(answer.strip().lower()[:1])
        if choice is not None:
            return choice


def _what_is_live(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"The run of {names[0]} is live."
    return f"{len(names)} runs are live ({', '.join(names)})."


async def _line() -> str:
    """The next line of standard input, empty at its end. Cancelling gives the terminal back."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not ready.done():
            ready.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin.fileno(), read)
    try:
        return await ready
    finally:
        with contextlib.suppress(ValueError, OSError):
            loop.remove_reader(sys.stdin.fileno())
