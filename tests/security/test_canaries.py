"""Canaries: secrets that the daemon knows are nowhere in what it writes, prints, sends or keeps."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from world import REPO, TOKEN, World, program

from coordinator import logs, shim
from coordinator.launcher import is_alive
from coordinator.rundir import seal
from coordinator.settings import SettingsSource

KEY, PASSED, LITERAL = "canary-worker-key-Vx81kLm", "canary-passed-on-Qw93nBt", "canary-literal-Zt47pRs"
OURS = "canary-of-the-daemon-alone-Hn52xYc"
CANARIES = (KEY, PASSED, LITERAL, TOKEN, OURS)
_SPELLINGS = {
    "plain": lambda key: key.encode(),
    "reversed": lambda key: key[::-1].encode(),
    "base64": lambda key: base64.b64encode(key.encode()),
    "base64 at another place": lambda key: base64.b64encode(b"x" + key.encode())[4:-4],
    "hexadecimal": lambda key: key.encode().hex().encode(),
}

_TELLS = """
import base64, os, sys
values = [value for value in os.environ.values() if 'canary' in value]
for value in values:
    raw = value.encode()
    print(value, value[::-1], base64.b64encode(raw), base64.b64encode(b'x' + raw), raw.hex(), flush=True)
    print(value, raw.hex(), file=sys.stderr)
