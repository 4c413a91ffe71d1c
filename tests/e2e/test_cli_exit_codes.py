"""Every documented exit code, from a real process, with one sentence and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import World, at_once, processes_of, run, until

from tests.forked import COLD

BROKEN = {
    "unknown key": ("[coordinator]\npoll_intervall_seconds = 5\n", "poll_interval_seconds"),
    "wrong type": ("[coordinator]\nmax_concurrent_workers = 'three'\n", "coordinator.max_concurrent_workers"),
    "syntax": ("[coordinator\n", "line 1"),
    "missing variable": (
        '[github]\nrepo_owner = "o"\nrepo_name = "n"\ntoken_env = "NOT_SET_HERE"\n',
        "missing variable.toml: [github] token_env names NOT_SET_HERE, which is not set: export it",
    ),
    "missing file": (None, "does not exist"),
}


def test_a_broken_configuration_is_the_same_sentence_and_78_from_check_and_from_run(tmp_path: Path) -> None:
    calls = {}
    for case, (text, _) in BROKEN.items():
        config = tmp_path / f"{case}.toml"
        if text is not None:
            config.write_text(text)
        calls |= {
            (case, verb): partial(run, verb, "--config", str(config), cold=case == "unknown key")
            for verb in ("check", "run")
        }
    answers = at_once(calls)
    for case, (_, says) in BROKEN.items():
        checked, started = answers[case, "check"], answers[case, "run"]
        assert (checked.code, started.code) == (78, 78), case
        assert checked.err == started.err
        assert says in checked.err
        assert checked.err.count("\n") == 1


def test_without_a_copy_of_a_good_configuration_every_verb_says_what_check_says(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[coordinator\n")
    verbs = (
        ["check"],
        ["status"],
        ["why", "1"],
        ["logs"],
        ["retry", "1"],
        ["cancel", "1"],
        ["pause"],
        ["resume"],
    )
    answers = at_once({verb[0]: partial(run, *verb, "--config", str(config)) for verb in verbs})
    assert {answer.code for answer in answers.values()} == {78}
    assert len({answer.err for answer in answers.values()}) == 1


def test_check_prints_all_problems_as_json_and_still_ends_with_78(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[coordinator]\npoll_intervall_seconds = 5\nmax_concurrent_workers = 'three'\n")
    answer = run("check", "--json", "--config", str(config))
    assert answer.code == 78
    assert answer.json["valid"] is False
    assert len(answer.json["problems"]) >= 2


def test_wrong_usage_is_2() -> None:
    calls = {
        words: partial(run, *words, cold="why" in words)
        for words in (("statu",), ("run", "--log-level", "loud"), ("why",))
    }
    assert {answer.code for answer in at_once(calls).values()} == {2}


def test_asking_for_what_is_not_there_is_1(new_world: World) -> None:
    verbs = (("status",), ("why", "12"), ("logs",), ("pause",))
    for verb, answer in at_once({verb: partial(new_world.run, *verb) for verb in verbs}).items():
        assert answer.code == 1, verb
        assert answer.err.count("\n") == 1
        assert "has not run" in answer.err


def test_a_launcher_that_cannot_start_anything_is_78_before_the_daemon_is_up(new_world: World) -> None:
    text = new_world.config.read_text()
    new_world.config.write_text(text.replace("[coordinator]\n", '[coordinator]\nlauncher = "systemd"\n', 1))
    answer = new_world.run("run", "--once", PATH="/nowhere")
    assert answer.code == 78
    says = 'coordinator.launcher is "systemd", but systemd-run is not on PATH: set coordinator.launcher = '
    assert f'{says}"shim".' in answer.err.splitlines()
    assert "Traceback" not in answer.err


def test_a_second_daemon_is_75_and_names_the_first(new_world: World) -> None:
    first = new_world.start("run", cold=True)
    try:
        until((new_world.state / "daemon.json").exists, "the first daemon is up")
        second = new_world.run("run")
        assert second.code == 75
        assert f"process {first.pid}" in second.err
        assert second.err.count("\n") == 1
    finally:
        first.terminate()
        assert first.communicate(timeout=15) is not None
    assert first.returncode == 0


def test_ctrl_c_on_the_daemon_is_130_without_a_traceback(new_world: World) -> None:
    daemon = new_world.start("run", cold=True)
    until((new_world.state / "daemon.json").exists, "the daemon is up")
    daemon.send_signal(signal.SIGINT)
    _, said = daemon.communicate(timeout=15)
    assert daemon.returncode == 130
    assert "Traceback" not in said
    assert '"event": "stopped"' in said


def test_a_daemon_without_standard_streams_comes_up_and_ends_as_any_other(new_world: World) -> None:
    daemon = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COLD, "run", "--config", str(new_world.config)],
        env=new_world.environ,
        cwd=new_world.folder,
    )
    try:
        until((new_world.state / "daemon.json").exists, "the daemon is up")
        assert {str(Path(f"/proc/{daemon.pid}/fd/{fd}").readlink()) for fd in range(3)} == {"/dev/null"}
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=15) == 0


def test_a_bug_is_70_and_one_sentence(tmp_path: Path) -> None:
    # The way in is replaced by one that fails: what is tested is what the boundary does with it.
    script = (
        "from coordinator import cli\n"
        "from coordinator.cli import verbs\n"
        "def broken(): raise RuntimeError('boom')\n"
        "verbs.app = broken\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False
    )
    assert done.returncode == 70
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: boom" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(("status", "--json"), 0), (("check",), 0), (("why", "99"), 1), (("statu",), 2)]
)
def test_a_forked_command_is_the_same_as_a_cold_one(
    world: World, arguments: tuple[str, ...], code: int
) -> None:
    cold, forked = (world.run(*arguments, cold=is_cold, TZ="Asia/Kolkata") for is_cold in (True, False))
    assert cold.code == code
    assert forked == cold


def test_a_forked_command_has_a_process_of_its_own_that_ends_by_the_signal_it_gets(new_world: World) -> None:
    daemon = new_world.start("run")
    until((new_world.state / "daemon.json").exists, "the daemon is up")
    assert new_world.daemon_file["pid"] == daemon.pid != os.getpid()
    assert os.getsid(daemon.pid) == daemon.pid
    assert daemon.pid in processes_of(str(new_world.folder))
    assert Path(f"/proc/{daemon.pid}/cwd").samefile(new_world.folder)
    daemon.kill()
    daemon.communicate(timeout=15)
    assert daemon.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{daemon.pid}").exists()


@pytest.mark.parametrize("arguments", [("status",), ("logs", "-n", "200")])
def test_a_reader_that_goes_away_is_no_error(world: World, arguments: tuple[str, ...]) -> None:
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as gone:
        gone.wait()
        assert gone.stdin is not None
        done = subprocess.run(
            [*COLD, *arguments, "--config", str(world.config)],
            stdout=gone.stdin,
            stderr=subprocess.PIPE,
            env=world.environ,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_terminal_without_check_marks_gets_a_replacement_not_an_error(world: World) -> None:
    answer = world.run("doctor", PYTHONIOENCODING="iso-8859-1", HELLO_TOKEN="")
    assert answer.code == 1
    assert "? git" in answer.out


def test_help_comes_at_once_and_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "coordinator", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"sqlalchemy", "github", "pydantic", "apscheduler", "structlog", "asyncio", "alembic", "jinja2"}
    assert not imported & heavy
    assert "Exit codes" in done.stdout


def test_the_commands_environment_variable_names_the_configuration(world: World) -> None:
    answer = run("check", env={**os.environ, "HELLO_TOKEN": "t", "COORDINATOR_CONFIG": str(world.config)})
    assert answer.code == 0
    assert "octo/hello" in answer.out
