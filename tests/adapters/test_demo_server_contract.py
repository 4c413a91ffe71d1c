"""Every kind of answer of the demo server fits GitHub's published OpenAPI description."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from openapi import contract

from coordinator.clock import utc_now
from coordinator.demo.routes import _ENDPOINTS
from coordinator.demo.server import GitHubServer

REPO = "octo/hello"
BASE = f"/repos/{REPO}"
_COUNT = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and the status GitHub gives it. `{comment}` in a path is the id of the scene's comment."""

    name: str
    method: str = "GET"
    path: str
    status: int = 200
    login: str | None = "octo"
    json: Any = None
    query: dict[str, str] = field(default_factory=dict)

    @property
    def is_still(self) -> bool:
        """True when the request changes nothing on the server."""
        return self.method == "GET" or self.status >= 300


def _case(name: str, request: str, status: int, json: Any = None, **more: Any) -> Case:
    """`request` is "METHOD /path" inside the repository; a path that begins with ! is absolute."""
    method, path = request.split(" ")
    whole = path[1:] if path.startswith("!") else BASE + path.rstrip("/")
    return Case(name=name, method=method, path=whole, status=status, json=json, **more)


CASES = [
    _case("own account", "GET !/user", 200),
    _case("own account without a token", "GET !/user", 401, login=None),
    _case("unknown token", "GET !/user", 401, login="nobody"),
    _case("rate limit", "GET !/rate_limit", 200),
    _case("repository", "GET /", 200),
    _case("repository without a token", "GET /", 200, login=None),
    _case("unknown repository", "GET !/repos/octo/nothing", 404),
    _case("renamed repository", "GET !/repos/octo/former", 301),
    _case("write to a renamed repository", "POST !/repos/octo/former/issues", 307, {"title": "x"}),
    _case("repository by number", "GET !/repositories/{repo}/issues", 200),
    _case("private repository of others", "GET !/repos/octo/secret", 404, login="reader"),
    _case("permission of the owner", "GET /collaborators/octo/permission", 200),
    _case("permission triage", "GET /collaborators/triager/permission", 200),
    _case("permission of an outsider", "GET !/repos/octo/secret/collaborators/reader/permission", 200),
    _case("permission of nobody", "GET /collaborators/ghost/permission", 404),
    _case("permission asked by a reader", "GET /collaborators/octo/permission", 403, login="reader"),
    _case("issues", "GET /issues", 200, query={"state": "all"}),
    _case("issues page", "GET /issues", 200, query={"state": "all", "per_page": "1", "page": "2"}),
    _case("issues in no known state", "GET /issues", 422, query={"state": "lost"}),
    _case("create issue", "POST /issues", 201, {"title": "New", "labels": ["x"]}),
    _case("create issue without title", "POST /issues", 422, {"body": "B"}),
    _case("create issue with a blank title", "POST /issues", 422, {"title": " "}),
    _case("create issue from a list", "POST /issues", 400, [1]),
    _case("create issue where they are off", "POST !/repos/octo/quiet/issues", 410, {"title": "x"}),
    _case("create issue without a token", "POST /issues", 401, {"title": "x"}, login=None),
    _case("create issue in an archive", "POST !/repos/octo/old/issues", 403, {"title": "x"}),
    _case("issue", "GET /issues/1", 200),
    _case("closed issue", "GET /issues/2", 200),
    _case("pull request as issue", "GET /issues/3", 200),
    _case("transferred issue", "GET /issues/4", 301),
    _case("deleted issue", "GET /issues/5", 410),
    _case("unknown issue", "GET /issues/99", 404),
    _case("edit issue", "PATCH /issues/1", 200, {"title": "T2", "body": "B2", "labels": ["a"]}),
    _case("close issue", "PATCH /issues/1", 200, {"state": "closed", "state_reason": "not_planned"}),
    _case("reopen issue", "PATCH /issues/2", 200, {"state": "open"}),
    _case("edit issue to no known state", "PATCH /issues/1", 422, {"state": "x"}),
    _case("edit issue of others", "PATCH /issues/1", 403, {"title": "x"}, login="reader"),
    _case("edit deleted issue", "PATCH /issues/5", 410, {"title": "x"}),
    _case("issue events", "GET /issues/1/events", 200),
    _case("events of a deleted issue", "GET /issues/5/events", 410),
    _case("comments", "GET /issues/1/comments", 200),
    _case("comments of an unknown issue", "GET /issues/99/comments", 404),
    _case("create comment", "POST /issues/1/comments", 201, {"body": "hi"}),
    _case("create comment without text", "POST /issues/1/comments", 422, {"body": " "}),
    _case("create comment that is too long", "POST /issues/1/comments", 422, {"body": "x" * 65_537}),
    _case("create comment on a locked issue", "POST /issues/6/comments", 403, {"body": "x"}, login="reader"),
    _case("comment", "GET /issues/comments/{comment}", 200),
    _case("unknown comment", "GET /issues/comments/1", 404),
    _case("edit comment", "PATCH /issues/comments/{comment}", 200, {"body": "hi 2"}),
    _case("edit comment of others", "PATCH /issues/comments/{comment}", 403, {"body": "x"}, login="reader"),
    _case("edit comment to nothing", "PATCH /issues/comments/{comment}", 422, {"body": ""}),
    _case("delete comment", "DELETE /issues/comments/{comment}", 204),
    _case("labels of the repository", "GET /labels", 200),
    _case("create label", "POST /labels", 201, {"name": "new", "color": "00ff00", "description": "d"}),
    _case("create label twice", "POST /labels", 422, {"name": "BUG"}),
    _case("create label in no colour", "POST /labels", 422, {"name": "n", "color": "green"}),
    _case("create label as a reader", "POST /labels", 403, {"name": "n"}, login="reader"),
    _case("label", "GET /labels/good%20first%20issue", 200),
    _case("unknown label", "GET /labels/none", 404),
    _case("labels of an issue", "GET /issues/1/labels", 200),
    _case("add labels", "POST /issues/1/labels", 200, {"labels": ["bug", "brand new"]}),
    _case("add labels as a bare list", "POST /issues/1/labels", 200, ["bug"]),
    _case("add label that is too long", "POST /issues/1/labels", 422, ["x" * 51]),
    _case("add label that is no text", "POST /issues/1/labels", 422, {"labels": [1]}),
    _case("add labels to an unknown issue", "POST /issues/99/labels", 404, ["bug"]),
    _case("remove label", "DELETE /issues/1/labels/RPI-auto", 200),
    _case("remove absent label", "DELETE /issues/1/labels/bug", 404),
    _case(
        "pull requests", "GET /pulls", 200, query={"state": "all", "head": "octo:auto/gh-1", "base": "main"}
    ),
    _case("pull requests in no known state", "GET /pulls", 422, query={"state": "lost"}),
    _case("pull request", "GET /pulls/3", 200),
    _case("unknown pull request", "GET /pulls/1", 404),
    _case(
        "create pull request",
        "POST /pulls",
        201,
        {"title": "t", "head": "auto/gh-2", "base": "main", "draft": True},
    ),
    _case(
        "create pull request twice",
        "POST /pulls",
        422,
        {"title": "t", "head": "octo:auto/gh-1", "base": "main"},
    ),
    _case(
        "create pull request of nothing", "POST /pulls", 422, {"title": "t", "head": "main", "base": "main"}
    ),
    _case(
        "create pull request of no branch", "POST /pulls", 422, {"title": "t", "head": "none", "base": "main"}
    ),
    _case(
        "create pull request of a fork", "POST /pulls", 422, {"title": "t", "head": "eve:x", "base": "main"}
    ),
    _case(
        "create pull request as a reader",
        "POST /pulls",
        403,
        {"title": "t", "head": "auto/gh-2", "base": "main"},
        login="reader",
    ),
    _case("edit pull request", "PATCH /pulls/3", 200, {"title": "t2", "body": "b2"}),
    _case("close pull request", "PATCH /pulls/3", 200, {"state": "closed"}),
    _case("git ref", "GET /git/ref/heads/auto/gh-1", 200),
    _case("unknown git ref", "GET /git/ref/heads/none", 404),
    _case("branch", "GET /branches/auto/gh-1", 200),
    _case("unknown branch", "GET /branches/none", 404),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    server: GitHubServer
    names: dict[str, int]


@pytest.fixture(scope="module")
def still_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """For requests that change nothing."""
    with GitHubServer(git_root=tmp_path_factory.mktemp("git")) as server:
        yield _set(server)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """For requests that change something."""
    with GitHubServer(git_root=tmp_path) as server:
        yield _set(server)


def _set(server: GitHubServer) -> Scene:
    repo = server.add_repo("octo/former", private=False)
    server.rename_repo("octo/former", REPO)
    for name in ("octo/quiet", "octo/old"):
        server.add_repo(name, private=False)
    server.add_repo("octo/secret", private=True)
    server.disable_issues("octo/quiet")
    server.archive_repo("octo/old")
    for login in ("octo", "triager", "reader"):
        server.add_token(f"token-of-{login}", login)
    server.set_permission(REPO, "triager", "triage")
    return Scene(server=server, names={"repo": repo, "comment": _write_issues(server)})


def _write_issues(server: GitHubServer) -> int:
    """One of each kind: open, closed, pull request, transferred, deleted, locked. Gives a comment's id."""
    first = server.add_issue(REPO, title="Open", body="text", labels=["rpi-auto", "documentation"])
    server.add_label(REPO, first, "by-app", actor="octo", via_app="some-app")
    server.remove_label(REPO, first, "by-app")
    server.close_issue(REPO, server.add_issue(REPO, title="Closed", body=None))
    for number in (1, 2):
        server.push_branch(REPO, f"auto/gh-{number}", {f"{number}.txt": "x\n"})
    server.add_pull(REPO, head="auto/gh-1", title="Pull", body="Fixes #1", author="octo")
    server.transfer_issue(REPO, server.add_issue(REPO, title="Moved"), "octo/secret")
    server.delete_issue(REPO, server.add_issue(REPO, title="Deleted"))
    server.lock_issue(REPO, server.add_issue(REPO, title="Locked"))
    return server.add_comment(REPO, first, "hello", author="octo")


def _ask(scene: Scene, case: Case) -> httpx.Response:
    headers = {"Authorization": f"Bearer token-of-{case.login}"} if case.login else {}
    # Plain HTTP on loopback: loading the certificates would cost more than the test.
    with httpx.Client(
        base_url=scene.server.api_url, headers=headers, trust_env=False, verify=False
    ) as client:
        return client.request(case.method, case.path.format(**scene.names), params=case.query, json=case.json)


def _check(scene: Scene, case: Case) -> None:
    answer = _ask(scene, case)
    body = answer.json() if answer.content else None
    assert answer.status_code == case.status, answer.text
    assert contract().problems(case.method, case.path.format(**scene.names), answer.status_code, body) == []


@pytest.mark.parametrize("case", [case for case in CASES if case.is_still], ids=lambda case: case.name)
def test_an_answer_that_changes_nothing_has_githubs_status_and_shape(still_scene, case):
    _check(still_scene, case)


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_still], ids=lambda case: case.name)
def test_the_answer_to_a_write_has_githubs_status_and_shape(scene, case):
    _check(scene, case)


