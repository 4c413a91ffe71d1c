"""The GitHub-like server as a process of its own, so that it does not share the daemon's interpreter.

Talks lines of JSON: {"add": N} makes N labelled issues and answers when the first listing that holds them
was asked for; {"hook": URL, "secret": S} delivers from then on; {"wait": N} answers when N pull requests exist and every issue carries a final status label.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from coordinator.demo.server import GitHubServer

REPO = "bench/repo"
LIST = "GET /repos/bench/repo/issues"
FINAL = {"coordinator:done", "coordinator:failed"}


def main() -> None:
    with GitHubServer(git_root=Path(sys.argv[1])) as server:
        server.add_repo(REPO, files={f"src/file{n}.py": f"print({n})\n" for n in range(40)})
        for login in ("bench-bot", "ada"):
            server.set_permission(REPO, login, "write")
        server.add_token(sys.argv[2], "bench-bot")
        say({"api_url": server.api_url, "git_url": server.git_url(REPO)})
        for line in sys.stdin:
            say(answer(server, json.loads(line)))


def answer(server: GitHubServer, order: dict[str, Any]) -> dict[str, Any]:
    if "hook" in order:
        server.add_webhook(str(order["hook"]), str(order["secret"]))
        return {}
    if "add" in order:
        return add(server, order["add"])
    began = time.monotonic()
    done = server.wait_for(lambda: finished(server, order["wait"]), timeout=60)
    return {"done": done, "seconds": time.monotonic() - began, "at": time.time()}


def add(server: GitHubServer, count: int) -> dict[str, Any]:
    """Make the issues; when the first listing that shows all of them arrived (unix seconds)."""
    labelled_at = time.time()
    numbers = [
        server.add_issue(REPO, title=f"Issue {n}", body="Add a line.", labels=["rpi-auto"], labelled_by="ada")
        for n in range(count)
    ]
    visible = time.monotonic()

    def listed() -> list[Any]:
        return [r for r in server.requests_matching(LIST) if r.at > visible and r.status == 200]

    assert server.wait_for(lambda: bool(listed()), timeout=60)
    at = listed()[0].at
    listed_at = at + (time.time() - time.monotonic())
    return {"numbers": numbers, "labelled_at": labelled_at, "listed_at": listed_at}


def finished(server: GitHubServer, count: int) -> bool:
    if len(server.pulls(REPO)) < count:
        return False
    issues = [server.issue(REPO, pull_fixes(pull.body)) for pull in server.pulls(REPO)]
    return all(FINAL & set(issue.labels) and "coordinator:running" not in issue.labels for issue in issues)


def pull_fixes(body: str | None) -> int:
    return int((body or "").split("Fixes #")[1].split()[0])


def say(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)


if __name__ == "__main__":
    main()
