"""`coordinator init`: write a first configuration, by asking or (with --yes) from the options alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from adw_modules.errors import CoordinatorError
from coordinator.cli.common import DEFAULT_CONFIG

_REPO = re.compile(r"(?!-)[A-Za-z0-9-]{1,39}(?<!-)/(?!\.{1,2}$)[\w.-]{1,100}", re.ASCII)
_REMOTE = re.compile(r"github\.com[:/](?P<repo>[\w-]+/[\w.-]+?)(?:\.git)?/?$")

TEMPLATE = """\
# Coordinator's configuration. Every key: adws/config.example.toml and docs/configuration.md.
# Changes take effect while the daemon runs; a broken file is reported and the last good one stays in force.

[coordinator]
max_concurrent_workers = {workers}
poll_interval_seconds = 30
worker_timeout_hours = 2

[github]
repo_owner = {owner}
repo_name = {name}
issue_label = {label}
# The token itself never stands in a file: export GITHUB_TOKEN (contents, issues, pull requests: write).
"""

# One text for each agent program that the packaged templates know; the prompt reaches it on standard input.
PROVIDERS = {
    "claude": """
# The prompt reaches the agent on standard input.
[providers.claude-cli]
enabled = true
command_template = [
    "claude", "-p",
    "--model", "{model}",
    "--output-format", "stream-json",
    "--verbose",
    "--dangerously-skip-permissions",
]
pass_env = ["ANTHROPIC_API_KEY"]
""",
    "codex": """
# Command and environment are the program's own: docs/agents.md.
[providers.codex-cli]
enabled = true
agent = "codex"
pass_env = ["CODEX_API_KEY"]
""",
    "gemini": """
# Command and environment are the program's own: docs/agents.md.
[providers.gemini-cli]
enabled = true
agent = "gemini"
pass_env = ["GEMINI_API_KEY"]
""",
}

ROUTING = """
[llm]
provider = "claude-cli"
model_default = "claude-sonnet-4-5"

[routing]
enabled = true

# First match wins; a higher priority is looked at first.
[[routing.rules]]
name = "critical-issues-opus"
priority = 100
conditions = { priority = "critical" }
provider = "claude-cli"
model = "claude-opus-4"

[[routing.rules]]
name = "docs-haiku"
priority = 60
conditions = { labels = ["documentation", "docs"] }
provider = "claude-cli"
model = "claude-haiku-4"

# US dollars for a million tokens; compare them with your contract. What a model costs that has no price here
# is unknown, and shown so: add the others that you use.
[[models]]
name = "claude-sonnet-4-5"
provider = "claude-cli"
cost_per_million_input = 3.0
cost_per_million_output = 15.0
cost_per_million_cache_read = 0.30
cost_per_million_cache_write = 3.75
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a first configuration has to know."""

    repo: str
    label: str
    workers: int
    programs: tuple[str, ...]  # of PROVIDERS, those to enable


def register(app: typer.Typer) -> None:
    app.command()(init)


def init(  # noqa: PLR0917  # typer gives options by name
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
    if os.path.lexists(config) and not force:
        raise CoordinatorError(
            f"{config} exists already; nothing was written. Go to the folder of your own repository, "
            "or use --force to replace the file."
        )
    found = tuple(program for program in PROVIDERS if shutil.which(program))
    repo = repo or _remote_repository()
    if yes:
        answers = Answers(repo=_checked(repo), label=label, workers=workers, programs=found)
    else:
        answers = _ask(repo, label, workers, found)
    _write(config, render(answers))
    typer.echo(f"Wrote {config} for {answers.repo}.")
    if "claude" not in answers.programs:
        typer.echo(
            "Without the program claude nothing can run yet: install it, or give [llm] another provider."
        )
    typer.echo("Next: export GITHUB_TOKEN=…, then `coordinator doctor` and `coordinator run`.")


def _ask(repo: str | None, label: str, workers: int, found: tuple[str, ...]) -> Answers:
    try:
        return Answers(
            repo=_checked(typer.prompt("Repository (owner/name)", default=repo)),
            label=typer.prompt("Label that hands an issue to Coordinator", default=label),
            workers=typer.prompt("How many agents may work at once", default=workers, type=int),
            programs=tuple(
                each for each in found if typer.confirm(f"Use {each}, which is on PATH", default=True)
            ),
        )
    except typer.Abort:  # the end of the input, not Ctrl-C
        typer.echo("")
        raise CoordinatorError("There was no answer; use --yes to take the options and defaults.") from None


def _checked(repo: str | None) -> str:
    if repo is None or not _REPO.fullmatch(repo):
        raise CoordinatorError(
            f"{repo!r} is not a repository; give it as --repo owner/name."
            if repo
            else "No repository is known here; give it as --repo owner/name."
        )
    return repo


def render(answers: Answers) -> str:
    """The file's text; it is parsed before it is written, so that `init` never writes what `run` refuses."""
    from adw_modules.config import parse_settings

    owner, name = answers.repo.split("/", 1)
    text = TEMPLATE.format(
        workers=answers.workers, owner=_toml(owner), name=_toml(name), label=_toml(answers.label)
    )
    wanted = {"claude", *answers.programs}  # the default provider stands there even before it is installed
    for program, provider in PROVIDERS.items():
        if program in wanted:
            text += provider
    text += ROUTING
    parse_settings(text, source="the new configuration")
    return text


def _toml(text: str) -> str:
    """A TOML string: the escapes that JSON needs are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _write(config: Path, text: str) -> None:
    """All or nothing: a full disk leaves the old file, or none."""
    temporary = config.with_name(f".{config.name}.new")
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(config)
    except (OSError, UnicodeEncodeError) as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, UnicodeEncodeError):  # bytes of the command line that are no text
            raise CoordinatorError("An option is not UTF-8 text; nothing was written.") from error
        raise CoordinatorError(f"{config} cannot be written: {error.strerror}.") from error


def _remote_repository() -> str | None:
    """owner/name of the git remote of the current folder, if it is on GitHub."""
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run([git, "remote", "get-url", "origin"], capture_output=True, text=True, check=False)
    match = _REMOTE.search(result.stdout.strip())
    return match["repo"] if match else None
