"""The real agent CLIs as a user would configure them, and one run of one of them as the daemon does it.

Command, environment, configuration folder, shim, output and outcome are those of the daemon; only queue,
worktree and GitHub are missing. The one thing that is not the default of a dialect is where its provider is.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from adw_modules.agents import DIALECTS, with_exit_code
from adw_modules.agents.stream import StreamSummary
from adw_modules.providers import ProviderManager
from adw_modules.tasks.model import ExitRecord, GitState, Outcome, RunOutcome
from adw_modules.tasks.outcome import classify
from coordinator import shim
from coordinator.clock import utc_now
from coordinator.environment import CONFIG_DIR, has_own_config, worker_environment
from coordinator.launcher import Launcher, LaunchSpec
from coordinator.output import RunOutput
from coordinator.rundir import stderr_tail
from coordinator.settings import SettingsSource

PROGRAMS = Path(__file__).parent.parent / "npm" / "node_modules" / ".bin"
KEY = "STUB_API_KEY"
PROMPT = "You work in a git repository. Please write HELLO.md with a friendly greeting.\n"
LONGEST_RUN_SECONDS = 60.0
LOOK_EVERY = 0.05
STOPPED = "the test says so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """One program. `provider` is its `[providers.NAME]`, given the address of the model server."""

    name: str
    model: str  # what a task asks for
    billed_as: str  # what the provider is asked for
    key: str
    provider: Callable[[str], dict[str, Any]]


def _codex(url: str) -> dict[str, Any]:
    at = f'{{name="stub",base_url="{url}/v1",env_key="{KEY}",wire_api="responses"}}'
    *template, stdin = DIALECTS["codex"].template
    return {
        "command_template": [
            *template,
            "-c",
            "model_provider=stub",
            "-c",
            f"model_providers.stub={at}",
            stdin,
        ]
    }


def _gemini(url: str) -> dict[str, Any]:
    return {"agent": "gemini", "env": {"GOOGLE_GEMINI_BASE_URL": url}}


def _qwen(url: str) -> dict[str, Any]:
    return {"agent": "qwen", "env": {"OPENAI_BASE_URL": f"{url}/v1"}}


def _opencode(url: str) -> dict[str, Any]:
    limit = {"context": 128_000, "output": 8_000}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "stub",
        "options": {"baseURL": f"{url}/v1", "apiKey": f"{{env:{KEY}}}"},
        "models": {name: {"name": name, "limit": limit} for name in ("stub-model", "stub-small")},
    }
    config = {"autoupdate": False, "share": "disabled", "small_model": "stub/stub-small"}
    content = json.dumps(config | {"provider": {"stub": provider}})
    # The registry is looked up otherwise, and the tests have no network.
    return {"agent": "opencode", "env": {"OPENCODE_CONFIG_CONTENT": content, "npm_config_offline": "true"}}


def _copilot(url: str) -> dict[str, Any]:
    env = {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": f"{url}/v1",
        "COPILOT_PROVIDER_MAX_PROMPT_TOKENS": "128000",
        "COPILOT_PROVIDER_MAX_OUTPUT_TOKENS": "8000",
    }
    return {"agent": "copilot", "env": env}


def _claude(url: str) -> dict[str, Any]:
    # The program refuses to work for root without asking unless it is told that it is in a sandbox.
    as_root = {"IS_SANDBOX": "1"} if os.geteuid() == 0 else {}
    return {"agent": "claude", "env": {"ANTHROPIC_BASE_URL": url, **as_root}}


CLAUDE = Cli(
    name="claude",
    model="claude-sonnet-4-5",
    billed_as="claude-sonnet-4-5",
    key="ANTHROPIC_API_KEY",
    provider=_claude,
)
CLIS = {
    "codex": Cli(name="codex", model="stub-model", billed_as="stub-model", key=KEY, provider=_codex),
    "gemini": Cli(
        name="gemini",
        model="gemini-2.5-pro",
        billed_as="gemini-2.5-pro",
        key="GEMINI_API_KEY",
        provider=_gemini,
    ),
    "qwen": Cli(
        name="qwen", model="stub-model", billed_as="stub-model", key="OPENAI_API_KEY", provider=_qwen
    ),
    "opencode": Cli(
        name="opencode", model="stub/stub-model", billed_as="stub-model", key=KEY, provider=_opencode
    ),
    "copilot": Cli(
        name="copilot",
        model="stub-model",
        billed_as="stub-model",
        key="COPILOT_PROVIDER_API_KEY",
        provider=_copilot,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One run that is over, as the daemon would see it."""

    record: ExitRecord
    summary: StreamSummary
    outcome: RunOutcome
    left: list[int]  # processes of it that go on
    folder: Path

    @property
    def seconds(self) -> float:
        return (self.record.ended_at - self.record.started_at).total_seconds()


def installed(name: str) -> Cli:
    if not (PROGRAMS / name).exists():
        pytest.skip(f"{name} is not installed: run `make test-agents`, or `npm ci` in tests/npm")
    return CLAUDE if name == "claude" else CLIS[name]


