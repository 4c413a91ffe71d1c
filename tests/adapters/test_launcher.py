"""The launcher against real shims, real agents and a really killed daemon."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from worker_processes import is_running, open_descriptors, wait_until, wall_clock

from adw_modules.errors import SpawnError
from coordinator import launcher, shim
from coordinator.launcher import Alive, Exited, Launcher, LaunchSpec, Lost, NeverStarted, WorkerHandle

FOREVER = "exec tail -f /dev/null"
READY_FOREVER = f"echo ready; {FOREVER}"


def a_spec(tmp_path, agent: str = "exit 0", **changes: object) -> LaunchSpec:
    plain = {
        "task": "gh-1",
        "token": 1,
        "argv": ("sh", "-c", agent),
        "cwd": str(tmp_path),
        "env": {"PATH": "/usr/bin:/bin"},
        "marker": secrets.token_hex(8),
        "prompt": "Do it.",
    }
    return LaunchSpec(**{**plain, **changes})


def with_launcher(runs: Path, scenario):
    """Run one coroutine function with a started launcher, and close it after."""

    async def main():
        one = Launcher(runs)
        await one.start()
        try:
            return await asyncio.wait_for(scenario(one), 60)
        finally:
            await one.close()

    return asyncio.run(main())


def wait_ready(handle: WorkerHandle) -> None:
    wait_until(lambda: b"ready" in handle.output_path.read_bytes(), "the agent's first word")


def end(handle: WorkerHandle):
    async def both():
        handle.stop("the test is over")
        return await handle.wait()

    return asyncio.run(both())


def modes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): oct(path.stat().st_mode)[-3:] for path in folder.rglob("*")}


# --- starting and waiting ----------------------------------------------------------------------------------


def test_an_agent_finds_its_own_configuration_directory_with_what_it_begins_with(tmp_path, runs):
    async def scenario(one):
        files = {"settings.json": "{}", ".gemini/settings.json": "{1}"}
        full = await one.launch(a_spec(tmp_path, config_dir="agent-config", config_files=files))
        empty = await one.launch(a_spec(tmp_path, token=2, config_dir="agent-config"))
        none = await one.launch(a_spec(tmp_path, token=3, config_files=files))
        return [handle.run_dir for handle in (full, empty, none) if await handle.wait()]

    full, empty, none = with_launcher(runs, scenario)
    assert (full / "agent-config" / ".gemini" / "settings.json").read_text() == "{1}"
    assert modes(full / "agent-config") == {
        "settings.json": "600",
        ".gemini": "700",
        ".gemini/settings.json": "600",
    }
    assert (empty / "agent-config").is_dir()
    assert not (none / "agent-config").exists()


def test_a_run_is_started_and_its_exit_record_comes_back(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, "cat; exit 7", prompt="The prompt."))
        started = json.loads((handle.run_dir / "started").read_bytes())
        return handle, started, await handle.wait()

    before = datetime.fromtimestamp(wall_clock(), UTC)
    handle, started, record = with_launcher(runs, scenario)
    assert (record.exit_code, record.exit_signal, record.reason) == (7, None, "exited")
    assert before <= record.started_at <= record.ended_at
    assert handle.output_path.read_text() == "The prompt."
    assert (handle.shim_pid, handle.child_pid) == (started["shim_pid"], started["child_pid"])
    assert handle.run_dir == runs / "gh-1.1"
    assert handle.run_dir.stat().st_mode & 0o777 == 0o700


def test_waiting_works_again_and_from_several_places(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, "exit 3"))
        together = await asyncio.gather(handle.wait(), handle.wait())
        return [*together, await handle.wait()]

    assert [record.exit_code for record in with_launcher(runs, scenario)] == [3, 3, 3]


def test_the_task_name_of_a_further_repository_becomes_one_folder(runs):
    assert Launcher(runs).run_dir("owner/name/gh-12", 3) == runs / "owner_name_gh-12.3"


def test_a_prompt_with_a_lone_surrogate_and_a_nul_does_not_break_the_start(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, "cat", prompt="a\ud800b\0c"))
        await handle.wait()
        return handle.output_path.read_bytes()

    assert with_launcher(runs, scenario) == b"a?b\0c"


def test_fifty_runs_start_at_the_same_time_and_all_end_with_their_own_code(tmp_path, runs):
    async def scenario(one):
        async def run(number):
            spec = a_spec(tmp_path, f"exit {number}", task=f"gh-{number}")
            return (await (await one.launch(spec)).wait()).exit_code

        return await asyncio.gather(*map(run, range(50)))

    assert with_launcher(runs, scenario) == list(range(50))


def test_nothing_of_the_daemons_environment_or_signals_reaches_shim_or_agent(tmp_path, runs, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:

        async def scenario(one):
            return await one.launch(a_spec(tmp_path, f"env; {READY_FOREVER}"))

        handle = with_launcher(runs, scenario)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_ready(handle)
    assert "secret" not in handle.output_path.read_text()
    assert f"{shim.MARKER_NAME}=" in handle.output_path.read_text()
    assert b"secret" not in Path(f"/proc/{handle.shim_pid}/environ").read_bytes()
    assert end(handle).exit_signal == signal.SIGINT


def test_deadline_and_stall_reach_the_shim(tmp_path, runs):
    async def scenario(one):
        soon = datetime.fromtimestamp(wall_clock() + 0.1, UTC)
        late = await one.launch(a_spec(tmp_path, FOREVER, task="late", deadline_at=soon))
        mute = await one.launch(a_spec(tmp_path, FOREVER, task="mute", stall=timedelta(seconds=0.1)))
        return [(await handle.wait()).reason for handle in (late, mute)]

    assert with_launcher(runs, scenario) == ["deadline", "stalled"]


def test_a_program_that_does_not_exist_is_in_the_exit_record(tmp_path, runs):
    async def scenario(one):
        return await (await one.launch(a_spec(tmp_path, argv=("no-such-program",)))).wait()

    record = with_launcher(runs, scenario)
    assert (record.exit_code, record.reason) == (127, "exec_failed")
    assert "no-such-program" in record.detail


# --- what cannot be started --------------------------------------------------------------------------------


def test_an_attempt_is_never_started_twice(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, READY_FOREVER))
        with pytest.raises(SpawnError, match="exists"):
            await one.launch(a_spec(tmp_path, "echo second"))
        return handle

    handle = with_launcher(runs, scenario)
    wait_ready(handle)
    assert is_running(handle.child_pid)
    end(handle)
    assert handle.output_path.read_text() == "ready\n"


def test_a_runs_directory_that_cannot_be_written_is_a_spawn_error(tmp_path, runs):
    runs.parent.mkdir()
    runs.write_text("a file in the way")
    with pytest.raises(SpawnError, match="run directory"):
        with_launcher(runs, lambda one: one.launch(a_spec(tmp_path)))
    runs.unlink()


def test_without_a_usable_python_nothing_starts_and_the_attempt_is_revoked(tmp_path, runs):
    async def scenario():
        one = Launcher(runs, python=str(tmp_path / "no-python"))
        try:
            await one.launch(a_spec(tmp_path))
        finally:
            await one.close()

    with pytest.raises(SpawnError, match="no-python"):
        asyncio.run(scenario())
    assert (runs / "gh-1.1" / "revoked").exists()


# --- the fork server ---------------------------------------------------------------------------------------


def test_after_the_fork_server_was_killed_the_next_launch_works(tmp_path, runs):
    async def scenario(one):
        first = await one.launch(a_spec(tmp_path, READY_FOREVER, task="before"))
        servers = [one._server.process.pid]
        os.kill(servers[0], signal.SIGKILL)
        codes = []
        for number in (1, 2):
            handle = await one.launch(a_spec(tmp_path, "exit 5", task=f"after-{number}"))
            codes.append((await handle.wait()).exit_code)
        servers.append(one._server.process.pid)
        return first, codes, servers

    first, codes, (old, new) = with_launcher(runs, scenario)
    assert codes == [5, 5]
    assert old != new
    assert is_running(first.child_pid), "a run of the killed server goes on"
    assert end(first).reason == "stopped"


def test_a_request_that_a_dying_server_never_answered_is_started_cold_once(tmp_path, runs):
    async def scenario(one):
        server = one._server.process.pid
        os.kill(server, signal.SIGSTOP)
        waiting = asyncio.create_task(one.launch(a_spec(tmp_path, "echo once")))
        await asyncio.sleep(0)  # the request is sent in the first step
        assert (runs / "gh-1.1" / "prompt.md").exists()
        os.kill(server, signal.SIGKILL)
        handle = await waiting
        return handle, await handle.wait()

    handle, record = with_launcher(runs, scenario)
    assert record.exit_code == 0
    assert handle.output_path.read_text() == "once\n"


def test_closing_leaves_runs_alone_and_no_descriptor_or_server_behind(tmp_path, runs):
    before = open_descriptors()

    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, READY_FOREVER))
        return handle, one._server.process.pid

    handle, server = with_launcher(runs, scenario)
    assert not is_running(server)
    assert open_descriptors() == before
    assert is_running(handle.child_pid)
    assert end(handle).reason == "stopped"
    assert open_descriptors() == before


# --- stopping ----------------------------------------------------------------------------------------------


def test_stopping_does_not_wait_for_the_shims_next_look(tmp_path, runs):
    async def scenario(one):
        began = time.monotonic()
        for number in range(4):
            handle = await one.launch(a_spec(tmp_path, FOREVER, token=number))
            handle.stop("enough")
            assert (await handle.wait()).reason == "stopped"
        return time.monotonic() - began

    assert with_launcher(runs, scenario) < 3, "one second each would be the shim's own rhythm"


def test_the_first_reason_to_stop_stays(tmp_path, runs):
    async def scenario(one):
        ignoring = f"trap '' INT; {READY_FOREVER}"
        handle = await one.launch(a_spec(tmp_path, ignoring, grace=timedelta(seconds=0.05)))
        wait_ready(handle)
        handle.stop("issue closed")
        handle.stop("shutdown")
        return await handle.wait()

    record = with_launcher(runs, scenario)
    assert "issue closed" in record.detail
    assert record.exit_signal == signal.SIGTERM


def test_stopping_a_run_that_has_ended_is_harmless(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path, "exit 4"))
        await handle.wait()
        handle.stop("too late")
        return await handle.wait()

    assert with_launcher(runs, scenario).exit_code == 4


# --- finding runs again ------------------------------------------------------------------------------------

DAEMON = """
import asyncio, sys
from pathlib import Path
from coordinator.launcher import Launcher, LaunchSpec

