"""Rule 9: branches and files are named after numbers; no name of a repository or account leads elsewhere."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import BOT, REPO, TOKEN, WRITE, World

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError, GitHubUnavailable, WorkspaceError
from adw_modules.security.names import is_full_name, is_login
from coordinator.clock import utc_now
from coordinator.demo.server import Fault, GitHubServer
from coordinator.github import GitHub
from coordinator.workspaces import Workspaces
from coordinator.workspaces.places import Mirror
from tests.builders import a_task

ELSEWHERE = [
    "o/r/../../user", "../r", "o/..", "o/.", "o/a..b", "o", "o/", "/r", "o//r", "o/r/s", "-x/r",
    ".o/r", "o/r.git",
    "o/r.GIT",
    "ο/r", "o/rеpo", "o/r\u200b", "o/r\n", "o/r\x00", "o/r?x", "o/r#x", "o/r%2e%2e", "o/r\\s",
    "o /r", "o/r ",
    "o/$(x)", "o/`x`",
    "o@h:o/r", "https://h/o/r", "o/" + "r" * 101, "",
]  # fmt: skip
USUAL = ["octo/hello", "o/r", "octo/hello.world", "octo/.github", "octo/-x", "octo/r.", "a_corp/r_1", "o-1/A"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused_wherever_it_comes_from(tmp_path: Path, name: str) -> None:
    assert not is_full_name(name)
    with pytest.raises(ConfigError):
        parse_settings(watching(name), source="config.toml")
    with pytest.raises(WorkspaceError):
        workspaces(tmp_path).ensure_mirror(name, str(tmp_path / "x"), None, now=utc_now())


def watching(name: str) -> str:
    owner, _, rest = name.partition("/")
    return f"[[repositories]]\nowner = {toml(owner)}\nname = {toml(rest)}\n"


def workspaces(folder: Path) -> Workspaces:
    places = {f"{name}_dir": folder / name for name in ("repos", "trees", "quarantine")}
    return Workspaces(**places, git_user=("a", "a@b.c"), environ={})


def toml(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_name_is_taken(name: str) -> None:
    assert is_full_name(name)
    parse_settings(watching(name), source="config.toml")


@pytest.fixture
def server(tmp_path: Path):
    server = GitHubServer(git_root=tmp_path / "github", clock=utc_now)
    server.start()
    server.add_repo(REPO)
    server.add_token(TOKEN, BOT)
    yield server
    server.stop()


def ask(server: GitHubServer, question) -> object:
    async def asking() -> object:
        github = GitHub(api_url=server.api_url, token=TOKEN, now=utc_now)
        try:
            return await question(github)
        finally:
            github.close()

    return asyncio.run(asking())


@pytest.mark.parametrize(
    "name", ["octo/hello/../../user", "../user", "octo/..", "octo/hello?x=", "octo/he\u200bllo"]
)
def test_a_name_that_github_says_is_not_asked_for_unless_it_is_one(server: GitHubServer, name: str) -> None:
    body: dict[str, object] = {"id": 1, "full_name": name, "default_branch": "main"}
    server.faults.add(Fault(match=f"GET /repos/{REPO}", status=200, body=body, times=None))
    with pytest.raises(GitHubUnavailable, match="full_name"):
        ask(server, lambda github: github.poll(REPO, "rpi-auto"))
    assert [request.path for request in server.requests] == [f"/repos/{REPO}"]


@pytest.mark.parametrize("login", ["..", "../../user", "a/b", "a?b", "", "a\n", "а", "a" * 101, "[bot]"])
def test_whoever_has_no_possible_login_may_do_nothing_and_is_not_asked_about(server, login: str) -> None:
    assert not is_login(login)
    assert ask(server, lambda github: github.permission(REPO, login)).permission == "none"
    assert not server.requests


@pytest.mark.parametrize("name", ["o/r/../../user/gh-1", "../gh-1", "gh-1/..", "gh 1", "gh-1\n", ".", ""])
def test_a_workspace_is_never_outside_its_place(tmp_path: Path, name: str) -> None:
    mirror = Mirror(path=tmp_path / "repos" / "octo" / "hello.git", repo=REPO, remote_url="/x")
    with pytest.raises(WorkspaceError, match="cannot be the name of a workspace"):
        workspaces(tmp_path).prepare(mirror, name, "auto/gh-1", default_branch=None, auth=None, now=utc_now())


@given(number=st.integers(min_value=1), title=st.text(), repo=st.sampled_from(USUAL))
def test_a_branch_is_named_after_the_number_alone(number: int, title: str, repo: str) -> None:
    task = a_task(issue_number=number, title=title, snapshot_title=title, repo=repo)
    assert re.fullmatch(r"auto/gh-[0-9]+", task.branch)
    assert task.branch == f"auto/gh-{number}"


def test_what_an_issue_is_called_names_no_file(world: World) -> None:
    number = world.issue(WRITE, title="../../zqxname")
    world.start()
    world.until_state(number, "succeeded")
    assert not list(world.folder.rglob("*zqxname*"))
    assert {path.name.split(".")[0] for path in (world.state_dir / "runs").iterdir()} == {f"gh-{number}"}