def provider_table(cli: Cli, url: str) -> dict[str, Any]:
    return {"requires_api_key": True, "api_key_env": cli.key, **cli.provider(url)}


def environment(cli: Cli, home: Path) -> dict[str, str]:
    """What the daemon is started with."""
    home.mkdir(exist_ok=True)
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", cli.key: "sk-stub-not-a-real-key"}


def write_config(folder: Path, cli: Cli, url: str, *, sandbox: str = "auto") -> Path:
    config = folder / "adws" / "config.toml"
    config.parent.mkdir()
    # The address of their model is in an argument or a configuration of codex's and opencode's own.
    table = provider_table(cli, url) | {"allow_hosts": [urlsplit(url).netloc]}
    env = table.pop("env", {})
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    lines += [f"[providers.{cli.name}.env]", *(f"{key} = {json.dumps(value)}" for key, value in env.items())]
    llm = f"[llm]\nprovider = {json.dumps(cli.name)}\nmodel_default = {json.dumps(cli.model)}\n"
    box = f"[sandbox]\nmode = {json.dumps(sandbox)}\n"
    config.write_text("\n".join([llm, box, f"[providers.{cli.name}]", *lines, ""]))
    return config


def run(
    cli: Cli,
    folder: Path,
    repository: Path,
    url: str,
    *,
    stop_when: Callable[[str], bool] | None = None,
) -> Ended:
    """One run from start to outcome. `stop_when` is asked with the run's marker until it says to stop it."""
    environ = environment(cli, folder / "home")
    loaded = SettingsSource(write_config(folder, cli, url)).current
    settings, dialect = loaded.settings.providers[cli.name], DIALECTS[cli.name]
    assert settings.agent == cli.name
    launcher = Launcher(folder / "runs")
    run_dir, marker = launcher.run_dir("gh-1", 1), secrets.token_hex(8)
    manager = ProviderManager(loaded.settings, environ=environ, project_root=loaded.project_root)
    program, *arguments = manager.get_provider(cli.name).build_command(
        run_dir / "prompt.md", cli.model, run_dir / "output.jsonl", workspace=repository
    )
    spec = LaunchSpec(
        task="gh-1",
        token=1,
        argv=(manager.availability(cli.name).program or program, *arguments),
        cwd=str(repository),
        env=worker_environment(settings, environ, dialect, marker=marker, run_dir=run_dir, attempt=1),
        marker=marker,
        prompt=PROMPT,
        stop_signal=settings.stop_signal,
        agent=cli.name,
        config_dir=CONFIG_DIR if has_own_config(settings, environ, dialect) else None,
        config_files=dialect.config_files,
    )
    record = asyncio.run(_until_ended(launcher, spec, stop_when))
    return _ended(cli, record, run_dir, repository, marker, was_stopped=stop_when is not None)


async def _until_ended(
    launcher: Launcher, spec: LaunchSpec, stop_when: Callable[[str], bool] | None
) -> ExitRecord:
    await launcher.start()
    try:
        handle = await launcher.launch(spec)
        try:
            async with asyncio.timeout(LONGEST_RUN_SECONDS):
                if stop_when is not None:
                    await asyncio.to_thread(_wait_until, lambda: stop_when(spec.marker))
                    handle.stop(STOPPED)
                record = await handle.wait()
        finally:
            handle.stop("the test is over")
    finally:
        await launcher.close()
    assert record is not None
    return record


def _wait_until(is_time: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST_RUN_SECONDS / 2
    while not is_time():
        assert time.monotonic() < until
        time.sleep(LOOK_EVERY)


def _ended(
    cli: Cli, record: ExitRecord, run_dir: Path, repository: Path, marker: str, *, was_stopped: bool
) -> Ended:
    dialect = DIALECTS[cli.name]
    output = RunOutput(
        source=run_dir / "output.log",
        log=run_dir / "task.jsonl",
        parser=dialect.parser(),
        saved_offset=0,
        side_file=dialect.side_file,
        model=cli.model,
    )
    while output.read() is not None:
        pass
    summary = with_exit_code(cli.name, output.final_summary(), record.exit_code)
    output.close()
    outcome = classify(
        record,
        summary,
        _git_state(repository),
        stop_outcome=Outcome.CANCELLED if was_stopped else None,
        stop_reason=STOPPED if was_stopped else None,
        now=utc_now(),
        stderr_tail=stderr_tail(run_dir),
    )
    left = [process.pid for process in shim.process_table() if shim.carries(process.pid, marker)]
    return Ended(record=record, summary=summary, outcome=outcome, left=left, folder=run_dir)


def _git_state(repository: Path) -> GitState:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, check=True
    ).stdout
    return GitState(has_changes=bool(status), head="a" * 40, base="a" * 40)


def commands(marker: str) -> set[str]:
    """The names of the processes that carry a run's marker."""
    names = set()
    for process in shim.process_table():
        if not shim.carries(process.pid, marker):
            continue
        try:
            names.add(Path(f"/proc/{process.pid}/comm").read_text().strip())
        except OSError:
            continue  # it has ended since
    return names
