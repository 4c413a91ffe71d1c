"""Canaries of every kind, in every place: live inside the sandbox and outside of it, then all that is left.

Each place is also asked for something that has to be there, so that one that nobody looks at is noticed.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from github_app import KEY_ENV as APP_KEY_ENV
from github_app import install, private_pem, use_app
from world import REPO, World, program

from adw_modules.config import SandboxSettings
from coordinator.bubblewrap import find

FOUND = find(SandboxSettings(), os.environ)
pytestmark = pytest.mark.skipif(FOUND.box is None, reason=f"no sandbox here: {FOUND.problem}")

WORKER, DAEMON, HOOK = (
    "canary-of-the-worker-Vx81kLm",
    "canary-of-the-daemon-Hn52xYc",
    "canary-of-the-hook-Pw73tQz",
)
TITLE = "A title to be found everywhere"
MODEL = "claude-sonnet-4-5"

# Looks at all that it can read, and prints what looks like a secret, and where. It does not match itself.
WALKS = r"""
import json, os, re, stat, time
pattern = re.compile(rb"canar[y]-of-the-[a-z]+-\w+|gh[s]_[0-9a-f]+|PRIVAT[E] KEY")
found, looked = dict(), []
def look(place, path):
    try:
        with open(path, "rb") as file:
            data = file.read(4_000_000)
    except OSError:
        return
    looked.append(place)
    for match in pattern.findall(data):
        found.setdefault(match.decode(), []).append(place)
for pid in filter(str.isdecimal, os.listdir("/proc")):
    for name in ("environ", "cmdline", "mountinfo", "status"):
        look(pid + "/" + name, "/proc/" + pid + "/" + name)
    fds = "/proc/" + pid + "/fd"
    for fd in os.listdir(fds) if os.access(fds, os.R_OK) else ():
        if os.path.isfile(os.path.join(fds, fd)):
            look(pid + "/fd", os.path.join(fds, fd))
for top, folders, files in os.walk("/"):
    # Programs and libraries are not ours, wherever they were put.
    folders[:] = set(folders) - set("proc sys usr opt lib lib64 bin sbin include share node_modules".split())
    for name in files:
        path = os.path.join(top, name)
        if stat.S_ISREG(os.lstat(path).st_mode):
            look(path, path)
print("WALK", json.dumps(dict(found=found, looked=len(looked))), flush=True)
until = time.monotonic() + (60 if "trees" in os.getcwd() else 0)  # a probe has nobody to open the gate
while time.monotonic() < until and not os.path.exists("gate"):
    time.sleep(0.01)
os.path.exists("gate") and os.remove("gate")
open("page.md", "w").write("work\n")
print("key", os.environ["WORKER_KEY"])
"""


@pytest.fixture
def world(a_world) -> World:
    """A daemon with a secret of every kind: a worker's, its own, the App's key and tokens, the webhook's."""
    world: World = a_world(sandbox={"mode": "bubblewrap"}, coordinator={"max_attempts": 1})
    use_app(world, install(world.server))
    world.environ |= {"WORKER_KEY": WORKER, "CI_API_KEY": DAEMON, "HOOK_SECRET": HOOK}
    world.write_config(
        webhook={"enabled": True, "listen": "127.0.0.1:0", "secret_env": "HOOK_SECRET"},
        **{"providers.claude-cli": program(WALKS, api_key_env="WORKER_KEY")},
    )
    return world


def secrets_of(world: World) -> dict[str, bytes]:
    pem = private_pem()
    found = {"the worker's key": WORKER, "the daemon's": DAEMON, "the webhook's": HOOK}
    found |= {"the App's key": pem.splitlines()[5], "a part of that": pem.splitlines()[9][:40]}
    tokens = {each.token for each in world.server._apps.grants.values()}
    assert tokens
    found |= {f"installation token {number}": token for number, token in enumerate(sorted(tokens))}
    return {name: value.encode() for name, value in found.items()}


def dirty(world: World, data: bytes, *allowed: str) -> list[str]:
    return [name for name, value in secrets_of(world).items() if value in data and name not in allowed]


