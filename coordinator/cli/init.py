"""`coordinator init`: write a first configuration, by asking or (with --yes) from the options alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG

_REPO = re.compile(r"^[A-Za-z0-9][\w-]*/[\w.-]+$")
_REMOTE = re.compile(r"github\.com[:/](?P<repo>[\w-]+/[\w.-]+?)(?:\.git)?/?$")

TEMPLATE = """\
# Coordinator's configuration. Every key: adws/config.example.toml and docs/configuration.md.
# Changes take effect while the daemon runs; a broken file is reported and the last good one stays in force.

[coordinator]
max_concurrent_workers = {workers}
poll_interval_seconds = 30
worker_timeout_hours = 2

[github]
repo_owner = "{owner}"
repo_name = "{name}"
issue_label = "{label}"
# The token itself never stands in a file: export GITHUB_TOKEN (contents, issues, pull requests: write).

# The prompt reaches the agent on standard input.
[providers.claude-cli]
enabled = true
command_template = [
    "claude", "-p",
    "--model", "{{model}}",
    "--output-format", "stream-json",
    "--verbose",
    "--dangerously-skip-permissions",
]
pass_env = ["ANTHROPIC_API_KEY"]

[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true

# First match wins; a higher priority is looked at first.
[[routing.rules]]
name = "critical-issues-opus"
priority = 100
conditions = {{ priority = "critical" }}
model = "claude-opus-4"

[[routing.rules]]
name = "docs-haiku"
priority = 60
conditions = {{ labels = ["documentation", "docs"] }}
model = "claude-haiku-4"
"""


def register(app: typer.Typer) -> None:
    app.command()(init)


def init(
    config: Annotated[Path, typer.Option("--config", "-c", help="The file to write.")] = DEFAULT_CONFIG,
    repo: Annotated[
        str | None, typer.Option(help="owner/name; the git remote of this folder if left out.")
    ] = None,
    label: Annotated[str, typer.Option(help="The label that hands an issue to Coordinator.")] = "rpi-auto",
    workers: Annotated[int, typer.Option(help="How many agents may work at once.", min=1, max=100)] = 3,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; take the options and defaults.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a first adws/config.toml."""
    if config.exists() and not force:
        raise CoordinatorError(f"{config} exists already; nothing was written. Use --force to replace it.")
    repo = repo or _remote_repository()
    if not yes:
        repo = typer.prompt("Repository (owner/name)", default=repo)
        label = typer.prompt("Label that hands an issue to Coordinator", default=label)
        workers = typer.prompt("How many agents may work at once", default=workers, type=int)
    if repo is None or not _REPO.match(repo):
        raise CoordinatorError(f"{repo or 'No repository'} is not a repository: give --repo owner/name.")
    text = render(repo, label, workers)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    typer.echo(f"Wrote {config} for {repo}.")
    if shutil.which("claude") is None:
        typer.echo(
            "The program claude is not on PATH yet: install it, or change the provider's command_template."
        )
    typer.echo("Next: export GITHUB_TOKEN=…, then `coordinator doctor` and `coordinator run`.")


def render(repo: str, label: str, workers: int) -> str:
    """The file's text; it is parsed before it is written, so that `init` never writes what `run` refuses."""
    from adw_modules.config import parse_settings

    owner, name = repo.split("/", 1)
    safe_label = label.replace("\\", "\\\\").replace('"', '\\"')
    text = TEMPLATE.format(owner=owner, name=name, label=safe_label, workers=workers)
    parse_settings(text, source="the new configuration")
    return text


def _remote_repository() -> str | None:
    """owner/name of the git remote of the current folder, if it is on GitHub."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run([git, "remote", "get-url", "origin"], capture_output=True, text=True, check=False)
    match = _REMOTE.search(result.stdout.strip())
    return match["repo"] if match else None
