"""`init`: by asking on a terminal and from options alone; what it writes can be used."""

from __future__ import annotations

import os
import pty
import select
import time
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import Answer, run

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError, CoordinatorError
from adw_modules.money.pricing import price
from adw_modules.tasks.model import ModelUsage, Usage, UsageSource
from coordinator.cli.init import Answers, _checked, render
from tests.forked import Command

LABELS = ['say "hello"', "back\\slash", "emoji 🤖 and ü", "#not-a-comment", "[brackets]", "a'b"]


def init(folder: Path, *arguments: str, path: str | None = None) -> Answer:
    env = os.environ | ({"PATH": path} if path is not None else {}) | {"GIT_CEILING_DIRECTORIES": str(folder)}
    return run("init", *arguments, env=env, cwd=folder)


def test_what_init_writes_can_be_used_and_offers_the_agents_on_path(tmp_path: Path) -> None:
    for program in ("claude", "codex"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    written = init(tmp_path, "--yes", "--repo", "octo/hello.py", path=f"{tmp_path}:{os.environ['PATH']}")
    assert written.code == 0
    config = tmp_path / "adws" / "config.toml"
    data = tomllib.loads(config.read_text())
    assert (data["github"]["repo_owner"], data["github"]["repo_name"]) == ("octo", "hello.py")
    assert set(data["providers"]) >= {"claude-cli", "codex-cli"}
    assert config.stat().st_mode & 0o133 == 0  # nobody else may write it, nobody may execute it
    assert [path.name for path in config.parent.iterdir()] == ["config.toml"]
    checked = run("check", "--config", str(config), env=os.environ | {"GITHUB_TOKEN": "t"})
    assert checked.code == 0, checked.err


def test_the_default_model_has_its_price_and_the_others_none() -> None:
    text = render(Answers(repo="octo/hello", label="do it", workers=2, programs=()))
    settings = parse_settings(text, source="config.toml")
    used = ModelUsage(input=10**6, output=10**6, cache_read=10**6, cache_write_5m=10**6)

    def cost(model: str) -> Decimal | None:
        usage = Usage(source=UsageSource.REPORTED, by_model={model: used})
        return price(usage, settings.models, at=datetime(2026, 11, 21, tzinfo=UTC)).usd

    assert cost(settings.llm.model_default) == Decimal("0.30") + 3 + 15 + Decimal("3.75")
    assert {cost(rule.model) for rule in settings.routing.rules} == {None}


def test_init_never_overwrites_unless_told_to(tmp_path: Path) -> None:
    config = tmp_path / "adws" / "config.toml"
    config.parent.mkdir()
    config.write_text("# mine\n")
    refused = init(tmp_path, "--yes", "--repo", "octo/hello")
    assert refused.code == 1
    assert "exists already; nothing was written. Go to the folder of your own repository" in refused.err
    assert config.read_text() == "# mine\n"
    assert init(tmp_path, "--yes", "--repo", "octo/hello", "--force").code == 0
    assert "octo" in config.read_text()


@pytest.mark.parametrize(
    "repo", ["hello", "octo/", "octo/hello/more", "-octo/hello", "octo/he llo", 'o/"', "octo/.."]
)
def test_a_bad_repository_name_is_one_sentence(repo: str) -> None:
    with pytest.raises(CoordinatorError, match="is not a repository"):
        _checked(repo)


def test_a_bad_repository_name_writes_nothing(tmp_path: Path) -> None:
    refused = init(tmp_path, "--yes", "--repo", "octo/hello/more")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", LABELS)
def test_any_label_arrives_in_the_file_as_it_was_given(label: str) -> None:
    text = render(Answers(repo="octo/hello", label=label, workers=2, programs=()))
    assert tomllib.loads(text)["github"]["issue_label"] == label


@pytest.mark.parametrize("label", ["two\nlines", "", 'x"\nrepo_owner = "evil', "bell\x07", "\x7f"])
def test_a_label_that_cannot_be_one_is_refused(label: str) -> None:
    with pytest.raises(ConfigError):
        render(Answers(repo="octo/hello", label=label, workers=2, programs=()))


def test_a_refused_label_is_78_and_writes_nothing(tmp_path: Path) -> None:
    refused = init(tmp_path, "--yes", "--repo", "octo/hello", "--label", "two\nlines")
    assert refused.code == 78
    assert "github.issue_label" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_without_answers_init_says_so(tmp_path: Path) -> None:
    answer = init(tmp_path, "--repo", "octo/hello")
    assert answer.code == 1
    assert "use --yes" in answer.err
    assert not (tmp_path / "adws").exists()


def test_init_asks_on_a_terminal_and_takes_the_answers(tmp_path: Path) -> None:
    (tmp_path / "claude").write_text("#!/bin/sh\n")
    (tmp_path / "claude").chmod(0o755)
    terminal, theirs = pty.openpty()
    asking = Command(
        ["init"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, start_new_session=True,
        env=os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tmp_path)},
    )  # fmt: skip
    os.close(theirs)
    for question, answer in (
        ("Repository", "octo/hello"),
        ("Label", "do it"),
        ("How many", "many"),  # refused, and asked again
        ("integer", ""),
        ("Use claude", "y"),
    ):
        _read_until(terminal, question)
        os.write(terminal, f"{answer}\n".encode())
    _read_until(terminal, "Next:")
    assert asking.wait(timeout=10) == 0
    os.close(terminal)
    data = tomllib.loads((tmp_path / "adws" / "config.toml").read_text())
    assert data["github"]["issue_label"] == "do it"
    assert data["coordinator"]["max_concurrent_workers"] == 3


def _read_until(terminal: int, text: str) -> str:
    """What is printed up to and with `text`."""
    said, deadline = "", time.monotonic() + 20
    while text not in said:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, f"no {text!r} in {said!r}"
        said += os.read(terminal, 4096).decode()
    return said