def processes() -> Iterator[tuple[int, bytes]]:
    """Every process of the machine, and what it was started with."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), (folder / "cmdline").read_bytes()
        except OSError:
            continue


def test_no_secret_is_to_be_seen_while_a_run_lives(world: World) -> None:
    number = world.issue(title=TITLE)
    world.start_process()
    run_dir = Path(world.until_working(number).run_dir)
    output = run_dir / "output.log"
    world.until(lambda: b"WALK" in output.read_bytes(), "the agent has looked around")

    seen = json.loads(output.read_text().split("WALK", 1)[1])
    assert set(seen["found"]) == {WORKER}, seen
    assert all(re.fullmatch(r"\d+/environ", place) for place in seen["found"][WORKER])
    assert seen["looked"] > 20

    lines = dict(processes())
    mine = {process.pid for process in world.processes()}
    assert len(mine) >= 3
    assert world.process is not None
    assert mine | {world.process.pid} <= set(lines)
    assert {pid: found for pid, line in lines.items() if (found := dirty(world, line))} == {}
    environs = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in mine}
    assert any(WORKER.encode() in environ for environ in environs.values())
    assert {
        pid: found for pid, each in environs.items() if (found := dirty(world, each, "the worker's key"))
    } == {}


VERBS = {
    "status": TITLE,
    "status --json": TITLE,
    "why 1": "1",
    "why 1 --json": "gh-1",
    "costs": "runs",
    "costs --csv": MODEL,
    "costs --json": MODEL,
    "logs --task 1": "",
    "logs --json": "worker finished",
    "doctor": "sandbox",
    "doctor --json": "sandbox",
    "budget --json": "",
    "experiments --json": "",
    "models --json": "",
    "route lint": "",
    "check": "",
    "service install --dry-run": "coordinator.service",
    "providers probe claude-cli --timeout 5 --json": "claude-cli",
}


def told(world: World, number: int) -> Iterator[tuple[str, bytes, str]]:
    """All that the product prints, keeps or sends: place, content, and what has to be in it."""
    for verb, known in VERBS.items():
        yield verb, world.output(*verb.split()).encode(), known
    for comment in world.server.comments(REPO, number):
        yield "a comment", str(comment).encode(), "coordinator"
    for pull in world.server.pulls(REPO):
        yield "a pull request", str(pull).encode(), TITLE
    copy = world.state_dir / "copy.db"
    assert world.cli("backup", str(copy))
    with sqlite3.connect(copy) as database:
        dump = "\n".join(database.iterdump())
    yield "the backup", dump.encode() + copy.read_bytes(), TITLE
    yield "the table of decisions", re.sub(r"(?m)^(?!INSERT INTO \W?audit).*$", "", dump).encode(), "audit"
    yield "the daemon's stderr", (world.folder / "daemon.stderr").read_bytes(), "worker finished"
    mirror = world.folder / "github" / f"{REPO}.git"
    listing = ["git", "-C", str(mirror), "cat-file", "--batch-all-objects", "--batch"]
    yield "what was pushed", subprocess.run(listing, capture_output=True, check=True).stdout, "work"
    for path in world.state_dir.rglob("*"):
        # The last good configuration is the operator's own text, which names secrets and holds none.
        if path.is_file():
            yield str(path.relative_to(world.state_dir)), path.read_bytes(), ""


def test_no_secret_is_in_anything_that_is_printed_kept_or_sent(world: World) -> None:
    number = world.issue(title=TITLE)
    world.start_process()
    world.until_working(number)
    tree = world.state_dir / "trees" / f"gh-{number}"
    world.until(tree.exists, "there is a worktree")
    (tree / "gate").touch()
    world.until_state(number, "succeeded")
    world.until_quiet()
    places = list(told(world, number))
    world.stop()

    assert {place: found for place, data, _ in places if (found := dirty(world, data))} == {}
    assert [place for place, data, known in places if known.encode() not in data] == []
    assert len(places) > len(VERBS) + 15
    assert {"logs/coordinator.jsonl", "coordinator.db", "a comment", "a pull request"} <= {
        each[0] for each in places
    }
    # The tokens themselves were answers, and go in one header.
    sent = [f"{each.path}?{each.query}".encode() + each.body for each in world.server.requests]
    assert any(TITLE.encode() in each for each in sent)
    assert dirty(world, b"\n".join(sent)) == []
    # Each of them would be seen: a secret in any place is found, whatever is around it.
    for name, value in secrets_of(world).items():
        assert name in dirty(world, b"x" + value + b"y")
    assert APP_KEY_ENV in world.environ
