"""`emulate`, a GitHub server that nobody here wrote: how it is started, and a human who uses it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "npm" / "node_modules" / "emulate" / "dist" / "index.js"
SEED = """
tokens:
  tok_admin: {login: admin, scopes: [repo, user]}
  tok_bot: {login: bot, scopes: [repo, user]}
  tok_mallory: {login: mallory, scopes: [public_repo]}
github:
  users: [{login: admin}, {login: bot}, {login: mallory}]
  repos:
    - {owner: admin, name: shop, auto_init: true}
"""


@dataclass(frozen=True, slots=True)
class Emulate:
    """The running server, with the repository `repo` of the human `admin`."""

    url: str
    repo: str = "admin/shop"

    def ask(self, method: str, path: str, body: Any = None, *, by: str = "admin") -> Any:
        """One request as that person, without any code of ours."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token tok_{by}", "Content-Type": "application/json"}
        address = f"{self.url}/repos/{self.repo}{path}"
        request = urllib.request.Request(address, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def open_issue(
        self, title: str, *, label: str | None, body: str = "Please.", labelled_by: str = "admin"
    ) -> int:
        """As a human does: open the issue, then put the label on."""
        number = int(self.ask("POST", "/issues", {"title": title, "body": body})["number"])
        if label is not None:
            self.ask("POST", f"/issues/{number}/labels", {"labels": [label]}, by=labelled_by)
        return number

    def close_issue(self, number: int) -> None:
        self.ask("PATCH", f"/issues/{number}", {"state": "closed"})

    def labels(self, number: int) -> set[str]:
        return {label["name"] for label in self.ask("GET", f"/issues/{number}")["labels"]}

    def comments(self, number: int) -> list[Any]:
        found: list[Any] = self.ask("GET", f"/issues/{number}/comments")
        return found

    def pulls(self, branch: str) -> list[Any]:
        """All pull requests of the branch, closed ones too. The filter is ours, not the server's."""
        everything = self.ask("GET", "/pulls?state=all&per_page=100")
        return [pull for pull in everything if pull["head"]["ref"] == branch]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], server: Emulate) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.ask("GET", "")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"emulate did not answer; exit code {process.poll()}")


@contextmanager
def running(folder: Path, node: str) -> Iterator[Emulate]:
    """A fresh server, whose seed file is written into `folder`."""
    seed = folder / "seed.yaml"
    seed.write_text(SEED)
    port = _free_port()
    server = Emulate(f"http://127.0.0.1:{port}")
    options = ["--service", "github", "--port", str(port), "--seed", str(seed), "--base-url", server.url]
    command = [node, "--require", str(HERE / "loopback.cjs"), str(PROGRAM), "start", *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(process, server)
            yield server
        finally:
            process.kill()