async def main():
    one = Launcher(Path(sys.argv[1]))
    spec = LaunchSpec(task="gh-1", token=1, argv=("sh", "-c", sys.argv[2]), cwd=sys.argv[1],
                      env={"PATH": "/usr/bin:/bin"}, marker=sys.argv[3], prompt="")
    handle = await one.launch(spec)
    print(handle.child_pid, flush=True)
    await handle.wait()

asyncio.run(main())
"""


def start_daemon_with_a_run(runs: Path, agent: str) -> subprocess.Popen[bytes]:
    """A process with a launcher of its own and one run; killed by the caller."""
    runs.mkdir(parents=True)
    command = [sys.executable, "-c", DAEMON, str(runs), agent, secrets.token_hex(8)]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(launcher.__file__).parents[1])
    assert daemon.stdout.readline().strip().isdigit()
    return daemon


def kill(daemon: subprocess.Popen[bytes]) -> None:
    daemon.kill()
    daemon.communicate()  # ends only if nobody else holds the daemon's output


def test_a_run_outlives_its_killed_daemon_and_the_next_one_gets_its_end(runs):
    daemon = start_daemon_with_a_run(runs, "until [ -e go ]; do sleep 0.01; done; echo done; exit 7")
    kill(daemon)
    next_daemon = Launcher(runs)
    state = next_daemon.adopt(runs / "gh-1.1")
    assert isinstance(state, Alive)
    assert is_running(state.handle.child_pid)

    async def finish():
        waiting = asyncio.create_task(state.handle.wait())
        (runs / "go").touch()
        return await waiting

    record = asyncio.run(finish())
    assert record.exit_code == 7
    assert state.handle.output_path.read_text() == "done\n"
    assert next_daemon.adopt(runs / "gh-1.1") == Exited(record=record)


def test_a_run_that_ended_while_no_daemon_lived_has_its_record(runs):
    kill(start_daemon_with_a_run(runs, "until [ -e go ]; do sleep 0.01; done; exit 7"))
    (runs / "go").touch()
    wait_until(lambda: not launcher.is_alive(runs / "gh-1.1"), "the end of the shim")
    state = Launcher(runs).adopt(runs / "gh-1.1")
    assert isinstance(state, Exited)
    assert state.record.exit_code == 7


def test_an_adopted_run_can_be_stopped(runs):
    kill(start_daemon_with_a_run(runs, FOREVER))
    state = Launcher(runs).adopt(runs / "gh-1.1")
    assert end(state.handle).reason == "stopped"


HIDEOUT = "(setsid sh -c 'echo $$ > pid; exec tail -f /dev/null' > /dev/null &)"


def launch_with_hideout(tmp_path, runs) -> tuple[WorkerHandle, int]:
    """A run whose agent has put a process into a session of its own."""

    async def scenario(one):
        return await one.launch(a_spec(tmp_path, f"{HIDEOUT}; {READY_FOREVER}"))

    handle = with_launcher(runs, scenario)
    wait_ready(handle)
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the hidden process")
    return handle, int(pid_file.read_text())


def test_a_killed_shim_means_lost_and_its_leftovers_are_dead(tmp_path, runs):
    handle, hidden = launch_with_hideout(tmp_path, runs)
    os.kill(handle.shim_pid, signal.SIGKILL)
    wait_until(lambda: not launcher.is_alive(handle.run_dir), "the kernel to drop the lock")
    assert is_running(handle.child_pid)
    state = Launcher(runs).adopt(handle.run_dir)
    assert isinstance(state, Lost)
    assert (state.started["child_pid"], state.survivors) == (handle.child_pid, 0)
    assert not is_running(handle.child_pid)
    assert not is_running(hidden)


def test_waiting_for_a_run_whose_shim_is_killed_gives_none_and_ends_the_leftovers(tmp_path, runs):
    handle, hidden = launch_with_hideout(tmp_path, runs)

    async def scenario():
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(0)
        os.kill(handle.shim_pid, signal.SIGKILL)
        return await waiting

    assert asyncio.run(scenario()) is None
    assert not is_running(handle.child_pid)
    assert not is_running(hidden)


def test_leftovers_without_the_marker_are_found_through_the_agents_session(tmp_path, runs):
    async def scenario(one):
        bare = "env -i sh -c 'echo $$ > pid; exec tail -f /dev/null' > /dev/null &"
        return await one.launch(
            a_spec(tmp_path, f"{bare} until [ -s pid ]; do sleep 0.01; done; {READY_FOREVER}")
        )

    handle = with_launcher(runs, scenario)
    wait_ready(handle)
    os.kill(handle.shim_pid, signal.SIGKILL)
    wait_until(lambda: not launcher.is_alive(handle.run_dir), "the kernel to drop the lock")
    assert isinstance(Launcher(runs).adopt(handle.run_dir), Lost)
    assert not is_running(int((tmp_path / "pid").read_text()))


def prepare_only(tmp_path, runs) -> Path:
    """What a daemon leaves that was killed between writing the run directory and asking for a shim."""
    return Launcher(runs)._prepare(a_spec(tmp_path, "echo ran"))


def test_a_run_that_no_shim_has_seen_is_revoked_and_a_late_shim_refuses(tmp_path, runs):
    run_dir = prepare_only(tmp_path, runs)
    assert Launcher(runs).adopt(run_dir) == NeverStarted()
    command = [sys.executable, "-I", "-S", shim.__file__, str(run_dir)]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    assert "revoked" in json.loads(answer)["refused"]
    assert not (run_dir / "output.log").exists()
    assert Launcher(runs).adopt(run_dir) == NeverStarted()


def test_a_run_without_a_directory_never_started(runs):
    assert Launcher(runs).adopt(runs / "gh-9.9") == NeverStarted()


def test_a_shim_that_hangs_before_it_has_started_anything_is_killed_and_the_run_revoked(tmp_path, runs):
    run_dir = prepare_only(tmp_path, runs)
    # A stopped process in the shim's place: it has the lock and has said who it is, and gets no further.
    hang = (
        "import json, os, sys; from coordinator import shim; fd = shim.take_lock(sys.argv[1]);"
        "me = shim.look_up(os.getpid());"
        "who = {'shim_pid': me.pid, 'shim_start': me.start, 'boot_id': shim.boot_id()};"
        "os.write(fd, json.dumps(who).encode()); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hang, str(run_dir / "lock")]
    where = Path(launcher.__file__).parents[1]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=where) as process:
        assert process.stdout.readline() == b"locked\n"
        assert launcher.classify(run_dir, patience=0.05) == NeverStarted()
        assert process.wait(timeout=15) == -signal.SIGKILL


# --- what must not be believed -----------------------------------------------------------------------------

GOOD = {
    "format": 1,
    "exit_code": 0,
    "exit_signal": None,
    "reason": "exited",
    "detail": "",
    "started_at": 1.0,
    "ended_at": 2.0,
    "cpu_seconds": 0.5,
    "max_rss_kib": 1000,
}


def test_a_good_exit_record_is_read(tmp_path):
    (tmp_path / "exit").write_text(json.dumps(GOOD))
    record = launcher.read_exit(tmp_path)
    assert (record.exit_code, record.ended_at) == (0, datetime.fromtimestamp(2.0, UTC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(GOOD)[:-5],
        "[1]",
        "null",
        "[" * 100_000,
        json.dumps({**GOOD, "format": 2}),
        json.dumps({**GOOD, "exit_code": "0"}),
        json.dumps({**GOOD, "exit_code": True}),
        json.dumps({**GOOD, "exit_code": None}),
        json.dumps({**GOOD, "exit_signal": 9}),
        json.dumps({**GOOD, "reason": "fine"}),
        json.dumps({**GOOD, "reason": []}),
        json.dumps({**GOOD, "ended_at": 1e300}),
        json.dumps({**GOOD, "ended_at": float("nan")}),
        json.dumps({name: value for name, value in GOOD.items() if name != "cpu_seconds"}),
    ],
)
def test_a_damaged_or_forged_exit_record_is_none(tmp_path, text):
    (tmp_path / "exit").write_text(text)
    assert launcher.read_exit(tmp_path) is None


def test_a_run_with_a_damaged_exit_record_is_lost(tmp_path, runs):
    async def scenario(one):
        handle = await one.launch(a_spec(tmp_path))
        await handle.wait()
        return handle.run_dir

    run_dir = with_launcher(runs, scenario)
    (run_dir / "exit").write_text('{"format": 1, "exit_co')
    assert isinstance(Launcher(runs).adopt(run_dir), Lost)


def test_an_exit_record_that_an_agent_writes_itself_is_not_believed_while_it_lives(tmp_path, runs):
    async def scenario(one):
        return await one.launch(a_spec(tmp_path, READY_FOREVER))

    handle = with_launcher(runs, scenario)
    wait_ready(handle)
    (handle.run_dir / "exit").write_text(json.dumps(GOOD))
    assert isinstance(Launcher(runs).adopt(handle.run_dir), Alive)
    assert end(handle).reason == "stopped"


def test_a_damaged_start_record_does_not_cost_a_living_run(tmp_path, runs):
    async def scenario(one):
        return await one.launch(a_spec(tmp_path, READY_FOREVER))

    handle = with_launcher(runs, scenario)
    wait_ready(handle)
    (handle.run_dir / "started").write_text("{")
    state = Launcher(runs).adopt(handle.run_dir)
    assert isinstance(state, Alive)
    assert state.handle.shim_pid == handle.shim_pid
    assert end(state.handle).reason == "stopped"


@pytest.mark.parametrize("forgery", ["another start time", "another boot"])
def test_a_reused_pid_is_neither_waited_for_nor_signalled_nor_killed(tmp_path, runs, forgery):
    bystander = subprocess.Popen(["tail", "-f", "/dev/null"], start_new_session=True)
    try:
        start = shim.look_up(bystander.pid).start + (forgery == "another start time")
        boot = shim.boot_id() if forgery == "another start time" else "an-earlier-boot"
        identity = {"shim_pid": bystander.pid, "shim_start": start, "boot_id": boot}
        run_dir = prepare_only(tmp_path, runs)
        started = {
            "format": 1,
            **identity,
            "child_pid": bystander.pid,
            "child_start": start,
            "token": 1,
            "at": 1,
        }
        (run_dir / "started").write_text(json.dumps(started))
        handle = WorkerHandle(run_dir=run_dir, child_pid=bystander.pid, **identity)
        handle.stop("nobody there")
        assert asyncio.run(handle.wait()) is None
        assert isinstance(Launcher(runs).adopt(run_dir), Lost)
        assert is_running(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()
