"""The tool that searches files, in a process of its own: a regular expression may take for ever.

Owns what is searched and how a hit reads. `search` is the tool; `main` is what the child runs. Standard
library only, because the child starts for each search.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path

from coordinator.openrouter_agent.confined import ToolError, Workspace
from coordinator.openrouter_agent.files import matches, tree

SECONDS = 20.0
HITS = 200
HIT_CHARACTERS = 300
FILE_BYTES = 4 << 20  # larger files are not searched
MEMORY_BYTES = 1 << 30
_PROJECT = Path(__file__).resolve().parents[2]
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from coordinator.openrouter_agent.searching import main; main()"
)


async def search(
    workspace: Workspace,
    pattern: str,
    *,
    path: str = ".",
    glob: str | None = None,
    literal: bool = False,
    seconds: float = SECONDS,
) -> str:
    """The lines that match, as PATH:LINE:TEXT. Raises ToolError for a bad or too slow pattern."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        if not literal:
            raise ToolError(
                f"the pattern is no regular expression ({error}): set literal to true."
            ) from error
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _CHILD, str(_PROJECT)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    request = {
        "root": str(workspace.root),
        "pattern": re.escape(pattern) if literal else pattern,
        "path": path,
        "glob": glob,
    }
    try:
        async with asyncio.timeout(seconds):
            output, _ = await child.communicate(json.dumps(request).encode())
    except TimeoutError:
        raise ToolError(f"the search took longer than {seconds:g} s: use a simpler pattern.") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _answer(output)


def _answer(output: bytes) -> str:
    try:
        answer = json.loads(output)
    except ValueError:
        raise ToolError("the search used too much memory: use a simpler pattern.") from None
    if "error" in answer:
        raise ToolError(answer["error"])
    return str(answer["text"])


# --- the child -------------------------------------------------------------------------------------------


def main() -> None:
    """Read one request from standard input, print one answer."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    seconds = int(SECONDS) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # whoever asked may be killed meanwhile
    request = json.loads(sys.stdin.buffer.read())
    try:
        answer = {"text": found(Workspace(Path(request.pop("root"))), **request)}
    except ToolError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


def found(workspace: Workspace, *, pattern: str, path: str, glob: str | None) -> str:
    """All hits below a directory, or in one file."""
    expression = re.compile(pattern)
    hits: list[str] = []
    skipped = 0
    for name in _names(workspace, path, glob):
        try:
            with workspace.reading(name) as fd:
                skipped += not _hits(fd, name, expression, hits)
        except ToolError:
            continue  # gone, or no plain file
        if len(hits) >= HITS:
            break
    note = [f"[the first {HITS} hits]"] if len(hits) >= HITS else []
    if skipped:
        note.append(f"[{skipped} binary or very large files were not searched]")
    return "\n".join([*(hits[:HITS] or ["[no match]"]), *note])


def _names(workspace: Workspace, path: str, glob: str | None) -> list[str]:
    with workspace.place(path) as place:
        status = place.status()
        shown = place.shown
    if status is None:
        raise ToolError(f"{path} does not exist.")
    if not os.path.isdir(workspace.root / shown):  # noqa: PTH112  only chooses; what is opened is checked again
        return [shown]
    with workspace.directory(path) as (fd, below):
        all_names = tree(fd, "" if below == "." else below, time.monotonic() + SECONDS)
        return [
            name for name in all_names if not name.endswith(("/", "@")) and (not glob or matches(name, glob))
        ]


def _hits(fd: int, name: str, expression: re.Pattern[str], hits: list[str]) -> bool:
    """Append the hits of one file. False if it is not searched."""
    if os.fstat(fd).st_size > FILE_BYTES:
        return False
    with open(fd, "rb", closefd=False) as file:
        content = file.read(FILE_BYTES)
    if b"\0" in content[:8192]:
        return False
    for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), start=1):
        if expression.search(line):
            hits.append(f"{name}:{number}:{line[:HIT_CHARACTERS]}")
            if len(hits) >= HITS:
                break
    return True