found = os.path.exists('environment.json') or os.listdir(os.path.dirname(os.readlink('/proc/self/fd/1')))
print('beside the output:', sorted(found))
"""
_SUCCEEDS = _TELLS + "open('honest.txt', 'w').write('work')\n"
_COMMITS = _TELLS + "open('stolen.txt', 'w').write(chr(10).join(values))\n"
_FAILS = _TELLS + "sys.exit(4)\n"
_WAITS = _TELLS + "import time\ntime.sleep(60)\n"


def an_agent(world: World, code: str, **coordinator: object) -> None:
    world.environ |= {"WORKER_KEY": KEY, "PASSED_TOKEN": PASSED, "CI_API_KEY": OURS}
    more = {"api_key_env": "WORKER_KEY", "pass_env": ["PASSED_TOKEN"], "env": {"LITERAL_SECRET": LITERAL}}
    limits = {"max_attempts": 1, **coordinator}
    world.write_config(**{"providers.claude-cli": program(code, **more), "coordinator": limits})


def found_in(data: bytes) -> list[str]:
    return [
        f"{canary[:12]} {how}"
        for canary in CANARIES
        for how, spell in _SPELLINGS.items()
        if spell(canary) in data
    ]


def files_of(world: World) -> Iterator[Path]:
    """All that the daemon has written. Worktrees and mirrors hold what the agent wrote: its work is kept."""
    # And the last good configuration is a copy of the operator's own file.
    work = [world.state_dir / name for name in ("trees", "repos", "last-good.toml")]
    for path in world.state_dir.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(each) for each in work):
            yield path


def assert_clean(world: World, number: int) -> None:
    dirty = {str(path.relative_to(world.state_dir)): found for path in files_of(world)
             if (found := found_in(path.read_bytes()))}  # fmt: skip
    assert dirty == {}
    verbs = (["status"], ["why", str(number)], ["logs", "--task", str(number)], ["costs"], ["doctor"])
    for verb in verbs:
        done = subprocess.run(
            [*world_command(world), *verb, "--config", str(world.path)], capture_output=True, check=False,
            env=world.environ, timeout=60,
        )  # fmt: skip
        assert done.stdout, verb
        assert found_in(done.stdout + done.stderr) == [], verb
    assert found_in((world.folder / "daemon.stderr").read_bytes()) == []
    sent = [str(pull) for pull in world.server.pulls(REPO)] + [str(c) for c in world.comments(number)]
    assert found_in("\n".join(sent).encode()) == []
    assert found_in(world.server.issue(REPO, number).__repr__().encode()) == []
    folder = next(world.folder.joinpath("github").rglob("HEAD")).parent
    listing = ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch"]
    assert found_in(subprocess.run(listing, capture_output=True, check=True).stdout) == []


def world_command(world: World) -> list[str]:
    import sys

    return [sys.executable, "-m", "coordinator"]


def test_nothing_that_an_agent_says_or_writes_of_its_keys_is_kept_or_sent(a_world) -> None:
    world: World = a_world()
    for code, state in ((_SUCCEEDS, "succeeded"), (_COMMITS, "blocked"), (_FAILS, "failed")):
        reloads = len(world.events("configuration reloaded"))
        an_agent(world, code)
        if world.process is None:
            world.start_process()
        else:
            world.until(lambda n=reloads: len(world.events("configuration reloaded")) > n, "it is reloaded")
        number = world.issue(title=f"It {state}")
        world.until_state(number, state)
    world.cli("backup", str(world.state_dir / "copy.db"))
    dump = "\n".join(sqlite3.connect(world.state_dir / "copy.db").iterdump())
    assert found_in(dump.encode()) == []
    world.stop()

    assert_clean(world, number)
    output = next((world.state_dir / "runs").glob("*/output.log")).read_bytes()
    assert b"*****" in output
    assert b"environment.json" not in output
    open_to_others = {path for path in world.state_dir.rglob("*")
                      if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077}  # fmt: skip
    assert open_to_others == set()


def test_while_a_worker_lives_its_key_is_in_its_own_environment_and_in_no_argument(a_world) -> None:
    world: World = a_world()
    an_agent(world, _WAITS)
    number = world.issue()
    world.start()
    run_dir = Path(world.until_working(number).run_dir)

    spec = (run_dir / "spec.json").read_bytes()
    assert found_in(spec) == []
    assert not (run_dir / shim.ENVIRONMENT).exists()
    lines = [Path(f"/proc/{process.pid}/cmdline") for process in world.processes()]
    commands = b"".join(path.read_bytes() for path in lines)
    environs = b"".join(Path(f"/proc/{process.pid}/environ").read_bytes() for process in world.processes())
    assert commands
    assert found_in(commands) == []
    assert KEY.encode() in environs
    assert TOKEN.encode() not in environs
    assert OURS.encode() not in environs


def test_an_adopted_run_is_followed_and_settled_without_its_environment_on_disk(a_world) -> None:
    world: World = a_world()
    an_agent(world, _WAITS)
    number = world.issue()
    world.start_process()
    run_dir = Path(world.until_working(number).run_dir)
    world.kill()
    assert is_alive(run_dir)
    world.start_process()
    world.until_logged("found a run")
    world.cli("cancel", str(number))
    world.until_state(number, "cancelled")
    world.stop()
    assert_clean(world, number)


def test_a_file_with_another_name_elsewhere_is_never_written_to(tmp_path: Path) -> None:
    theirs = tmp_path / "keys.env"
    theirs.write_text(f"KEY={KEY}\n")
    run_dir = tmp_path / "run"
    (run_dir / "agent-config").mkdir(parents=True)
    (run_dir / "agent-config" / "linked").hardlink_to(theirs)
    (run_dir / "pointed").symlink_to(theirs)
    (run_dir / "output.log").write_text(f"before {KEY} after {KEY}")
    seal(run_dir, logs.Redactor([KEY]))
    assert theirs.read_text() == f"KEY={KEY}\n"
    assert (run_dir / "output.log").read_text() == f"before {'*' * len(KEY)} after {'*' * len(KEY)}"


def test_every_variable_that_the_configuration_names_is_known_as_a_secret(a_world) -> None:
    world: World = a_world(coordinator={"database_url": "postgresql://me:pa55w0rd-of-the-db@127.0.0.1:1/x"})
    an_agent(world, "pass", database_url="postgresql://me:pa55w0rd-of-the-db@127.0.0.1:1/x")
    settings = SettingsSource(world.path, world.environ).current.settings
    known = set(
        logs.secret_values(settings, world.environ | {"SSH_AUTH_SOCK": "/tmp/ssh-1234567890/agent.1"})
    )
    assert {KEY, PASSED, LITERAL, TOKEN, OURS, "pa55w0rd-of-the-db"} <= known
    assert "/tmp/ssh-1234567890/agent.1" not in known
    assert json.dumps(sorted(known))
