"""Rule 10: what an agent in a sandbox can reach. Each attempt works without the sandbox, and not with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from world import TOKEN, World

CANARY = "canary-7f3a91c2"
ATTACKER = Path(__file__).with_name("attacker.py")
NOBODY = 65534
WRITTEN = "written by the agent"


@dataclass(slots=True)
class Outside:
    """What is to be kept from the agent, and who plays it."""

    folder: Path
    victim: subprocess.Popen[bytes]
    listeners: list[socket.socket]
    told: dict[str, Any]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    folder = tmp_path / "outside"
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(CANARY)
    tools = folder / "tools"
    tools.mkdir()
    shutil.copy("/usr/bin/id", tools / "setuid-id")
    if os.geteuid() == 0:
        os.chown(tools / "setuid-id", NOBODY, NOBODY)
    (tools / "setuid-id").chmod(0o4755)
    victim = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        env={"SECRET": CANARY},
    )
    by_path, abstract, loopback = (
        socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)
    )
    by_path.bind(str(folder / "s"))
    abstract.bind(f"\0{folder.parent.name}-{os.getpid()}")
    loopback.bind(("127.0.0.1", 0))
    listeners = [by_path, abstract, loopback]
    for listener in listeners:
        listener.listen(8)
    told = {
        "canary": CANARY,
        "victim": victim.pid,
        "socket": str(folder / "s"),
        "abstract": f"{folder.parent.name}-{os.getpid()}",
        "port": loopback.getsockname()[1],
        "setuid": str(tools / "setuid-id"),
        "asks metadata": False,
    }
    yield Outside(folder=folder, victim=victim, listeners=listeners, told=told)
    for listener in listeners:
        listener.close()
    victim.kill()
    victim.communicate()


def attack(a_world: Any, outside: Outside, **sandbox: Any) -> dict[str, Any]:
    """What the attacker reports of its run under a real daemon."""
    tools = str(outside.folder / "tools")
    world: World = a_world(sandbox={"read_only": [tools], **sandbox})
    other = world.state_dir / "another" / "gh-99.1"
    other.mkdir(parents=True)
    world.state_dir.chmod(0o700)
    (other / "spec.json").write_text(json.dumps({"env": {"KEY": CANARY}}))
    (world.folder / ".env").write_text(CANARY)
    home = outside.folder / "home"
    world.environ |= {"HOME": str(home), "DAEMON_SECRET": CANARY}
    told = outside.told | {
        "secrets": [
            str(home / ".ssh" / "id_ed25519"),
            str(other / "spec.json"),
            str(world.folder / ".env"),
        ],
        "places": [
            str(outside.folder / "planted"),
            str(world.state_dir / "repos" / "octo" / "hello.git" / "config"),
            str(world.state_dir / "planted"),
            f"{tools}/planted",
        ],
        "folders": [str(world.state_dir / "runs"), str(other), str(world.folder / "github")],
        "asks metadata": sandbox.get("network") == "none",
    }
    (outside.folder / "told.json").write_text(json.dumps(told))
    command = [sys.executable, "-I", str(ATTACKER), str(outside.folder / "told.json")]
    world.write_config(**{"providers.claude-cli": {"command_template": command, "agent": "generic"}})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    (run,) = world.runs(number)
    report: dict[str, Any] = json.loads((Path(run.run_dir) / "output.log").read_text())
    return report | {"written": [path for path in told["places"] if WRITTEN in _text(path)]}


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def test_without_a_sandbox_each_attempt_works(a_world: Any, outside: Outside) -> None:
    report = attack(a_world, outside, mode="off")

    assert outside.victim.pid in report["foreign environments"]
    assert report["sees the victim"]
    assert report["signals the victim"]
    assert report["traces the victim"]
    assert len(report["reads"]) == 3
    assert report["reads through a link"]
    assert len(report["links"]) == 3
    assert len(report["writes"]) == 4
    assert len(report["written"]) == 3  # the mirror's config was put back before git read it
    assert len(report["lists"]) == 3
    assert report["socket"]
    assert report["abstract socket"]
    assert report["loopback"]
    assert report["user namespace"]
    if os.geteuid() == 0:
        assert report["setuid"] == str(NOBODY)
        assert report["opens kernel settings"]


@pytest.mark.parametrize("network", ["open", "none", "allow-list"])
def test_in_a_sandbox_none_of_them_does(a_world: Any, outside: Outside, network: str) -> None:
    report = attack(a_world, outside, mode="bubblewrap", network=network)

    assert report["foreign environments"] == []
    assert not report["sees the victim"]
    assert not report["signals the victim"]
    assert not report["traces the victim"]
    assert report["reads"] == []
    assert report["reads below /proc/1/root"] == []
    assert not report["reads through a link"]
    assert report["links"] == []
    assert f"{outside.folder}/tools/planted" not in report["writes"]
    assert not report["written"]  # what it wrote elsewhere was in folders of its own, and is gone
    assert report["lists"] == []
    assert not report["socket"]
    assert not report["abstract socket"]
    assert report["loopback"] is (network == "open")
    assert not report["metadata"]
    assert not report["user namespace"]
    assert not report["opens kernel settings"]
    assert report["setuid"] not in {str(NOBODY), "0"}
    assert report["capabilities"] == 0
    assert report["core"] == 0
    assert not {"DAEMON_SECRET", "HELLO_TOKEN", "GITHUB_TOKEN"} & set(report["environment"])
    assert not (outside.folder / "planted").exists()
    assert TOKEN not in json.dumps(report)
