"""Real agent programs whose only way to their model is the proxy of their sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adw_modules.agents.claude import ClaudeStream
from adw_modules.config import SandboxSettings
from adw_modules.security.network import parse_place, policy_of
from coordinator.bubblewrap import find
from coordinator.network import POLICY_FILE, behind_proxy, refusals_of
from coordinator.sandbox import (
    Limits,
    View,
    command,
    environment,
    installation,
    on_path,
    read_only,
    read_write,
)
from tests.openrouter_server import Call, OpenRouterServer, Say

pytestmark = pytest.mark.agents

ROOT = Path(__file__).parents[2]
FOUND = find(SandboxSettings(), os.environ)
PROMPT = b"You work in a git repository. Please write HELLO.md with a friendly greeting.\n"


@pytest.fixture(autouse=True)
def sandbox() -> None:
    if FOUND.box is None:
        pytest.skip(f"no sandbox here: {FOUND.problem}")


def run_inside(
    argv: list[str], *, repository: Path, run_dir: Path, env: Mapping[str, str], port: int
) -> subprocess.CompletedProcess[bytes]:
    """In a sandbox that knows of nobody but models.test:PORT, which its proxy leads to this machine."""
    policy = policy_of([parse_place(f"models.test:{port}"), parse_place(f"127.0.0.1:{port}")])
    policy |= {"pinned": {"models.test": ["127.0.0.1"]}, "forwards": []}
    (run_dir / POLICY_FILE).write_text(json.dumps(policy))
    home, network = Path(env["HOME"]), behind_proxy(run_dir)
    programs = (*on_path(env["PATH"], home), *installation(Path(argv[0]), home))
    ours = tuple(
        map(read_only, (ROOT / "coordinator", ROOT / "adw_modules", ROOT / "tools", Path(sys.prefix)))
    )
    view = View(cwd=repository, home=home, mounts=(*programs, *ours, read_write(repository)))
    assert FOUND.box is not None
    return subprocess.run(
        command(argv, box=FOUND.box, view=view, limits=Limits(), network=network),
        env=environment(env, home, network),
        cwd=repository,
        input=PROMPT,
        capture_output=True,
        timeout=90,
        check=False,
    )


def test_the_claude_cli_works_through_the_proxy(claude, stub, repository, worker_env, tmp_path):
    url = stub.url(run="job")
    env = {**worker_env, "ANTHROPIC_BASE_URL": url.replace("127.0.0.1", "models.test")}
    env |= {"CLAUDE_CONFIG_DIR": str(Path(env["HOME"]) / ".claude")}
    argv = [claude, "-p", "--model", "claude-sonnet-4-5", "--output-format", "stream-json", "--verbose"]
    argv.append("--dangerously-skip-permissions")
    done = run_inside(argv, repository=repository, run_dir=tmp_path, env=env, port=stub.port)
    stream = ClaudeStream()
    stream.feed(done.stdout)
    summary = stream.finish()
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:], refusals_of(tmp_path))
    assert summary.usage.total.output == stub.billed("job").output > 0
    assert (repository / "HELLO.md").exists()


def test_openrouter_cli_works_through_the_proxy(repository, tmp_path):
    write = Call("write_file", {"path": "HELLO.md", "content": "Hello\n"})
    home = tmp_path / "home"
    home.mkdir()
    with OpenRouterServer() as server:
        server.script(Say(tool_calls=[write]), Say(text="Done."))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "OPENROUTER_API_KEY": server.key,
            "OPENROUTER_BASE_URL": server.url.replace("127.0.0.1", "models.test"),
        }
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        argv = [str(ROOT / "tools" / "openrouter-cli.py"), "-p", "-", "--model", "moonshotai/kimi-k2"]
        done = run_inside(argv, repository=repository, run_dir=tmp_path, env=env, port=port)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:], refusals_of(tmp_path))
    assert (repository / "HELLO.md").read_text() == "Hello\n"
