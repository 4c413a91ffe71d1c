"""The scripted agent: plays a coding agent in the demo and the tests. It is not an AI and calls no network.

Run as `python -I agent.py --model M` with the prompt on stdin. It speaks the stream-json of the Claude CLI
and does what directives in the prompt say, one a line, in their order:

    [[agent: write docs/guide.md]]          create the file, or add to it
    [[agent: replace a.py: OLD => NEW]]     change a text in a file
    [[agent: no-op]]                        look around, change nothing
    [[agent: fail]]                         work, then end with an error and exit 1
    [[agent: fail-once]]                    the same on the first attempt; later attempts go on
    [[agent: api-error 429]]                end as the real CLI does when the model's API refuses
    [[agent: slow 60]]                      work for 60 s; SIGINT ends it with a result and exit 0
    [[agent: wait /run/go]]                 work until that file is there
    [[agent: silent 60]]                    60 s without a sign of life
    [[agent: ignore-term]]                  deaf to SIGINT and SIGTERM, for ten minutes
    [[agent: grandchild]]                   leave a process behind in a session of its own
    [[agent: half-line]]                    stop in the middle of an output line, exit 0
    [[agent: exit 7]]                       exit at once with that code, no output

SCRIPTED_AGENT_PACE is the pause between steps in seconds (default 0), COORDINATOR_ATTEMPT the attempt.
Standard library only, and little of it: it starts once per run. Imports nothing of Coordinator.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "scripted agent"
_DIRECTIVE = re.compile(r"\[\[agent:\s*([a-z-]+)[ \t]*([^\]\n]*)\]\]")
_TICK = 0.25  # seconds between signs of life of slow work
_LONGEST = 600.0  # seconds: nothing that is started here lives longer
# US dollars per million tokens: input, output. The program's own list, as the real CLI has one.
_PRICES = {"opus": (15.0, 75.0), "sonnet": (3.0, 15.0), "haiku": (1.0, 5.0)}


class Ended(Exception):
    """The run is over: what the final record says, and the exit code."""

    def __init__(self, text: str, code: int, **result: Any) -> None:
        self.text = text
        self.code = code
        self.result = result
        super().__init__(text)


class Tokens:
    """Adds up the tokens of a run; figures follow from the texts alone, so that equal runs cost the same."""

    def __init__(self, prompt: str) -> None:
        self._context = 1200 + len(prompt) // 4
        self._output = 0
        self.total = {"input": 0, "cache_read": 0, "cache_write": 0, "output": 0}

    def start_turn(self, turn: int) -> dict[str, Any]:
        """Bill the input of one call; gives the usage its events show, where the output is a placeholder."""
        fresh, written = 40 + 3 * turn, self._context if turn == 1 else 150
        read = 0 if turn == 1 else self._context + 150 * (turn - 2)
        for kind, count in (("input", fresh), ("cache_write", written), ("cache_read", read)):
            self.total[kind] += count
        return _usage(fresh, written, read, 1)

    def add_output(self, text: str) -> None:
        """Bill what was said or written."""
        self.total["output"] += 20 + len(text) // 4

    def usage(self) -> dict[str, Any]:
        """The run's total as the final record shows it."""
        total = self.total
        return _usage(total["input"], total["cache_write"], total["cache_read"], total["output"])

    def cost(self, model: str) -> float:
        """Dollars by the program's own list; an unknown model is priced like Sonnet."""
        price_in, price_out = next(
            (price for name, price in _PRICES.items() if name in model), _PRICES["sonnet"]
        )
        total = self.total
        weighted = total["input"] + 1.25 * total["cache_write"] + 0.1 * total["cache_read"]
        return round((weighted * price_in + total["output"] * price_out) / 1e6, 6)


def _usage(fresh: int, written: int, read: int, output: int) -> dict[str, Any]:
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