def test_every_endpoint_of_the_server_is_checked_with_a_success():
    good = [(case.method, case.path) for case in CASES if case.status < 300 and case.path.startswith(BASE)]
    unchecked = [
        f"{method} {pattern.pattern}"
        for method, pattern, _endpoint in _ENDPOINTS
        if not any(
            verb == method and pattern.fullmatch(path.removeprefix(BASE).format(comment=1))
            for verb, path in good
        )
    ]
    assert unchecked == []


def test_the_contract_notices_a_wrong_answer(still_scene):
    answer = _ask(still_scene, Case(name="", path=f"{BASE}/issues/1")).json()
    assert contract().problems("GET", f"{BASE}/issues/1", 200, answer | {"title": None}) != []
    assert (
        contract().problems("GET", f"{BASE}/issues/1", 200, {k: v for k, v in answer.items() if k != "user"})
        != []
    )
    assert contract().problems("GET", f"{BASE}/issues/1", 404, {"error": "x"}) != []
    assert contract().problems("GET", f"{BASE}/nothing", 200, {}) != []


@pytest.mark.parametrize("kind", ["labeled", "unlabeled", "closed", "reopened"])
def test_each_kind_of_event_has_githubs_shape(scene, kind):
    number = 1
    scene.server.close_issue(REPO, number)
    scene.server.reopen_issue(REPO, number)
    events = _ask(scene, Case(name="", path=f"{BASE}/issues/{number}/events")).json()
    chosen = [event for event in events if event["event"] == kind]
    assert chosen
    assert contract().problems("GET", f"{BASE}/issues/{number}/events", 200, chosen) == []


