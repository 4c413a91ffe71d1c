"""The tools a model has: what it is told of them, and what becomes of each call.

Owns names, descriptions and the reading of arguments. A call never raises: whatever is wrong with it
comes back as one sentence for the model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adw_modules.openrouter.messages import ToolCall
from coordinator.openrouter_agent import files
from coordinator.openrouter_agent.commands import SECONDS, Commands
from coordinator.openrouter_agent.confined import ToolError, Workspace
from coordinator.openrouter_agent.searching import search
from coordinator.openrouter_agent.web import fetch

WEB = "fetch_url"
RESULT_CHARACTERS = 80_000  # of one answer; every tool stays below by itself

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a tool, as the model is told."""

    kind: str  # a word of JSON Schema: string, integer, number or boolean
    about: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What the model is told of one tool."""

    about: str
    arguments: Mapping[str, Argument]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The answer to one call."""

    call_id: str
    text: str
    is_error: bool


_PATH = Argument(kind="string", about="relative to the working directory", required=True)
_WHERE = Argument(kind="string", about="directory to begin at; default: the working directory")
_GLOB = Argument(kind="string", about="only files like this, such as *.py or docs/*.md")

TOOLS: Mapping[str, Tool] = {
    "read_file": Tool(
        about="Read a text file. Long files come in parts.",
        arguments={
            "path": _PATH,
            "offset": Argument(kind="integer", about="first line, counted from 1"),
            "limit": Argument(kind="integer", about="number of lines"),
        },
    ),
    "list_files": Tool(about="List everything below a directory.", arguments={"path": _WHERE, "glob": _GLOB}),
    "search": Tool(
        about="Find lines in files by a Python regular expression.",
        arguments={
            "pattern": Argument(kind="string", about="what to find", required=True),
            "path": Argument(kind="string", about="file or directory; default: the working directory"),
            "glob": _GLOB,
            "literal": Argument(kind="boolean", about="take the pattern as plain text"),
        },
    ),
    "write_file": Tool(
        about="Write a whole file; directories are made as needed.",
        arguments={
            "path": _PATH,
            "content": Argument(kind="string", about="the whole new content", required=True),
        },
    ),
    "edit_file": Tool(
        about="Replace a passage of a file that is there exactly once.",
        arguments={
            "path": _PATH,
            "old_text": Argument(kind="string", about="the passage, copied exactly", required=True),
            "new_text": Argument(kind="string", about="what stands there instead", required=True),
            "replace_all": Argument(kind="boolean", about="replace every occurrence"),
        },
    ),
    "run_command": Tool(
        about="Run a shell command in the working directory, without input. What it leaves in the background "
        "is killed with its end.",
        arguments={
            "command": Argument(kind="string", about="for /bin/sh", required=True),
            "timeout_seconds": Argument(kind="number", about=f"default {SECONDS:.0f}"),
        },
    ),
    WEB: Tool(
        about="Read a page of the web as text.",
        arguments={"url": Argument(kind="string", about="http or https", required=True)},
    ),
}


class Toolbox:
    """The tools of one run. `names`: those the model has."""

    def __init__(self, workspace: Workspace, commands: Commands, names: tuple[str, ...]) -> None:
        self.names = names
        self._workspace = workspace
        self._run: Mapping[str, Callable[..., Awaitable[str] | str]] = {
            "read_file": self._read,
            "list_files": self._list,
            "search": self._search,
            "write_file": self._write,
            "edit_file": self._edit,
            "run_command": self._command,
            WEB: fetch,
        }
        self._commands = commands

    def schemas(self) -> list[dict[str, Any]]:
        """The tools as the request names them."""
        return [_schema(name, TOOLS[name]) for name in self.names]

    async def call(self, call: ToolCall) -> ToolResult:
        try:
            text = await self._answer(call)
            return ToolResult(call_id=call.id, text=text[:RESULT_CHARACTERS], is_error=False)
        except ToolError as error:
            return ToolResult(call_id=call.id, text=f"Error: {error}", is_error=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            return ToolResult(call_id=call.id, text=f"Error: {call.name} failed: {reason}.", is_error=True)

    async def _answer(self, call: ToolCall) -> str:
        if call.name not in self.names:
            known = ", ".join(self.names) or "none"
            raise ToolError(f"there is no tool {call.name[:60]!r}; the tools are: {known}.")
        if call.error is not None:
            raise ToolError(call.error)
        arguments = checked(call.name, call.arguments)
        answer = self._run[call.name](**arguments)
        return answer if isinstance(answer, str) else await answer

    def _read(self, path: str, offset: int = 1, limit: int = files.READ_LINES) -> str:
        return files.read_file(self._workspace, path, offset=offset, limit=limit)

    def _list(self, path: str = ".", glob: str | None = None) -> str:
        return files.list_files(self._workspace, path, glob=glob)

    async def _search(
        self, pattern: str, path: str = ".", glob: str | None = None, literal: bool = False
    ) -> str:
        return await search(self._workspace, pattern, path=path, glob=glob, literal=literal)

    def _write(self, path: str, content: str) -> str:
        return files.write_file(self._workspace, path, content)

    def _edit(self, path: str, old_text: str, new_text: str, replace_all: bool = False) -> str:
        return files.edit_file(self._workspace, path, old_text, new_text, replace_all=replace_all)

    async def _command(self, command: str, timeout_seconds: float = SECONDS) -> str:
        return await self._commands.run(command, seconds=timeout_seconds)


def _schema(name: str, tool: Tool) -> dict[str, Any]:
    properties = {key: {"type": each.kind, "description": each.about} for key, each in tool.arguments.items()}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [key for key, each in tool.arguments.items() if each.required],
    }
    return {
        "type": "function",
        "function": {"name": name, "description": tool.about, "parameters": parameters},
    }


def checked(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments a tool takes, of the right types. Raises ToolError; what it does not know is left out."""
    known = TOOLS[name].arguments
    missing = [key for key, each in known.items() if each.required and given.get(key) is None]
    if missing:
        raise ToolError(f"{name} needs the argument {missing[0]}; it takes: {', '.join(known)}.")
    named = {key: value for key, value in given.items() if key in known and value is not None}
    return {key: _typed(name, key, known[key].kind, value) for key, value in named.items()}


def _typed(name: str, key: str, kind: str, value: Any) -> Any:
    """Models write numbers and truth values as text at times; that is understood."""
    if isinstance(value, str) and kind == "boolean" and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if isinstance(value, str) and kind in {"integer", "number"}:
        value = _number(value)
    if isinstance(value, float) and kind == "integer" and value.is_integer():
        value = int(value)
    is_wrong_bool = isinstance(value, bool) and kind != "boolean"
    is_wrong_number = isinstance(value, int | float) and not 0 <= value < 1e9
    if is_wrong_bool or is_wrong_number or not isinstance(value, _TYPES[kind]):
        raise ToolError(f"{name}: the argument {key} has to be of type {kind}.")
    return value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
