"""A second look at the network of runs: attacks on the proxy itself, and from one run on another."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from world import World, program

from adw_modules.config import SandboxSettings
from adw_modules.security.network import PROXY_PORT
from coordinator.bubblewrap import find

FOUND = find(SandboxSettings(), os.environ)
pytestmark = pytest.mark.skipif(FOUND.box is None, reason=f"no sandbox here: {FOUND.problem}")

# Talks to its proxy byte by byte, says what it was answered, and waits for the gate.
TALKS = """
import json, os, socket, sys, time
def talk(text):
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=10) as s:
            s.sendall(text.encode())
            answer = b""
            while more := s.recv(4096):
                answer += more
            return answer.decode("latin-1")
    except OSError as error:
        return repr(error)
WORK
print("SAID", json.dumps(said), flush=True)
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists("gate"):
    time.sleep(0.01)
os.path.exists("gate") and os.remove("gate")
open("work.md", "w").write("work")
"""


def agent(work: str, **more: Any) -> dict[str, Any]:
    return program(TALKS.replace("WORK", work).replace("PORT", str(PROXY_PORT)), **more)


def said(world: World, number: int) -> Any:
    run = world.until_working(number)
    output = Path(run.run_dir) / "output.log"
    world.until(lambda: b"SAID" in output.read_bytes(), "the agent has said what it was answered")
    return json.loads(output.read_text().split("SAID", 1)[1])


def let_go(world: World, number: int) -> None:
    (world.state_dir / "trees" / f"gh-{number}" / "gate").touch()
    world.until_state(number, "succeeded")


NEIGHBOUR = """
said = [talk("GET http://first.test/ HTTP/1.1\\r\\n\\r\\n")]
"""


def test_a_proxy_answers_its_own_run_and_nobody_else(a_world: Any) -> None:
    """Each is on a loopback of its own, at the same port: neither the machine nor another run gets to it."""
    world: World = a_world(sandbox={"mode": "bubblewrap"}, **{"providers__claude-cli": agent(NEIGHBOUR)})
    first, second = world.issue("One"), world.issue("Two")
    world.start()
    answers = [said(world, number) for number in (first, second)]
    assert all(answer[0].startswith("HTTP/1.1 403 ") for answer in answers)
    runs = [Path(run.run_dir) for number in (first, second) for run in world.runs(number)]
    for run_dir in runs:  # each has noted its own run's question, once
        lines = [json.loads(line) for line in (run_dir / "refused.jsonl").read_text().splitlines()]
        assert [(line["target"], line["count"]) for line in lines] == [("first.test:80", 1)]
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as stranger:
            assert stranger.connect_ex((address, PROXY_PORT)) != 0
    for number in (first, second):
        let_go(world, number)


EXHAUSTS = """
held = []
for _ in range(300):
    s = socket.socket()
    s.settimeout(5)
    try:
        s.connect(("127.0.0.1", PORT))
        s.sendall(b"CONNECT ")
        held.append(s)
    except OSError:
        pass
until = time.monotonic() + 5
while time.monotonic() < until and "403" in (last := talk("GET http://first.test/ HTTP/1.1\\r\\n\\r\\n")):
    pass
said = [len(held), last]
for s in held:
    s.close()
until = time.monotonic() + 20
while time.monotonic() < until and "403" not in talk("GET http://first.test/ HTTP/1.1\\r\\n\\r\\n"):
    time.sleep(0.05)
said.append(talk("GET http://first.test/ HTTP/1.1\\r\\n\\r\\n")[:12])
"""


def test_who_holds_all_connections_of_a_proxy_harms_only_that_run_and_only_for_a_while(a_world: Any) -> None:
    world: World = a_world(sandbox={"mode": "bubblewrap"}, coordinator={"max_concurrent_workers": 2})
    world.write_config(**{"providers.claude-cli": agent(EXHAUSTS)})
    number = world.issue("Hold them all")
    world.start()
    held, meanwhile, afterwards = said(world, number)
    assert held >= 128
    assert "HTTP/1.1 403" not in meanwhile
    assert afterwards == "HTTP/1.1 403"
    reloads = len(world.events("configuration reloaded"))
    world.write_config(**{"providers.claude-cli": agent(NEIGHBOUR)})
    world.until(lambda: len(world.events("configuration reloaded")) > reloads, "it is reloaded")
    other = world.issue("Somebody else")
    assert said(world, other)[0].startswith("HTTP/1.1 403 ")
    run_dir = Path(world.runs(number)[0].run_dir)
    assert len((run_dir / "refused.jsonl").read_bytes()) < 10_000
    for each in (number, other):
        let_go(world, each)
