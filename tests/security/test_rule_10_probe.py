"""Rule 10: `coordinator providers probe` starts an agent as a run does, so it is as confined as in a run."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adw_modules.config import SandboxSettings
from coordinator import cli, probing
from coordinator.bubblewrap import find
from coordinator.settings import SettingsSource

FOUND = find(SandboxSettings(), os.environ)
needs_box = pytest.mark.skipif(FOUND.box is None, reason=f"no sandbox here: {FOUND.problem}")

SNOOPS = """
import json, os, socket, sys, urllib.parse
secret, port = sys.argv[1], int(sys.argv[2])
seen = {"secret": os.path.exists(secret), "parent": os.path.exists(os.path.dirname(secret) + "/adws")}
seen["strangers"] = os.path.exists("/proc/%s" % sys.argv[3])
try:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    seen["reached"] = True
except OSError:
    seen["reached"] = False
if "HTTPS_PROXY" in os.environ:
    proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as s:
        s.sendall(b"CONNECT thief.test:443 HTTP/1.1\\r\\n\\r\\n")
        s.recv(4096)
try:
    with open(os.path.dirname(secret) + "/left-behind", "w") as file:
        file.write("x")
except OSError:
    pass
sys.exit(json.dumps(seen))
"""


class Snoop:
    """A configuration whose agent looks around, beside a secret and a server of this machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.config = folder, folder / "adws" / "config.toml"
        self._port = port
        self.config.parent.mkdir()
        (folder / "secret").write_text("canary")
        (folder / "agent.py").write_text(SNOOPS)

    def configure(self, sandbox: str) -> None:
        secret = f"{self.folder}/sec{{model}}"  # a whole path in the template would be shown to it
        template = [sys.executable, f"{self.folder}/agent.py", secret, str(self._port), str(os.getpid())]
        self.config.write_text(
            '[llm]\nprovider = "mine"\nmodel_default = "ret"\n[providers.mine]\nagent = "generic"\n'
            f"command_template = {json.dumps(template)}\n[sandbox]\n{sandbox}\n"
        )

    def ask(self, **environ: str) -> probing.Probe:
        return probing.probe(
            SettingsSource(self.config).current,
            "mine",
            model="ret",
            environ={"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), **environ},
            timeout=30,
            now=datetime(2026, 11, 21, tzinfo=UTC),
            tell=lambda _answer: None,
        )

    def probe(self) -> tuple[dict[str, probing.Answer], dict[str, bool]]:
        found = self.ask()
        answers = {answer.question: answer for answer in found.answers}
        return answers, json.loads(answers["starts"].seen.partition(": ")[2])


@pytest.fixture
def snoop(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Snoop(tmp_path, server.getsockname()[1])


@needs_box
def test_a_probed_agent_sees_and_reaches_no_more_than_in_a_run(snoop):
    snoop.configure('mode = "auto"')
    answers, seen = snoop.probe()
    assert seen == {"secret": False, "parent": False, "strangers": False, "reached": False}
    assert not (snoop.folder / "left-behind").exists()
    assert (answers["sandbox"].ok, answers["sandbox"].seen) == (True, 'bubblewrap, network = "allow-list"')
    assert "thief.test:443" in answers["network"].seen


def test_without_a_sandbox_the_probe_says_so_and_the_same_agent_sees_it_all(snoop):
    snoop.configure('mode = "off"')
    answers, seen = snoop.probe()
    assert seen == {"secret": True, "parent": True, "strangers": True, "reached": True}
    assert (snoop.folder / "left-behind").exists()
    assert answers["sandbox"].ok is None
    assert "runs without one" in answers["sandbox"].seen


def test_where_a_sandbox_is_demanded_and_none_works_no_agent_is_started(snoop):
    snoop.configure('mode = "bubblewrap"\nbwrap = "/bin/false"')
    done = CliRunner().invoke(cli.app, ["providers", "probe", "mine", "--config", str(snoop.config)])
    assert done.exit_code == 1
    assert 'sandbox.mode is "bubblewrap", and it does not work here' in str(done.exception)
    assert not (snoop.folder / "left-behind").exists()


LEAVES = """
import os, sys
os.symlink(sys.argv[1], "PROBE.md")
folder = os.open(".", os.O_RDONLY)
for _ in range(1500):
    os.mkdir("d", 0o700, dir_fd=folder)
    inner = os.open("d", os.O_RDONLY, dir_fd=folder)
    os.close(folder)
    folder = inner
os.mkdir("/tmp/x")
sys.exit("my key is " + os.environ["WORKER_KEY"])
"""


def test_what_a_probed_agent_leaves_and_says_does_no_harm(snoop, monkeypatch, tmp_path):
    """Folders without end, a link to what only we may read, and its own key as last words."""
    key = "canary-of-the-worker-Vx81kLm"
    (tmp_path / "own").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "own"))
    (snoop.folder / "agent.py").write_text(LEAVES)
    snoop.configure('mode = "auto"')
    text = snoop.config.read_text().replace("[sandbox]", 'api_key_env = "WORKER_KEY"\n[sandbox]')
    snoop.config.write_text(text)
    found = snoop.ask(WORKER_KEY=key)
    assert "my key is [redacted]" in json.dumps(found.as_dict())
    assert key not in json.dumps(found.as_dict())
    assert list((tmp_path / "own").iterdir()) == []