class Stream:
    """Writes the records of one run to standard output."""

    def __init__(self, model: str, prompt: str, pace: float) -> None:
        self.model = model
        self.turns = 0
        self.tokens = Tokens(prompt)
        self._pace = pace
        self._began = time.monotonic()
        self._count = 0
        self._prompt = prompt
        self.session = self._uuid()

    def _uuid(self) -> str:
        """Differs from record to record, but not from run to run."""
        self._count += 1
        text = hashlib.sha256(
            f"{self._count}\n{os.environ.get('COORDINATOR_ATTEMPT')}\n{self._prompt}".encode()
        )
        raw = text.hexdigest()
        return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-a{raw[17:20]}-{raw[20:32]}"

    def emit(self, record: dict[str, Any]) -> None:
        """One line."""
        line = record | {"session_id": self.session, "uuid": self._uuid()}
        _print(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def begin(self) -> None:
        self.emit(
            {
                "type": "system",
                "subtype": "init",
                "cwd": str(Path.cwd()),
                "tools": ["Read", "Edit", "Write", "Bash"],
                "mcp_servers": [],
                "model": self.model,
                "permissionMode": "bypassPermissions",
                "apiKeySource": "none",
                "claude_code_version": f"0.0.0 ({NAME})",
                "output_style": "default",
            }
        )

    def say(self, text: str, tool: str | None = None, arguments: dict[str, Any] | None = None) -> str | None:
        """One call of the model: a text and perhaps the use of a tool, as one record per content block."""
        time.sleep(self._pace)
        self.turns += 1
        message_id, usage = f"msg_scripted_{self.turns:06d}", self.tokens.start_turn(self.turns)
        self.tokens.add_output(text)
        self._block(message_id, usage, {"type": "text", "text": text})
        if tool is None:
            return None
        use = {
            "type": "tool_use",
            "id": f"toolu_scripted_{self.turns:06d}",
            "name": tool,
            "input": arguments or {},
        }
        self.tokens.add_output(json.dumps(arguments))
        self._block(message_id, usage, use)
        return str(use["id"])

    def _block(self, message_id: str, usage: dict[str, Any], block: dict[str, Any]) -> None:
        message = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [block],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        self.emit({"type": "assistant", "message": message, "parent_tool_use_id": None})

    def tool_result(self, use: str | None, text: str, *, is_error: bool = False) -> None:
        block = {"type": "tool_result", "tool_use_id": use, "content": text, "is_error": is_error}
        self.user([block])

    def user(self, content: list[dict[str, Any]]) -> None:
        self.emit(
            {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}
        )

    def result(self, text: str, **more: Any) -> None:
        """The final record."""
        total, cost = self.tokens.total, self.tokens.cost(self.model)
        elapsed = int((time.monotonic() - self._began) * 1000)
        by_model = {
            self.model: {
                "inputTokens": total["input"],
                "outputTokens": total["output"],
                "cacheReadInputTokens": total["cache_read"],
                "cacheCreationInputTokens": total["cache_write"],
                "webSearchRequests": 0,
                "costUSD": cost,
                "contextWindow": 200_000,
                "maxOutputTokens": 64_000,
                "thinkingTokens": 0,
                "cacheCreationEphemeral5mInputTokens": total["cache_write"],
                "cacheCreationEphemeral1hInputTokens": 0,
            }
        }
        record = {
            "duration_api_ms": elapsed,
            "stop_reason": "end_turn",
            "total_cost_usd": cost,
            "usage": self.tokens.usage(),
            "modelUsage": by_model,
            "permission_denials": [],
            "terminal_reason": "completed",
            "is_error": False,
            "num_turns": self.turns,
            "subtype": "success",
            "api_error_status": None,
            "result": text,
            "type": "result",
            "duration_ms": elapsed,
            "model_usage_since_last_result": by_model,
        }
        self.emit(record | more)


def _print(text: str) -> None:
    """Unbuffered, so that a signal falls between two lines and not into one."""
    left = text.encode()
    while left:
        left = left[os.write(1, left) :]


# Directives -----------------------------------------------------------------------------------------


def _write(stream: Stream, target: str) -> None:
    path = _inside(target)
    old = path.read_text() if path.exists() else ""
    text = _addition(path)
    use = stream.say(f"I will write {target}.", "Write", {"file_path": str(path), "content": text})
    if text not in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{old}\n{text}" if old else text)
    stream.tool_result(use, f"File written: {target}")


def _addition(path: Path) -> str:
    if path.suffix in (".py", ".toml", ".sh"):
        return f"# Added by the {NAME}: this line stands for the work of a real one.\n"
    title = path.stem.replace("-", " ").capitalize()
    return f"# {title}\n\nWritten by the {NAME}; a real agent would say more.\n"


def _replace(stream: Stream, argument: str) -> None:
    target, _, change = argument.partition(":")
    old, _, new = (part.strip() for part in change.partition("=>"))
    path = _inside(target.strip())
    text = path.read_text() if path.exists() else ""
    arguments = {"file_path": str(path), "old_string": old, "new_string": new}
    use = stream.say(f"I will change {target.strip()}.", "Edit", arguments)
    if old in text and new not in text:
        path.write_text(text.replace(old, new))
    found = old in text or new in text
    stream.tool_result(
        use, "File changed" if found else f"Text not found in {target.strip()}", is_error=not found
    )


def _inside(target: str) -> Path:
    """The file, which must lie under the working directory."""
    path = (Path.cwd() / target).resolve()
    if not path.is_relative_to(Path.cwd().resolve()):
        raise Ended(f"{target} lies outside of the working directory", 1, **_failure(f"{target} is outside"))
    return path


def _no_op(stream: Stream, _argument: str) -> None:
    use = stream.say("I will look at the files.", "Bash", {"command": "ls"})
    stream.tool_result(use, "\n".join(sorted(path.name for path in Path.cwd().iterdir())))


def _failure(reason: str) -> dict[str, Any]:
    return {
        "is_error": True,
        "subtype": "error_during_execution",
        "terminal_reason": "error",
        "errors": [reason],
    }


def _fail(stream: Stream, _argument: str) -> None:
    use = stream.say("I will run the tests.", "Bash", {"command": "pytest -q"})
    stream.tool_result(use, "1 failed, 3 passed", is_error=True)
    text = f"The {NAME} was told to fail (attempt {_attempt()})."
    raise Ended(text, 1, **_failure(text))


def _fail_once(stream: Stream, argument: str) -> None:
    if _attempt() <= 1:
        _fail(stream, argument)
    stream.say("The first attempt failed; this one will not.")


def _attempt() -> int:
    text = os.environ.get("COORDINATOR_ATTEMPT", "1")
    return int(text) if text.isdigit() else 1


def _api_error(stream: Stream, argument: str) -> None:
    status = int(argument or 500)
    text = f"API Error: Request rejected ({status})"
    retry = {"attempt": 1, "max_retries": 1, "retry_delay_ms": 0, "error_status": status, "error": "unknown"}
    stream.emit({"type": "system", "subtype": "api_retry"} | retry)
    more = {"is_error": True, "terminal_reason": "api_error", "api_error_status": status}
    raise Ended(text, 1, stop_reason="stop_sequence", **more)


def _slow(stream: Stream, argument: str) -> None:
    stream.say("This will take a while.", "Bash", {"command": "make all"})
    end = time.monotonic() + min(float(argument or 60), _LONGEST)
    while time.monotonic() < end:
        time.sleep(_TICK)
        stream.emit({"type": "system", "subtype": "status", "status": "working"})


def _wait(stream: Stream, argument: str) -> None:
    stream.say("This takes until I am told.", "Bash", {"command": "make all"})
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end and not Path(argument).exists():
        time.sleep(_TICK)
        stream.emit({"type": "system", "subtype": "status", "status": "working"})


def _silent(stream: Stream, argument: str) -> None:
    stream.say("I will be quiet now.", "Bash", {"command": "make all"})
    time.sleep(min(float(argument or 60), _LONGEST))


def _ignore_term(stream: Stream, _argument: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _slow(stream, str(_LONGEST))


def _grandchild(stream: Stream, _argument: str) -> None:
    child = os.fork()
    if child == 0:
        _sleep_in_a_session_of_its_own()
    use = stream.say("I will start a server in the background.", "Bash", {"command": "sleep 300 &"})
    stream.tool_result(use, f"started process {child}")


def _sleep_in_a_session_of_its_own() -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.execvp("sleep", ["sleep", "300"])  # noqa: S606  no shell is wanted


def _half_line(stream: Stream, _argument: str) -> None:
    stream.say("Now my output breaks.")
    _print('{"type":"assistant","message":{"id":"msg_scripted_000099","content":[{"type":"te')
    os._exit(0)


def _exit(_stream: Stream, argument: str) -> None:
    sys.stderr.write(f"{NAME}: told to exit with {argument}\n")
    sys.stderr.flush()
    os._exit(int(argument or 1))


_ACTIONS: dict[str, Callable[[Stream, str], None]] = {
    "write": _write,
    "replace": _replace,
    "no-op": _no_op,
    "fail": _fail,
    "fail-once": _fail_once,
    "api-error": _api_error,
    "slow": _slow,
    "wait": _wait,
    "silent": _silent,
    "ignore-term": _ignore_term,
    "grandchild": _grandchild,
    "half-line": _half_line,
    "exit": _exit,
}


def main(arguments: list[str]) -> int:
    """Play one run; gives the exit code."""
    try:
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    except KeyboardInterrupt:
        return 0  # the real CLI, too, says nothing when it is interrupted before its first request
    model = arguments[arguments.index("--model") + 1] if "--model" in arguments[:-1] else "scripted-model"
    stream = Stream(model, prompt, float(os.environ.get("SCRIPTED_AGENT_PACE", "0")))
    try:
        return _play(stream, _DIRECTIVE.findall(prompt))
    except Ended as ended:
        stream.result(ended.text, **ended.result)
        sys.stderr.write(f"{NAME}: {ended.text}\n")
        return ended.code
    except KeyboardInterrupt:
        return _interrupted(stream)


def _play(stream: Stream, directives: list[tuple[str, str]]) -> int:
    if directives[:1] and directives[0][0] == "exit":
        _exit(stream, directives[0][1].strip())
    stream.begin()
    stream.say(f"I am the {NAME}. I follow the directives of the issue ({len(directives)} found).")
    for name, argument in directives:
        action = _ACTIONS.get(name)
        if action is None:
            text = f"The {NAME} does not know the directive {name}."
            raise Ended(text, 1, **_failure(text))
        action(stream, argument.strip())
    stream.say(f"Done. ({NAME})")
    stream.result(f"Done. ({NAME})")
    return 0


def _interrupted(stream: Stream) -> int:
    """As the real CLI in a tool: the total so far, marked as an error, and exit code 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stream.user([{"type": "text", "text": "[Request interrupted by user for tool use]"}])
    more = {"subtype": "error_during_execution", "is_error": True, "terminal_reason": "aborted_tools"}
    stream.result("", stop_reason="tool_use", **more)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
