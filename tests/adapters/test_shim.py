"""The shim as a real process, started cold as an operator or a launcher without a server would."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_processes import children_of, is_running, wait_for_end, wait_until, wall_clock

from coordinator import shim

SHIM = [sys.executable, "-I", "-S", shim.__file__]
FOREVER = "exec tail -f /dev/null"


class Attempt:
    """One run directory and the shim that was started in it."""

    def __init__(self, run_dir: Path, agent: str | list[str], **spec: object) -> None:
        self.run_dir = run_dir
        self.marker = secrets.token_hex(8)
        run_dir.mkdir(mode=0o700, parents=True)
        self.write("prompt.md", str(spec.pop("prompt", "")))
        env = {"PATH": "/usr/bin:/bin", shim.MARKER_NAME: self.marker, **spec.pop("env", {})}
        defaults = {
            "format": 1,
            "task": "gh-1",
            "token": 1,
            "argv": ["sh", "-c", agent] if isinstance(agent, str) else agent,
            "cwd": str(run_dir.parent),
            "env": env,
            "marker": self.marker,
            "deadline_at": None,
            "stall_seconds": None,
            "stop_signal": "SIGINT",
            "grace_seconds": 5.0,
        }
        self.write("spec.json", json.dumps(defaults | spec))

    def write(self, name: str, text: str) -> None:
        (self.run_dir / name).write_text(text, encoding="utf-8")

    def start(self, **popen: object) -> dict[str, object]:
        done = subprocess.run(
            [*SHIM, str(self.run_dir)], capture_output=True, check=True, timeout=30, **popen
        )
        return json.loads(done.stdout)

    def run(self, **popen: object) -> dict[str, object]:
        """From start to end; the exit record."""
        report = self.start(**popen)
        wait_for_end(report["shim_pid"])
        return self.json("exit")

    def stop(self, report: dict[str, object], reason: str = "issue closed") -> dict[str, object]:
        self.write("stop", json.dumps({"reason": reason}))
        assert shim.signal_exact(report["shim_pid"], report["shim_start"], signal.SIGUSR1)
        wait_for_end(report["shim_pid"])
        return self.json("exit")

    def wait_ready(self) -> None:
        wait_until(lambda: "ready" in self.output, "the agent's first word")

    def json(self, name: str) -> dict[str, object]:
        return json.loads((self.run_dir / name).read_bytes())

    def has(self, name: str) -> bool:
        return (self.run_dir / name).exists()

    def number(self, name: str) -> int:
        """A pid that an agent wrote in its working directory."""
        return int((self.run_dir.parent / name).read_text())

    @property
    def output(self) -> str:
        return (self.run_dir / "output.log").read_text(encoding="utf-8")


@pytest.fixture
def attempt(tmp_path):
    """Makes attempts; whatever a failing test leaves running is killed afterwards."""
    made: list[Attempt] = []

    def make(agent, **spec):
        made.append(Attempt(tmp_path / "runs" / f"gh-{len(made)}.1", agent, **spec))
        return made[-1]

    yield make
    for one in made:
        started = shim.read_json(str(one.run_dir / "started")) or {}
        assert shim.kill_leftovers(started, one.marker) == 0


# --- how an agent ends -------------------------------------------------------------------------------------


def test_an_exit_code_is_recorded(attempt):
    record = attempt("exit 7").run()
    assert (record["exit_code"], record["exit_signal"], record["reason"]) == (7, None, "exited")
    assert record["format"] == 1
    assert record["started_at"] <= record["ended_at"]


def test_a_death_by_signal_is_recorded(attempt):
    record = attempt("kill -9 $$").run()
    assert (record["exit_code"], record["exit_signal"], record["reason"]) == (None, 9, "exited")


def test_cpu_time_and_memory_are_recorded(attempt):
    record = attempt("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").run()
    assert record["cpu_seconds"] > 0
    assert record["max_rss_kib"] > 100


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (["no-such-program"], "No such program on PATH"),
        (["./no-such-file"], "No such file"),
        (["/etc"], "Permission denied"),
        ([shim.__file__ + "/x"], "Not a directory"),
        (["true", "a\0b"], "null"),
    ],
)
def test_a_program_that_cannot_be_executed_is_an_exec_failure_with_the_reason(attempt, agent, message):
    run = attempt(agent)
    record = run.run()
    assert (record["exit_code"], record["reason"]) == (127, "exec_failed")
    assert message in record["detail"]
    assert run.json("started")["child_pid"] == 0


def test_a_missing_working_directory_is_an_exec_failure_too(attempt, tmp_path):
    record = attempt("true", cwd=str(tmp_path / "gone")).run()
    assert record["reason"] == "exec_failed"
    assert "gone" in record["detail"]


# --- what an agent is given --------------------------------------------------------------------------------


def test_a_prompt_of_a_megabyte_reaches_stdin_and_comes_out_again(attempt):
    prompt = "0123456789abcdé\n" * 65536
    run = attempt(["cat"], prompt=prompt)
    assert run.run()["exit_code"] == 0
    assert run.output == prompt


def test_output_is_in_the_file_while_the_agent_runs_and_errors_are_in_another(attempt):
    run = attempt(f"echo oops >&2; echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()
    assert run.output == "ready\n"
    assert (run.run_dir / "stderr.log").read_text() == "oops\n"
    assert is_running(report["child_pid"])
    run.stop(report)


def test_the_environment_is_exactly_the_one_in_the_spec(attempt):
    run = attempt(["env", "-0"], env={"HOME": "/nowhere", "TEXT": "two\nlines = é"})
    run.run(env={**os.environ, "GITHUB_TOKEN": "secret"})
    expected = {f"{name}={value}" for name, value in run.json("spec.json")["env"].items()}
    assert set(run.output.rstrip("\0").split("\0")) == expected


def test_the_program_is_looked_for_on_the_agents_path_and_relative_to_its_directory(attempt, tmp_path):
    tool = tmp_path / "runs" / "bin" / "my-tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o700)
    by_path = attempt(["my-tool"], env={"PATH": f"/usr/bin:{tool.parent}"})
    by_directory = attempt(["bin/my-tool"])
    assert (by_path.run()["exit_code"], by_directory.run()["exit_code"]) == (0, 0)
    assert (by_path.output, by_directory.output) == ("mine\n", "mine\n")


def test_signals_that_the_starter_ignores_or_blocks_are_normal_for_the_agent(attempt):
    def as_under_nohup():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    run = attempt(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])
    assert run.run(preexec_fn=as_under_nohup)["exit_code"] == 0
    masks = [int(line.split()[1], 16) for line in run.output.splitlines()]
    assert [number for number in signal.valid_signals() for mask in masks if mask >> (number - 1) & 1] == []


def test_no_descriptor_leaks_into_the_agent(attempt):
    leak = os.open(os.devnull, os.O_RDONLY)
    try:
        run = attempt("ls /proc/$$/fd")
        run.run(pass_fds=(leak,))
    finally:
        os.close(leak)
    assert {int(number) for number in run.output.split()} <= {0, 1, 2, 10}  # 10: the shell's own


def test_the_agent_leads_its_own_session_apart_from_the_shim(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()
    assert shim.look_up(report["child_pid"]).session == report["child_pid"]
    assert shim.look_up(report["shim_pid"]).session == report["shim_pid"]
    run.stop(report)


def test_our_files_are_private_and_the_agent_keeps_the_umask_of_the_starter(attempt):
    run = attempt("umask")
    run.run(umask=0o027)
    assert run.output.strip() == "0027"
    for name in ("lock", "started", "output.log", "stderr.log", "exit"):
        assert (run.run_dir / name).stat().st_mode & 0o077 == 0, name


def test_the_start_is_recorded_with_both_identities(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    started = run.json("started")
    assert {**started, "id": 0} == report
    assert started["boot_id"] == shim.boot_id()
    assert started["token"] == 1
    for who in ("shim", "child"):
        assert shim.look_up(started[f"{who}_pid"]).start == started[f"{who}_start"]
    run.stop(report)


# --- stopping ----------------------------------------------------------------------------------------------


def test_an_agent_that_obeys_the_polite_signal_has_time_to_finish(attempt):
    run = attempt('trap "echo bye; exit 0" INT; echo ready; while :; do sleep 0.02; done')
    report = run.start()
    run.wait_ready()
    record = run.stop(report, "label removed")
    assert (record["exit_code"], record["reason"]) == (0, "stopped")
    assert "label removed" in record["detail"]
    assert "SIGINT" in record["detail"]
    assert run.output.endswith("bye\n")


def test_the_first_signal_is_the_one_that_the_spec_names(attempt):
    run = attempt(f"trap '' INT; echo ready; {FOREVER}", stop_signal="SIGTERM")
    report = run.start()
    run.wait_ready()
    assert run.stop(report)["exit_signal"] == signal.SIGTERM


def test_an_agent_that_ignores_sigint_and_sigterm_is_killed(attempt):
    run = attempt(f"trap '' INT TERM; echo ready; {FOREVER}", grace_seconds=0.05)
    report = run.start()
    run.wait_ready()
    record = run.stop(report)
    assert (record["exit_signal"], record["reason"]) == (9, "stopped")
    assert not is_running(report["child_pid"])


def test_a_stop_request_is_seen_without_any_signal(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()
    run.write("stop", "not even JSON")
    wait_for_end(report["shim_pid"])
    assert run.json("exit")["reason"] == "stopped"


def test_sigterm_to_the_shim_ends_the_agent_and_leaves_a_record(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()
    os.kill(report["shim_pid"], signal.SIGTERM)
    wait_for_end(report["shim_pid"])
    assert run.json("exit")["reason"] == "stopped"
    assert not is_running(report["child_pid"])


def test_an_agent_with_too_many_processes_is_ended_and_one_with_many_is_not(attempt):
    """Whatever they do: these have left its session, and some are dead but not collected."""
    many = "for i in 1 2 3 4 5 6 7 8; do setsid tail -f /dev/null & done; echo ready; " + FOREVER
    record = attempt(many, most_processes=8).run()
    assert (record["exit_signal"], record["reason"]) == (9, "crowded")
    assert record["detail"].startswith("it had more than 8 processes and threads at once")

    run = attempt(many, most_processes=9, deadline_at=wall_clock() + 2.5)  # two looks
    assert run.run()["reason"] == "deadline"


@pytest.mark.parametrize("ending", ["exit 0", FOREVER], ids=["after a normal end", "after a stop"])
@pytest.mark.parametrize("cover", ["", "env -i"], ids=["with the marker", "with an empty environment"])
def test_a_grandchild_in_a_session_of_its_own_does_not_outlive_the_agent(attempt, cover, ending):
    hideout = f"(setsid {cover} sh -c 'trap \"\" INT TERM; echo $$ > pid; {FOREVER}' > /dev/null &)"
    run = attempt(f"{hideout}; until [ -s pid ]; do sleep 0.01; done; echo ready; {ending}")
    report = run.start()
    run.wait_ready()
    if ending == FOREVER:
        run.stop(report)
    wait_for_end(report["shim_pid"])
    assert not is_running(run.number("pid"))
    assert run.json("exit")["reason"] == ("stopped" if ending == FOREVER else "exited")


def test_orphans_do_not_pile_up_as_zombies_while_the_agent_runs(attempt):
    run = attempt(f"for i in 1 2 3 4 5; do sh -c 'true &'; done; echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()

    wait_until(
        lambda: children_of(report["shim_pid"]) == [report["child_pid"]], "only the agent below the shim"
    )
    run.stop(report)


# --- limits ------------------------------------------------------------------------------------------------


def test_the_deadline_ends_the_run(attempt):
    record = attempt(FOREVER, deadline_at=wall_clock() + 0.1).run()
    assert record["reason"] == "deadline"
    assert record["exit_signal"] == signal.SIGINT


def test_silence_ends_the_run(attempt):
    record = attempt(f"echo one word; {FOREVER}", stall_seconds=0.2).run()
    assert record["reason"] == "stalled"


def test_an_agent_that_goes_on_writing_is_not_silent(attempt):
    talk = "i=0; while [ $i -lt 15 ]; do i=$((i+1)); echo $i >&2; sleep 0.1; done"
    record = attempt(talk, stall_seconds=1.0).run()
    assert (record["reason"], record["exit_code"]) == ("exited", 0)


# --- used once, and owned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["started", "revoked"])
def test_a_used_or_revoked_directory_is_refused(attempt, name):
    run = attempt("echo ran")
    run.write(name, "{}")
    assert name in run.start()["refused"]
    assert not run.has("output.log")


def test_a_second_shim_is_refused_while_the_first_lives_and_after_it(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    assert "lock" in run.start()["refused"]
    run.wait_ready()
    run.stop(report)
    assert "started" in run.start()["refused"]
    assert run.output == "ready\n"


@pytest.mark.parametrize("spec", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "token": []}'])
def test_a_damaged_spec_is_refused(attempt, spec):
    run = attempt("echo ran")
    run.write("spec.json", spec)
    assert "spec.json" in run.start()["refused"]
    assert not run.has("started")


def test_the_lock_is_held_for_life_and_can_be_asked_about(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    lock = str(run.run_dir / "lock")
    assert not shim.is_locked(lock)
    report = run.start()
    assert shim.is_locked(lock)
    assert shim.take_lock(lock) is None
    run.wait_ready()
    run.stop(report)
    assert not shim.is_locked(lock)


def test_no_agent_runs_if_its_start_cannot_be_recorded(attempt):
    run = attempt("echo ran")
    (run.run_dir / "started.tmp").mkdir()
    assert "IsADirectoryError" in run.start()["refused"]
    assert not run.has("started")
    assert run.output == ""


def test_a_shim_that_cannot_write_its_exit_record_keeps_the_run_until_it_can(attempt):
    run = attempt(f"echo ready; {FOREVER}")
    report = run.start()
    run.wait_ready()
    (run.run_dir / "exit").mkdir()
    os.kill(report["child_pid"], signal.SIGKILL)
    wait_until(lambda: run.has("exit.tmp"), "the first try")
    assert shim.is_locked(str(run.run_dir / "lock"))
    (run.run_dir / "exit").rmdir()
    wait_for_end(report["shim_pid"])
    assert run.json("exit")["exit_signal"] == 9


# --- the fork server ---------------------------------------------------------------------------------------


def test_the_server_ends_with_its_daemon_and_the_shims_live_on(attempt):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        number = theirs.fileno()
        server = subprocess.Popen([*SHIM, "--serve", str(number)], pass_fds=(number,))
    # Both ends are closed here; only the server has one now, so it ends at once.
    assert server.wait(timeout=15) == 0

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run = attempt(f"echo ready; {FOREVER}")
    with ours:
        with theirs:
            server = subprocess.Popen([*SHIM, "--serve", str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        ours.settimeout(15)
        ours.send(json.dumps({"id": 5, "run_dir": str(run.run_dir)}).encode())
        report = json.loads(ours.recv(65536))
    assert report["id"] == 5
    assert server.wait(timeout=15) == 0
    run.wait_ready()
    assert is_running(report["child_pid"])
    assert run.stop(report)["reason"] == "stopped"


# --- identity ----------------------------------------------------------------------------------------------


def test_a_reused_pid_is_not_taken_for_the_process_that_had_it():
    me = shim.look_up(os.getpid())
    assert shim.open_exact(me.pid, me.start + 1) is None
    assert shim.signal_exact(me.pid, me.start + 1, signal.SIGKILL) is False


def test_a_program_name_with_brackets_does_not_confuse_the_process_table(tmp_path):
    program = tmp_path / "a) Z (b"
    program.symlink_to("/usr/bin/tail")
    process = subprocess.Popen([program, "-f", "/dev/null"])
    try:
        wait_until(lambda: b"a) Z (b" in Path(f"/proc/{process.pid}/stat").read_bytes(), "exec")
        assert shim.look_up(process.pid).ppid == os.getpid()
    finally:
        process.kill()
        process.wait()


def test_an_empty_marker_marks_nobody():
    assert shim.carries(os.getpid(), "") is False
