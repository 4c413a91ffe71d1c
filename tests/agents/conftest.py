"""A real Claude CLI, a stub provider that keeps books, and a repository to work in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adw_modules.agents import DIALECTS

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / "stub_llm"), str(TESTS / "scenarios")]  # the stub, and the stage of the scenarios

from stub_llm import StubLLM  # noqa: E402 (its folder has to be on the path first)

CLAUDE = TESTS / "npm" / "node_modules" / ".bin" / "claude"


@pytest.fixture(scope="session")
def claude() -> str:
    """The path of the pinned program."""
    if not CLAUDE.exists():
        pytest.skip("the Claude CLI is not installed: run `make test-agents`, or `npm ci` in tests/npm")
    return str(CLAUDE)


@pytest.fixture
def stub():
    with StubLLM() as server:
        yield server


@pytest.fixture
def repository(tmp_path) -> Path:
    """A git repository with one commit."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "README.md").write_text("# Sample\n")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "Start"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.fixture
def worker_env(tmp_path) -> dict[str, str]:
    """What a worker of the claude dialect gets, apart from the provider's address."""
    dialect = DIALECTS["claude"]
    home = tmp_path / "home"
    home.mkdir()
    env = {
        **dialect.env,
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_API_KEY": "sk-ant-stub",
        str(dialect.config_dir_env): str(tmp_path / "claude-config"),
    }
    if os.geteuid() == 0:
        env["IS_SANDBOX"] = "1"  # the program refuses --dangerously-skip-permissions to root without it
    return env
