"""tools/openrouter-cli.py as a program: its command line, where its prompt comes from, how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from coordinator.openrouter_agent import command
from tests.openrouter_server import KEY, Call, OpenRouterServer, Say

PROJECT = Path(__file__).resolve().parents[2]
CLI = PROJECT / "tools" / "openrouter-cli.py"
MODEL = "anthropic/claude-3.5-sonnet"


@pytest.fixture
def server():
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, server: OpenRouterServer):
    """Start the program in a directory of its own; it is killed at the end if it still lives."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(CLI), *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **server.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def result_of(output: str) -> dict[str, Any]:
    lines = [json.loads(line, parse_float=Decimal) for line in output.splitlines()]
    (result,) = [line for line in lines if line["type"] == "result"]
    assert lines[-1] is result
    return result


def test_the_command_line_of_the_seed_works_as_it_is_shown(start, server, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Write hello into a file.\n")
    server.script(
        Say(tool_calls=[Call("write_file", {"path": "a.txt", "content": "hello"})]), Say(), model=MODEL
    )
    process = start(
        *("-p", "prompt.txt", "--model", MODEL, "--output-file", "output.jsonl"),
        *("--output-format", "stream-json"),
    )
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "a.txt").read_text() == "hello"
    assert (tmp_path / "output.jsonl").read_text() == output
    assert result_of(output)["total_cost_usd"] == server.total_cost
    assert server.chats[0].body["messages"][1]["content"] == "Write hello into a file.\n"


