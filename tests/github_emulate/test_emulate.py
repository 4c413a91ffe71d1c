"""The adapter against `emulate`, a GitHub server that nobody here wrote.

It is not GitHub: no ETag, no events for labels given at creation, permission words of its own, and a
permission only for collaborators. What it shows is that the adapter does not lean on our own server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adw_modules.errors import GitHubRefused
from adw_modules.tasks.model import IssueSnapshot
from coordinator.github import GitHub, IssueGone, Listing

pytestmark = pytest.mark.github

HERE = Path(__file__).resolve().parent
EMULATE = HERE.parent / "npm" / "node_modules" / "emulate" / "dist" / "index.js"
REPO, LABEL, BRANCH = "admin/shop", "rpi-auto", "auto/gh-1"
MARKER = "<!-- coordinator:gh-1 -->"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SEED = """
tokens:
  tok_admin: {login: admin, scopes: [repo, user]}
  tok_bot: {login: bot, scopes: [repo, user]}
github:
  users: [{login: admin}, {login: bot}, {login: mallory}]
  repos:
    - {owner: admin, name: shop, auto_init: true}
"""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    """One request as the human `admin`, without the adapter."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "token tok_admin", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read() or b"null")


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(url, "GET", f"/repos/{REPO}")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"emulate did not answer; exit code {process.poll()}")


@pytest.fixture(scope="module")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a fresh server."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node: install it, then run `npm ci --prefix tests/npm`")
    if not EMULATE.is_file():
        pytest.skip("needs emulate: run `npm ci --prefix tests/npm`")
    seed = tmp_path_factory.mktemp("emulate") / "seed.yaml"
    seed.write_text(SEED)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--service", "github", "--port", str(port), "--seed", str(seed), "--base-url", url]
    command = [node, "--require", str(HERE / "loopback.cjs"), str(EMULATE), "start", *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(process, url)
            yield url
        finally:
            process.kill()


@pytest.fixture
def github(emulate: str) -> Iterator[GitHub]:
    client = GitHub(api_url=emulate, token="tok_bot", writes_per_minute=0, now=lambda: NOW)
    yield client
    client.close()


def open_issue(emulate: str, title: str, label: str | None = LABEL) -> int:
    """As a human does: open the issue, then put the label on."""
    number = ask(emulate, "POST", f"/repos/{REPO}/issues", {"title": title, "body": "Please."})["number"]
    if label is not None:
        ask(emulate, "POST", f"/repos/{REPO}/issues/{number}/labels", {"labels": [label]})
    return int(number)


def push_branch(emulate: str) -> None:
    main = ask(emulate, "GET", f"/repos/{REPO}/git/ref/heads/main")["object"]["sha"]
    ask(emulate, "POST", f"/repos/{REPO}/git/refs", {"ref": f"refs/heads/{BRANCH}", "sha": main})
    change = {"message": "Work", "content": "aGVsbG8=", "branch": BRANCH}
    ask(emulate, "PUT", f"/repos/{REPO}/contents/work.txt", change)


def test_the_server_can_only_be_reached_from_this_machine(emulate: str) -> None:
    port = f":{int(emulate.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [
        line.split() for table in tables if table.is_file() for line in table.read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert listening == [f"0100007F{port}"]


def test_a_labelled_issue_goes_from_the_list_to_a_draft_pull_request(emulate: str, github: GitHub) -> None:
    number = open_issue(emulate, "Add a greeting")
    open_issue(emulate, "Not for us", label=None)
    ask(emulate, "PUT", f"/repos/{REPO}/collaborators/mallory", {"permission": "pull"})

    async def story() -> None:
        listing = await github.poll(REPO, LABEL)
        assert isinstance(listing, Listing)
        assert [(each.number, each.title, each.author) for each in listing.issues] == [
            (number, "Add a greeting", "admin")
        ]
        assert isinstance(await github.poll(REPO, LABEL), Listing)  # no ETag: every answer is news

        trigger = await github.trigger(REPO, number, LABEL)
        assert trigger is not None
        assert (trigger.trigger.actor, trigger.actor_kind, trigger.by_app) == ("admin", "User", False)
        assert (await github.permission(REPO, "admin")).permission == "admin"
        assert (await github.permission(REPO, "mallory")).permission == "read"
        assert (await github.permission(REPO, "stranger")).permission == "none"

        assert (await github.whoami()).login == "bot"
        assert await github.find_comment(REPO, number, MARKER) is None
        comment = await github.create_comment(REPO, number, f"{MARKER}\nstarted")
        assert await github.find_comment(REPO, number, MARKER) == comment
        assert await github.edit_comment(REPO, comment, f"{MARKER}\ndone") is True

        await github.set_status_label(REPO, number, "coordinator:", "coordinator:running", ())
        await github.set_status_label(REPO, number, "coordinator:", "coordinator:done", ())
        found = await github.issue(REPO, number)
        assert isinstance(found, IssueSnapshot)
        assert sorted(found.labels) == ["coordinator:done", LABEL]

        push_branch(emulate)
        base = await github.default_branch(REPO)
        assert await github.find_pull(REPO, BRANCH) is None
        pull = await github.create_pull(
            REPO, branch=BRANCH, base=base, title="Add a greeting", body="Fixes #1"
        )
        assert (pull.state, pull.draft) == ("open", True)
        assert await github.find_pull(REPO, BRANCH) == pull

    asyncio.run(story())
    comments = ask(emulate, "GET", f"/repos/{REPO}/issues/{number}/comments")
    assert [(each["user"]["login"], each["body"]) for each in comments] == [("bot", f"{MARKER}\ndone")]


def test_a_label_that_is_taken_off_or_an_issue_that_is_closed_leaves_the_list(
    emulate: str, github: GitHub
) -> None:
    number, other = open_issue(emulate, "One", "passing"), open_issue(emulate, "Two", "passing")

    async def listed() -> set[int]:
        listing = await github.poll(REPO, "passing")
        assert isinstance(listing, Listing)
        return {each.number for each in listing.issues}

    async def story() -> None:
        assert {number, other} == await listed()
        ask(emulate, "DELETE", f"/repos/{REPO}/issues/{number}/labels/passing")
        ask(emulate, "PATCH", f"/repos/{REPO}/issues/{other}", {"state": "closed"})
        assert await listed() == set()
        assert await github.trigger(REPO, number, "passing") is None
        closed = await github.issue(REPO, other)
        assert isinstance(closed, IssueSnapshot)
        assert closed.state == "closed"
        assert await github.issue(REPO, 9999) == IssueGone(reason="not found")
        with pytest.raises(GitHubRefused):
            await github.poll("admin/nothing", LABEL)

    asyncio.run(story())


def test_a_list_of_several_pages_is_complete(emulate: str, github: GitHub) -> None:
    numbers = {open_issue(emulate, f"Many {n}", label="many") for n in range(120)}
    listing = asyncio.run(github.poll(REPO, "many"))
    assert isinstance(listing, Listing)
    assert {each.number for each in listing.issues} == numbers


def test_the_ledger_follows_the_servers_own_figures(emulate: str, github: GitHub) -> None:
    asyncio.run(github.whoami())
    (quota,) = github.ledger.quotas
    assert (quota.resource, quota.limit) == ("core", 5000)
    assert 0 < quota.remaining < 5000
