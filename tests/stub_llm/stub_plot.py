"""The story the stub plays: what a request shows of its conversation, the model's answer, and its price.

Owns scenarios, answers and prices. Knows no wire: each provider's own shapes are in a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

SUBTASK = "STUB SUBTASK"
NO_SUCH_MODEL = "coordinator-no-such-model"  # what `coordinator providers probe` asks for to see an error
CONTENT = "# Hello\n\nWritten through the stub.\n"
# Not `sleep`: some shell tools refuse a long one.
IDLE = "timeout 60 tail -f /dev/null"

# The tools of the programs, most wanted first, and the names of the arguments that matter here.
WRITERS = ("Write", "write_file", "write", "create")
SHELLS = ("Bash", "bash", "exec_command", "shell_command", "shell", "run_shell_command")
PATHS = ("file_path", "filePath", "path")
TEXTS = ("content", "file_text")
COMMANDS = ("command", "cmd")

# How the programs tell the model where they work. Some of their tools take absolute paths only.
WORKING_DIRECTORY = re.compile(
    r"(?:[Ww]orking directory: |<cwd>|Workspace Directories:\*\*\s+- "
    r"|working in the director(?:y|ies):\s+(?:- )?)(/[^\n<]+)"
)
ASKED_FILE = re.compile(r"Write a file named (\S+) in the current directory whose only line is: (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """Tokens in disjoint kinds; `reasoning` is a part of `output`."""

    input: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: Billed) -> Billed:
        return Billed(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_creation=self.cache_creation + other.cache_creation,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


SIDE_REQUEST = Billed(input=7, output=3)  # a request without tools: title generation and the like


def turn_price(turn: int) -> Billed:
    """What the request with `turn` tool results in it costs; a wire leaves out kinds it does not have."""
    return Billed(
        input=1200 + 10 * turn,
        cache_read=800 + 20 * turn,
        cache_creation=300,
        output=150 + turn,
        reasoning=50 + turn,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the request offers."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)

    @property
    def properties(self) -> Mapping[str, Any]:
        return self.schema.get("properties") or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the story needs to know of a request, whatever its wire."""

    model: str
    stream: bool
    tools: Mapping[str, Tool]
    turn: int  # tool results in the conversation
    prompt: str  # the first words of the user
    body: Json

    @property
    def wants_edit(self) -> bool:
        """aider's way: no tools, its rules for an edit are in the prompt."""
        return not self.tools and "file listing" in "\n".join(strings(self.body))

    @property
    def is_side(self) -> bool:
        return not self.tools and not self.wants_edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One message of the model: a text and perhaps one tool call."""

    text: str
    tool: str | None = None
    arguments: Json | None = None
    billed: Billed


def offered(tools: Iterator[Tool]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


def strings(value: object) -> Iterator[str]:
    """All strings in a request, however deep."""
    if isinstance(value, str):
        yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from strings(child)


def failing_status(scenario: str, request_number: int) -> int | None:
    """The HTTP status with which this request of the run fails, if the scenario is one of `STATUS[xN]`."""
    match = re.fullmatch(r"(\d{3})(?:x(\d+))?", scenario)
    if match is None or (match[2] is not None and request_number > int(match[2])):
        return None
    return int(match[1])


def choose_answer(scenario: str, request: Request) -> Answer:
    """The model's next message in the conversation."""
    billed = turn_price(request.turn)
    if request.wants_edit:
        return _written_edit(request, billed)
    if request.is_side:
        return Answer(text="A title", billed=SIDE_REQUEST)
    if request.turn >= _tool_turns(scenario) or SUBTASK in request.prompt:
        return Answer(text="Done.", billed=billed)
    if scenario == "agent":
        return _sub_agent_call(request, billed)
    if scenario == "shell":
        return _shell_call(request, "I will wait.", IDLE, billed)
    return _write_call(request, billed)


def _tool_turns(scenario: str) -> int:
    match = re.fullmatch(r"tools(\d+)", scenario)
    if match:
        return int(match[1])
    return 0 if scenario == "text" else 1


def _file(request: Request) -> tuple[str, str]:
    """Name and content of the file that this turn writes."""
    if asked := ASKED_FILE.search("\n".join(strings(request.body))):
        return asked[1], f"{asked[2]}\n"
    return ("HELLO.md" if request.turn == 0 else f"HELLO-{request.turn + 1}.md"), CONTENT


def _written_edit(request: Request, billed: Billed) -> Answer:
    """A whole file as text, in the format that aider asks models for that it does not know."""
    name, content = _file(request)
    return Answer(text=f"I will write {name}.\n\n{name}\n```\n{content}```\n", billed=billed)


def _write_call(request: Request, billed: Billed) -> Answer:
    name, content = _file(request)
    text = f"I will write {name}."
    tool = next((request.tools[each] for each in WRITERS if each in request.tools), None)
    if tool is None:
        quoted = content.rstrip("\n").replace("\n", "\\n")  # the contents here hold no quote and no percent
        return _shell_call(request, text, f"printf '{quoted}\\n' > {name}", billed)
    arguments = {
        _argument(tool, PATHS): f"{_working_directory(request)}{name}",
        _argument(tool, TEXTS): content,
    }
    return Answer(text=text, tool=tool.name, arguments=_complete(tool, arguments), billed=billed)


def _shell_call(request: Request, text: str, command: str, billed: Billed) -> Answer:
    tool = next(request.tools[each] for each in SHELLS if each in request.tools)
    name = _argument(tool, COMMANDS)
    is_list = tool.properties[name].get("type") == "array"
    arguments: Json = {name: ["bash", "-c", command] if is_list else command}
    return Answer(text=text, tool=tool.name, arguments=_complete(tool, arguments), billed=billed)


def _sub_agent_call(request: Request, billed: Billed) -> Answer:
    tool = next(request.tools[name] for name in ("Agent", "Task") if name in request.tools)
    arguments = {"description": "A subtask", "prompt": SUBTASK, "subagent_type": "general-purpose"}
    # Claude may run sub-agents in the background; the plot needs the answer before the next turn.
    if "run_in_background" in tool.properties:
        arguments |= {"run_in_background": False}
    return Answer(text="I will ask another agent.", tool=tool.name, arguments=arguments, billed=billed)


def _argument(tool: Tool, names: tuple[str, ...]) -> str:
    return next(name for name in names if name in tool.properties)


def _complete(tool: Tool, arguments: Json) -> Json:
    """With a harmless value for every other argument that the tool insists on."""
    kinds = {"boolean": False, "integer": 1, "number": 1, "array": [], "object": {}}
    for name in tool.schema.get("required") or []:
        wanted = tool.properties.get(name) or {}
        value = next(iter(wanted.get("enum") or []), kinds.get(str(wanted.get("type")).lower(), "stub"))
        arguments.setdefault(name, value)
    return arguments


def _working_directory(request: Request) -> str:
    """With a slash at its end; empty when the request does not name it.

    Claude 2.1.329 leaves its whole description of the environment out of a prompt that begins with a slash.
    """
    for text in strings(request.body):
        for found in WORKING_DIRECTORY.findall(text):
            folder = found.strip().rstrip(".")
            if Path(folder).is_dir():  # a wrong guess would have the program write somewhere else
                return f"{folder}/"
    return ""