def test_the_short_command_line_of_the_seed_writes_records_into_the_file(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test-prompt.txt").write_text("Hi.")
    server.script(Say(), model=MODEL)
    arguments = ["--prompt", "test-prompt.txt", "--model", MODEL, "--output-file", "test-output.jsonl"]
    assert command.main(arguments, server.environ) == 0
    assert result_of((tmp_path / "test-output.jsonl").read_text())["result"] == "Hello."


def test_a_prompt_on_standard_input_is_answered_with_text(start, server) -> None:
    server.script(Say(text="Four."), model=MODEL)
    process = start("--model", MODEL, "--tools", "none")
    assert process.communicate("Two and two?", timeout=30) == ("Four.\n", "")
    assert server.chats[0].body["messages"] == [{"role": "user", "content": "Two and two?"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_answer_and_its_true_charge_is_told(
    start, server, tmp_path: Path, number: signal.Signals
) -> None:
    stalled = Say(text="A very long answer", stall_after=3, cost=Decimal("0.07"))
    server.script(Say(tool_calls=[Call("list_files", {})], cost=Decimal("0.01")), stalled, model=MODEL)
    (tmp_path / "prompt.txt").write_text("Work.")
    process = start("-p", "prompt.txt", "--model", MODEL, "--output-format", "stream-json")
    seen = ""
    while seen.count('"answering"') < 2:  # a result or an end in between would fail the test here
        seen += (line := process.stdout.readline())
        assert line
    process.send_signal(number)
    seen += process.stdout.read()

    result = result_of(seen)
    assert process.wait(timeout=10) == 1
    assert result["is_error"] is True
    assert result["terminal_reason"] == "interrupted"
    assert result["result"] == f"Stopped by {number.name} after 1 turn."
    assert result["total_cost_usd"] == Decimal("0.08") == server.total_cost


def test_a_signal_ends_a_command_with_all_it_started(start, server, tmp_path: Path) -> None:
    wait = Call("run_command", {"command": "sleep 600 & echo $! > child; touch ready; wait"})
    server.script(Say(tool_calls=[wait]), model=MODEL)
    (tmp_path / "prompt.txt").write_text("Work.")
    process = start("-p", "prompt.txt", "--model", MODEL, "--output-format", "json")
    until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGINT)

    assert result_of(process.stdout.read())["total_cost_usd"] == server.total_cost
    assert process.wait(timeout=10) == 1
    child = int((tmp_path / "child").read_text())
    until(lambda: is_gone(child))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(condition) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_finds_the_key_neither_in_its_environment_nor_in_that_of_the_agent(start, server) -> None:
    look = Call("run_command", {"command": "env; tr '\\0' '\\n' < /proc/$PPID/environ; true"})
    server.script(Say(tool_calls=[look]), Say(), model=MODEL)
    process = start("--model", MODEL)
    process.communicate("Look.", timeout=30)
    answer = server.chats[-1].body["messages"][-1]["content"]
    assert "OPENROUTER_BASE_URL" in answer
    assert server.key not in answer


# What cannot be a run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--model"),
        (["--model"], "--model"),
        (["--model", "a/b", "-p", "nowhere.txt"], "nowhere.txt cannot be read: no such file"),
        (["--model", "a/b", "-p", "/"], "/ cannot be read: is a directory"),
        (["--model", "a/b", "-p", "/dev/null"], "the prompt is empty"),
        (["--model", " ", "-p", "README.md"], "--model is empty"),
        (["--model", "a/b", "--tools", "read_file,hammer", "-p", "README.md"], "--tools has no 'hammer'"),
        (["--model", "a/b", "--tools", "", "-p", "README.md"], "--tools has no ''"),
        (["--model", "a/b", "--workspace", "nowhere", "-p", "README.md"], "nowhere is not a directory"),
        (["--model", "a/b", "--max-turns", "0"], "'0' is no whole number of 1 or more"),
        (["--model", "a/b", "--max-cost", "nan"], "'nan' is no amount of dollars"),
        (["--model", "a/b", "--timeout", "-1"], "'-1' is no number of minutes"),
        (["--model", "a/b", "--output-format", "xml"], "invalid choice: 'xml'"),
        (["--model", "a/b", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_one_sentence_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    try:
        code = command.main(arguments, {})
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code == 2
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_an_output_file_that_cannot_be_written_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-p", str(PROJECT / "README.md"), "--model", MODEL, "--output-file", "/nowhere/out.jsonl"]
    assert command.main(arguments, {}) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "/nowhere/out.jsonl: no such file or directory.\n")


def test_every_option_is_in_the_documentation() -> None:
    page = (PROJECT / "docs" / "openrouter.md").read_text()
    options = [option for action in command._parser()._actions for option in action.option_strings]
    assert [option for option in options if f"`{option}" not in page and option not in {"-h", "--help"}] == []


@pytest.mark.parametrize("full", [1, 2])
def test_an_output_that_takes_no_more_is_one_sentence_and_the_result_is_in_the_file(
    start, server, tmp_path: Path, full: int
) -> None:
    (tmp_path / "prompt.txt").write_text("Hi.")
    server.script(Say(), model=MODEL)
    process = subprocess.run(
        f"{CLI} -p prompt.txt --model {MODEL} --output-file out.jsonl {full}>/dev/full",
        check=False,
        shell=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **server.environ, "OPENROUTER_API_KEY": "" if full == 2 else KEY},
        capture_output=True,
        text=True,
    )
    result = result_of((tmp_path / "out.jsonl").read_text())
    assert (process.returncode, result["is_error"]) == (1, True)
    assert process.stderr == ("" if full == 2 else "standard output: no space left on device.\n")


def test_a_full_output_file_is_told_in_the_result_on_standard_output(start, tmp_path: Path) -> None:
    process = start("--model", MODEL, "--output-file", "/dev/full")
    output, errors = process.communicate("Hi.", timeout=30)
    assert (process.returncode, errors) == (1, "/dev/full: no space left on device.\n")
    assert result_of(output)["result"] == "/dev/full: no space left on device."


def test_closed_outputs_are_no_error(server, tmp_path: Path) -> None:
    server.script(Say(), model=MODEL)
    process = subprocess.run(
        f"echo Hi. | {CLI} --model {MODEL} --output-file out.jsonl >&- 2>&-",
        check=False,
        shell=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **server.environ},
    )
    assert process.returncode == 0
    assert result_of((tmp_path / "out.jsonl").read_text())["result"] == "Hello."


def test_a_prompt_that_is_too_long_in_bytes_is_refused_and_not_cut(server, tmp_path: Path, capsys) -> None:
    (tmp_path / "prompt.txt").write_text("é" * 4_200_000)
    assert command.main(["-p", str(tmp_path / "prompt.txt"), "--model", MODEL], server.environ) == 2
    assert capsys.readouterr().err == f"{tmp_path}/prompt.txt is over 8388608 bytes.\n"
    assert not server.requests