def test_the_limit_answers_have_githubs_shape(scene):
    scene.server.set_rate_limit("octo", remaining=0)
    answer = _ask(scene, Case(name="", path=f"{BASE}/issues"))
    assert answer.status_code == 403
    assert contract().problems("GET", f"{BASE}/issues", 403, answer.json()) == []


# GitHub Apps


@pytest.fixture(scope="module")
def signing_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def app(still_scene, signing_key):
    """(headers with a signature of a new App, its installation on REPO)."""
    public = signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    view = still_scene.server.add_app(
        f"app-{next(_COUNT)}",
        public_key=public.decode(),
        permissions={"issues": "write", "metadata": "read"},
    )
    now = int(utc_now().timestamp())
    signed = jwt.encode({"iat": now - 60, "exp": now + 500, "iss": str(view.id)}, signing_key, "RS256")
    slug = view.bot.removesuffix("[bot]")
    return {"Authorization": f"Bearer {signed}"}, still_scene.server.install_app(slug, "octo", [REPO])


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /app", 200),
        (f"GET {BASE}/installation", 200),
        ("GET /app/installations/{number}", 200),
        ("GET /app/installations/1", 404),
        ("POST /app/installations/{number}/access_tokens", 201),
    ],
)
def test_what_an_app_asks_in_its_own_name_has_githubs_status_and_shape(
    still_scene, app, request_line, status
):
    headers, number = app
    method, path = request_line.format(number=number).split(" ")
    with httpx.Client(
        base_url=still_scene.server.api_url, headers=headers, trust_env=False, verify=False
    ) as client:
        answer = client.request(method, path, json={"repositories": ["hello"]} if status == 201 else None)
    assert answer.status_code == status, answer.text
    assert contract().problems(method, path, status, answer.json()) == []


def test_an_account_has_githubs_shape(still_scene):
    answer = _ask(still_scene, Case(name="", path="/users/octo"))
    assert contract().problems("GET", "/users/octo", 200, answer.json()) == []
