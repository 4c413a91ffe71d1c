"""A GitHub-compatible server on loopback, for the demo, the tests and the benches.

    with GitHubServer() as server:
        server.add_repo("octo/hello", files={"README.md": "# Hello\\n"})
        server.add_token("some-token", "octo")
        number = server.add_issue("octo/hello", title="Say hello", labels=["rpi-auto"])

Owns the socket, the threads, the one lock, the record of requests and the damage that faults do. What
GitHub answers is in `routes.py`, what it remembers in `forge.py`. Not for production: it trusts its caller.
"""

from __future__ import annotations

import base64
import email.utils
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from coordinator.clock import utc_now
from coordinator.demo import bare
from coordinator.demo.apps import Apps
from coordinator.demo.faults import Fault, FaultKind, Faults, secondary_limit
from coordinator.demo.forge import Event, Forge, Issue, Rejected, Repository, Role, User
from coordinator.demo.hooks import Delivery, Hooks
from coordinator.demo.limits import RateLimits
from coordinator.demo.render import Renderer
from coordinator.demo.routes import Api, Request, Response, error

__all__ = ["Fault", "FaultKind", "GitHubServer", "RecordedRequest", "secondary_limit"]

_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Proxy says hello</body></html>"
_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request as it arrived, and the status it got (0: the connection ended without an answer)."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    login: str  # of the token; "" without one
    status: int
    at: float  # time.monotonic() at arrival
    is_forbidden: bool = False  # a merge, a review or a mutation of GraphQL was asked for

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueView:
    number: int
    title: str
    body: str | None
    state: str
    state_reason: str | None
    labels: tuple[str, ...]
    author: str
    is_pull: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentView:
    id: int
    author: str
    body: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    id: int
    kind: str
    actor: str | None
    label: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AppView:
    id: int
    client_id: str
    bot: str  # login
    bot_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PullView:
    number: int
    title: str
    body: str | None
    state: str
    draft: bool
    head: str
    base: str
    author: str
    labels: tuple[str, ...]


class GitHubServer:
    """The server and everything a test may do to it. All methods are safe from any thread.

    `git_root` holds the bare repositories (a temporary directory of its own when None). `clock` gives
    aware UTC; GitHub's times in answers have whole seconds.
    """

    def __init__(self, *, git_root: Path | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self._own_root = _temporary_root() if git_root is None else None
        root = Path(self._own_root.name) if self._own_root else git_root
        assert root is not None  # noqa: S101  for the type checker: one of the two is set
        self._clock = clock or utc_now
        self._changed = threading.Condition(threading.RLock())
        self._released = threading.Event()
        self._listener = _Listener(self)
        self._thread = threading.Thread(
            target=self._listener.accept_until_closed, name="demo-github", daemon=True
        )
        self._forge = Forge(root, self._clock)
        self._apps = Apps(self._forge.now)
        self._limits = RateLimits(self._clock)
        self._api = Api(self._forge, self._apps, self._limits, Renderer(self.api_url))
        self._hooks = Hooks(self._told)
        self._requests: list[RecordedRequest] = []
        self._request_ids = 0
        self.failures: list[Exception] = []  # bugs of this server
        self.faults = Faults()

    # Running --------------------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """Base URL for clients; known before `start`."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def start(self) -> GitHubServer:
        """Answer from now on, in a background thread of this process."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End all connections and free the port. Harmless when repeated.

        Raises what went wrong inside the server meanwhile: its own faults must not look like a client's.
        """
        self._released.set()
        self._hooks.close()
        self._listener.accept_no_more()
        if self._thread.is_alive():
            self._thread.join()
        self._listener.end()
        if self._own_root is not None:
            self._own_root.cleanup()
        if self.failures:
            raise self.failures.pop()

    def __enter__(self) -> GitHubServer:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until the predicate holds; looked at again after each request and each change.

        The predicate runs with the server's lock held. False when `timeout` seconds pass first.
        """
        with self._changed:
            return self._changed.wait_for(predicate, timeout)

    # Accounts and repositories --------------------------------------------------------------------

    def add_user(self, login: str, *, kind: str = "User") -> int:
        """Make an account ("User", "Bot" or "Organization") and give its numeric id."""
        with self._changing():
            return self._forge.add_user(login, kind).id

    def rename_user(self, login: str, new_login: str) -> None:
        """The account keeps its id and rights; its old login may be registered by somebody else."""
        with self._changing():
            self._forge.rename_user(self._forge.user(login), new_login)

    def add_token(self, token: str, login: str) -> None:
        """Let `token` act as `login`."""
        with self._changing():
            self._forge.tokens[token] = self._forge.user(login)

    def revoke_token(self, token: str) -> None:
        """From now on the token is answered 401."""
        with self._changing():
            del self._forge.tokens[token]

    # GitHub Apps ----------------------------------------------------------------------------------

    def add_app(self, slug: str, *, public_key: str, permissions: dict[str, str]) -> AppView:
        """Make a GitHub App that signs with the key whose public half (PEM) this is."""
        with self._changing():
            owner, bot = self._forge.user("app-owner"), self._forge.add_user(f"{slug}[bot]", "Bot")
            app = self._apps.add(slug, owner=owner, bot=bot, public_key=public_key, permissions=permissions)
            return AppView(id=app.id, client_id=app.client_id, bot=bot.login, bot_id=bot.id)

    def install_app(self, slug: str, account: str, repositories: list[str] | None = None) -> int:
        """Install an App for an account, on all or on some of its repositories; the installation's number."""
        with self._changing():
            chosen = repositories and {self._forge.repository(name).id for name in repositories}
            user = self._forge.user(account)
            return self._apps.install(self._apps.by_slug(slug), user, chosen or None).id

    def grant_installation(self, number: int, permissions: dict[str, str]) -> None:
        """What the account lets the App do from now on; tokens that were made keep what they have."""
        with self._changing():
            self._apps.installations[number].permissions = permissions

    def suspend_installation(self, number: int, suspended: bool = True) -> None:
        """Its tokens, old and new, are answered 403 meanwhile."""
        with self._changing():
            self._apps.installations[number].suspended_at = self._forge.now() if suspended else None

    def remove_installation(self, number: int) -> None:
        """As its owner's "uninstall" does."""
        with self._changing():
            self._apps.remove(number)

    def end_installation_tokens(self, number: int) -> None:
        """Every token that was made so far is unknown from now on."""
        with self._changing():
            self._apps.end_tokens(number)

    def set_token_lifetime(self, seconds: float) -> None:
        """How long installation tokens last that are made from now on."""
        with self._changing():
            self._apps.lifetime = timedelta(seconds=seconds)

    def installation_tokens(self, number: int) -> list[str]:
        """All tokens that were made for it, oldest first; also those that are over."""
        with self._changed:
            return [each.token for each in self._apps.grants.values() if each.installation.id == number]

    def add_repo(
        self,
        full_name: str,
        *,
        private: bool = True,
        default_branch: str = "main",
        files: dict[str, str] | None = None,
    ) -> int:
        """Make a repository with a real bare git repository and one commit; gives its numeric id."""
        wanted = {"README.md": f"# {full_name}\n"} if files is None else files
        with self._changing():
            made = self._forge.add_repository(
                full_name, private=private, default_branch=default_branch, files=wanted
            )
            return made.id

    def rename_repo(self, full_name: str, new_full_name: str) -> None:
        """Rename or hand over: the old name is answered 301 (307 for writes). `git_url` stays the same."""
        with self._changing():
            self._forge.rename(self._forge.repository(full_name), new_full_name)

    def set_visibility(self, full_name: str, *, private: bool) -> None:
        """Show a repository to everybody, or to its members only."""
        with self._changing():
            self._forge.repository(full_name).private = private

    def archive_repo(self, full_name: str) -> None:
        """Make a repository read-only."""
        with self._changing():
            self._forge.repository(full_name).archived = True

    def disable_issues(self, full_name: str) -> None:
        """Turn the issues of a repository off: opening one is answered 410."""
        with self._changing():
            self._forge.repository(full_name).has_issues = False

    def git_url(self, full_name: str) -> str:
        """The path of the bare repository."""
        return str(self._repository(full_name).git_dir)

    def git_http_url(self, full_name: str) -> str:
        """Where the repository is served over smart HTTP (Basic auth, the token as password)."""
        return f"{self.api_url}/git/{full_name}.git"

    def branch_sha(self, full_name: str, branch: str) -> str | None:
        """The commit a branch of the bare repository points to; None when it does not exist."""
        return self._repository(full_name).sha(branch)

    def push_branch(self, full_name: str, branch: str, files: dict[str, str]) -> str:
        """Make a new branch, one commit of `files` ahead of the default branch; gives the commit's id."""
        with self._changing():
            repository = self._forge.repository(full_name)
            start = repository.default_branch
            bare.add_commit(repository.git_dir, branch=branch, files=files, message="More", start=start)
            return repository.sha(branch) or ""

    def set_permission(
        self, full_name: str, login: str, role: str, *, custom_role: str | None = None
    ) -> None:
        """admin, maintain, write, triage, read or none; `custom_role` names one that is based on it."""
        with self._changing():
            repository, user = self._forge.repository(full_name), self._forge.user(login)
            repository.roles[user.id] = Role[role.upper()]
            repository.role_names.pop(user.id, None)
            if custom_role is not None:
                repository.role_names[user.id] = custom_role

    # Issues ---------------------------------------------------------------------------------------

    def add_issue(
        self,
        full_name: str,
        *,
        title: str,
        body: str | None = "",
        author: str | None = None,
        labels: list[str] | tuple[str, ...] = (),
        labelled_by: str | None = None,
        label_events: bool = True,
    ) -> int:
        """Open an issue and give its number. Author: the repository's owner; labels: put on by `labelled_by`
        or else the author, without an event (as an issue template does) when `label_events` is False."""
        with self._changing():
            repository = self._forge.repository(full_name)
            user = self._forge.user(author) if author else repository.owner
            issue = self._forge.add_issue(repository, title=title, body=body, author=user)
            self._forge.put_labels(
                repository, issue, labels, self._forge.user(labelled_by) if labelled_by else user
            )
            if not label_events:
                issue.events.clear()
            self._announce("opened", repository, issue, user)
            for label in labels:
                self._announce("labeled", repository, issue, user, label=label)
            return issue.number

    def add_label(
        self,
        full_name: str,
        number: int,
        label: str,
        *,
        actor: str | None,
        via_app: str | None = None,
        intent: str | None = None,
    ) -> None:
        """Put a label on. `actor=None` is an account that was deleted since; `via_app` an app's slug;
        `intent` what an agent gives as its reason when it acts as its user."""
        with self._changing():
            repository, issue = self._find(full_name, number)
            user = self._user_or_none(actor)
            self._forge.put_labels(repository, issue, [label], user, app=via_app, intent=intent)
            self._announce("labeled", repository, issue, user, label=label)

    def remove_label(self, full_name: str, number: int, label: str, *, actor: str | None = None) -> None:
        """Take a label off; by the repository's owner when `actor` is None."""
        with self._changing():
            repository, issue = self._find(full_name, number)
            self._forge.take_label(issue, label, self._user_or_none(actor) or repository.owner)

    def edit_issue(
        self,
        full_name: str,
        number: int,
        *,
        title: str | None = None,
        body: str | None = None,
        editor: str | None = None,
        is_editor_gone: bool = False,
    ) -> None:
        """None leaves a field as it is; the editor is the issue's author, or an account deleted since."""
        with self._changing():
            issue = self._find(full_name, number)[1]
            user = None if is_editor_gone else (self._user_or_none(editor) or issue.author)
            self._forge.edit_issue(issue, title=title, body=body, editor=user)

    def close_issue(
        self, full_name: str, number: int, *, actor: str | None = None, reason: str = "completed"
    ) -> None:
        """Close as completed, not_planned or duplicate."""
        with self._changing():
            repository, issue = self._find(full_name, number)
            self._forge.set_state(issue, "closed", self._user_or_none(actor) or repository.owner, reason)

    def reopen_issue(self, full_name: str, number: int, *, actor: str | None = None) -> None:
        """Open again."""
        with self._changing():
            repository, issue = self._find(full_name, number)
            self._forge.set_state(issue, "open", self._user_or_none(actor) or repository.owner)

    def lock_issue(self, full_name: str, number: int) -> None:
        """Only accounts with write access may comment from now on."""
        with self._changing():
            self._find(full_name, number)[1].locked = True

    def transfer_issue(self, full_name: str, number: int, target: str) -> int:
        """Move to another repository (301 from now on) and give the new number."""
        with self._changing():
            return self._forge.transfer(
                self._find(full_name, number)[1], self._forge.repository(target)
            ).number

    def delete_issue(self, full_name: str, number: int) -> None:
        """Answered 410 from now on."""
        with self._changing():
            self._find(full_name, number)[1].deleted = True

    def add_comment(
        self, full_name: str, number: int, body: str, *, author: str, via_app: str | None = None
    ) -> int:
        """Comment as somebody and give the comment's id."""
        with self._changing():
            repository, issue = self._find(full_name, number)
            user = self._forge.user(author)
            return self._forge.add_comment(repository, issue, user, body, app=via_app).id

    def edit_comment(self, full_name: str, comment_id: int, body: str) -> None:
        """Change a comment's text, as its author (or anybody who may write) can."""
        with self._changing():
            self._forge.edit_comment(self._forge.repository(full_name).comments[comment_id], body)

    def delete_comment(self, full_name: str, comment_id: int) -> None:
        """As a human would on the page."""
        with self._changing():
            repository = self._forge.repository(full_name)
            self._forge.delete_comment(repository, repository.comments[comment_id])

    def add_pull(
        self,
        full_name: str,
        *,
        head: str,
        title: str = "A pull request",
        body: str | None = "",
        author: str | None = None,
        base: str | None = None,
        draft: bool = True,
        labels: list[str] | tuple[str, ...] = (),
    ) -> int:
        """Open a pull request from the branch `head`, as somebody else than the program under test would."""
        with self._changing():
            repository = self._forge.repository(full_name)
            user = self._forge.user(author) if author else repository.owner
            target = base or repository.default_branch
            issue = self._forge.add_pull(
                repository, title=title, body=body, author=user, head=head, base=target, draft=draft
            )
            self._forge.put_labels(repository, issue, labels, user)
            return issue.number

    # Webhooks -------------------------------------------------------------------------------------

    def add_webhook(self, url: str, secret: str) -> None:
        """Tell this address of every issue that a test opens or labels from now on."""
        self._hooks.add(url, secret)

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """What was delivered, oldest first."""
        return tuple(self._hooks.deliveries)

    def _announce(
        self,
        action: str,
        repository: Repository,
        issue: Issue,
        sender: User | None,
        *,
        label: str | None = None,
    ) -> None:
        if not self._hooks.is_wanted:
            return
        render = self._api.render
        payload: dict[str, Any] = {
            "action": action,
            "issue": render.full_issue(repository, issue),
            "repository": render.full_repository(repository, Role.READ),
            "sender": render.user(sender or repository.owner),
        }
        if label is not None:
            payload["label"] = render.label(repository, repository.labels[label.lower()])
        self._hooks.tell("issues", payload)

    def _told(self) -> None:
        with self._changing():
            """Whoever waits for a delivery looks again."""

    # Limits ---------------------------------------------------------------------------------------

    def set_rate_limit(
        self, login: str, *, remaining: int, limit: int = 5000, reset_in: float = 3600.0, status: int = 403
    ) -> None:
        """How many requests the account (all its tokens; "" is anonymous) has left, and for how many seconds.

        `status` is what the first one too many is answered: 403 or 429.
        """
        with self._changing():
            bucket = self._limits.of(login)
            bucket.limit, bucket.used = limit, limit - remaining
            bucket.reset_at = self._clock() + timedelta(seconds=reset_in)
            self._api.primary_limit_status = status

    def rate_used(self, login: str) -> int:
        """Points the account has spent since the last reset. A 304 costs none."""
        with self._changed:
            return self._limits.of(login).used

    # Looking --------------------------------------------------------------------------------------

    def issue(self, full_name: str, number: int) -> IssueView:
        """An issue (or pull request) as it is now."""
        with self._changed:
            return _issue_view(self._find(full_name, number)[1])

    def comments(self, full_name: str, number: int) -> tuple[CommentView, ...]:
        """All comments, oldest first."""
        with self._changed:
            return tuple(
                CommentView(
                    id=comment.id,
                    author=comment.author.login,
                    body=comment.body,
                    created_at=comment.created_at,
                    updated_at=comment.updated_at,
                )
                for comment in self._find(full_name, number)[1].comments
            )

    def events(self, full_name: str, number: int) -> tuple[EventView, ...]:
        """labeled, unlabeled, renamed, closed and reopened, oldest first."""
        with self._changed:
            return tuple(_event_view(event) for event in self._find(full_name, number)[1].events)

    def pulls(self, full_name: str) -> tuple[PullView, ...]:
        """All pull requests, open or not, oldest first."""
        with self._changed:
            issues = self._forge.repository(full_name).issues.values()
            return tuple(view for issue in issues if (view := _pull_view(issue)) is not None)

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Everything that was asked, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def requests_matching(self, match: str) -> list[RecordedRequest]:
        """Those whose "METHOD /path" (without query) fits the shell pattern."""
        return [
            request for request in self.requests if fnmatchcase(f"{request.method} {request.path}", match)
        ]

    @property
    def forbidden_requests(self) -> list[RecordedRequest]:
        """Attempts to merge, to review or to change anything by GraphQL: nothing of ours may make one."""
        return [request for request in self.requests if request.is_forbidden]

    def clear_requests(self) -> None:
        """Forget the record."""
        with self._changed:
            self._requests.clear()

    def release(self) -> None:
        """End all TIMEOUT and LATE faults that are holding a connection now; later ones hold again."""
        self._released.set()
        self._released.clear()

    # Answering (called by the connection threads) ---------------------------------------------------

    def _answer(self, handler: _Handler) -> Response | None:
        """The response for one request; None ends the connection without one."""
        request, at = self._parse(handler), time.monotonic()
        with self._changing():
            fault = self.faults.take(request.method, request.path, request.query)
            answer = self._true_answer(request) if fault is None else self._damaged(request, fault)
            self._remember(request, answer, at)
            stamp = self._stamp()
        if fault is not None and FaultKind(fault.kind) in (FaultKind.TIMEOUT, FaultKind.LATE):
            self._released.wait(fault.seconds)
        return None if answer is None else _with_headers(answer, stamp)

    def _parse(self, handler: _Handler) -> Request:
        path, _, query = handler.path.partition("?")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        token = _token(headers.get("authorization"))
        who = self._identify(token or "")
        return Request(
            method=handler.command,
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=headers,
            body=handler.body(),
            token=token,
            **who,
        )

    def _identify(self, token: str) -> dict[str, Any]:
        """An account's token, an installation's, or an App's signature."""
        with self._changed:
            user = self._forge.tokens.get(token)
            if user is not None or not token:
                return {"user": user}
            try:
                if token.count(".") == 2:
                    return {"user": None, "app": self._apps.signer_of(token)}
                grant = self._apps.grant_of(token)
            except Rejected as rejected:
                return {"user": None, "refusal": rejected}
            return {"user": grant.installation.app.bot if grant else None, "grant": grant}

    def _true_answer(self, request: Request) -> Response:
        return self._api.answer(request)

    def _damaged(self, request: Request, fault: Fault) -> Response | None:
        headers = {**self._limits.of(request.counted_as).headers(), **fault.headers}
        match FaultKind(fault.kind):
            case FaultKind.STATUS:
                return Response(status=fault.status, body=_fault_body(fault), headers=headers)
            case FaultKind.TRUNCATED_JSON:
                whole = self._true_answer(_unconditional(request))  # a 304 has nothing to cut
                return Response(
                    status=whole.status, body=whole.body[: len(whole.body) // 2], headers=whole.headers
                )
            case FaultKind.HTML_200:
                return Response(
                    status=200, body=_HTML, headers={"Content-Type": "text/html", **fault.headers}
                )
            case FaultKind.AFTER_COMMIT:
                self._true_answer(request)
                return (
                    Response(status=fault.status, body=_fault_body(fault), headers=headers)
                    if fault.status
                    else None
                )
            case FaultKind.LATE:
                return self._true_answer(request)
            case FaultKind.TIMEOUT | FaultKind.DISCONNECT:
                return None

    def _remember(self, request: Request, answer: Response | None, at: float) -> None:
        self._requests.append(
            RecordedRequest(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=request.body,
                login=request.login,
                status=answer.status if answer else 0,
                at=at,
                is_forbidden=answer is not None and answer.is_forbidden,
            )
        )

    def _stamp(self) -> dict[str, str]:
        self._request_ids += 1
        return {
            "Date": email.utils.format_datetime(self._forge.now(), usegmt=True),
            "X-GitHub-Request-Id": f"DE70:{self._request_ids:06X}",
        }

    def _serve_git(self, handler: _Handler) -> Response:
        """Smart HTTP by git's own `http-backend`; outside the lock, as a push may take a while."""
        request, at = self._parse(handler), time.monotonic()
        with self._changed:
            refusal, repository = self._git_refusal(request)
        answer = refusal or _http_backend(request, handler.path, repository)
        with self._changing():
            self._remember(request, answer, at)
        return answer

    def _git_refusal(self, request: Request) -> tuple[Response | None, Repository | None]:
        parts = unquote(request.path).split("/")  # "", "git", owner, "name.git", …
        number = self._forge.names.get("/".join(parts[2:4]).removesuffix(".git").lower(), 0)
        repository = self._forge.repositories.get(number)
        if request.token is not None and request.user is None:
            return _git_error(401, "Invalid username or token."), None
        role = request.role_in(repository) if repository else Role.NONE
        is_push = "git-receive-pack" in request.path or request.query.get("service") == "git-receive-pack"
        if request.grant is not None and not request.grant.allows("contents", writing=is_push):
            return _git_error(403, f"Permission denied to {request.login}."), None
        if repository is not None and role >= (Role.WRITE if is_push else Role.READ):
            return None, repository
        if request.user is None:
            return _git_error(401, "Authentication required."), None
        if role < Role.READ:
            return _git_error(404, "Repository not found."), None
        return _git_error(403, f"Permission denied to {request.login}."), None

    # Small things -----------------------------------------------------------------------------------

    def _changing(self) -> _Changing:
        return _Changing(self._changed)

    def _repository(self, full_name: str) -> Repository:
        with self._changed:
            return self._forge.repository(full_name)

    def _find(self, full_name: str, number: int) -> tuple[Repository, Issue]:
        repository = self._forge.repository(full_name)
        return repository, repository.issues[number]

    def _user_or_none(self, login: str | None) -> User | None:
        return None if login is None else self._forge.user(login)


def _temporary_root() -> tempfile.TemporaryDirectory[str]:
    # A push that still runs when the server stops may put a file back while the tree is removed.
    return tempfile.TemporaryDirectory(prefix="demo-git-", ignore_cleanup_errors=True)


class _Changing:
    """The lock, with everybody who waits told at the end."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed

    def __enter__(self) -> None:
        self._changed.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._changed.notify_all()
        self._changed.release()


class _Listener(ThreadingHTTPServer):
    """The listening socket and the open connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, owner: GitHubServer) -> None:
        self.owner = owner
        self._is_closing = False
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def accept_until_closed(self) -> None:
        """Instead of `serve_forever`, which looks twice a second whether it should end."""
        while not self._is_closing:
            try:
                connection, address = self.socket.accept()
            except OSError:
                return
            self.process_request(connection, address)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def accept_no_more(self) -> None:
        """Wake the accepting thread, which ends."""
        self._is_closing = True
        _end(self.socket)

    def end(self) -> None:
        """Free the port and end every connection. After the accepting thread, so that none is missed."""
        self.server_close()
        with self._guard:
            for connection in self._connections:
                _end(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is everyday life here; anything else is a bug."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.owner.failures.append(error)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, writes answers, and nothing else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def _serve(self) -> None:
        owner = self.server.owner
        answer = owner._serve_git(self) if self.path.startswith("/git/") else owner._answer(self)  # noqa: SLF001
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def _send(self, answer: Response) -> None:
        """Head and body in one write: two small packets would wait for each other."""
        headers = dict(answer.headers)
        has_body = answer.status not in (204, 304)
        if has_body:
            headers["Content-Length"] = str(len(answer.body))
        reason = self.responses.get(answer.status, ("Unknown",))[0]
        lines = [
            f"HTTP/1.1 {answer.status} {reason}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self.wfile.write(head + answer.body if has_body else head)

    def body(self) -> bytes:
        """The request's body, whether it has a length or comes in chunks. Half a body ends the connection."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError("the request ended in its middle")
        return body

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Silent: the record of requests is the log."""


for _method in _METHODS:
    setattr(_Handler, f"do_{_method}", _Handler._serve)  # noqa: SLF001  the base class looks methods up by name


def _token(header: str | None) -> str | None:
    """The token of `token T`, `Bearer T` or Basic with the token as password."""
    scheme, _, value = (header or "").partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return value
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value).decode().partition(":")[2]
    except ValueError:
        return value  # not a token of anybody: 401


def _unconditional(request: Request) -> Request:
    headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
    return replace(request, headers=headers)


def _fault_body(fault: Fault) -> bytes:
    if fault.body is None:
        return error(fault.status, "Server Error" if fault.status >= 500 else "Forbidden").body
    if isinstance(fault.body, bytes):
        return fault.body
    return fault.body.encode() if isinstance(fault.body, str) else json.dumps(fault.body).encode()


def _with_headers(answer: Response, stamp: dict[str, str]) -> Response:
    fixed = {
        "Server": "github.com",
        **stamp,
        "X-GitHub-Media-Type": "github.v3; format=json",
        "X-GitHub-Api-Version-Selected": "2022-11-28",
        "Vary": "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With",
    }
    if answer.body:
        fixed["Content-Type"] = "application/json; charset=utf-8"
    return Response(status=answer.status, body=answer.body, headers=fixed | answer.headers)


def _git_error(status: int, text: str) -> Response:
    headers = {"Content-Type": "text/plain"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="GitHub"'
    return Response(status=status, body=text.encode(), headers=headers)


def _http_backend(request: Request, target: str, repository: Repository | None) -> Response:
    assert repository is not None  # noqa: S101  without a refusal there is one
    service = "/".join(unquote(request.path).split("/")[4:])
    environ = bare.GIT_ENVIRON | {
        "GIT_PROJECT_ROOT": str(repository.git_dir),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{service}",
        "QUERY_STRING": target.partition("?")[2],
        "REQUEST_METHOD": request.method,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        "REMOTE_USER": request.login,
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(
        ["git", "http-backend"], input=request.body, capture_output=True, check=True, env=environ
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if line)
    status = int(headers.pop("Status", "200").split()[0])
    return Response(status=status, body=body, headers=headers)


def _issue_view(issue: Issue) -> IssueView:
    return IssueView(
        number=issue.number,
        title=issue.title,
        body=issue.body,
        state=issue.state,
        state_reason=issue.state_reason,
        labels=tuple(label.name for label in issue.labels),
        author=issue.author.login,
        is_pull=issue.pull is not None,
    )


def _event_view(event: Event) -> EventView:
    return EventView(
        id=event.id,
        kind=event.kind,
        actor=event.actor.login if event.actor else None,
        label=event.label.name if event.label else None,
        created_at=event.created_at,
    )


def _pull_view(issue: Issue) -> PullView | None:
    if issue.pull is None:
        return None
    return PullView(
        number=issue.number,
        title=issue.title,
        body=issue.body,
        state=issue.state,
        draft=issue.pull.draft,
        head=issue.pull.head,
        base=issue.pull.base,
        author=issue.author.login,
        labels=tuple(label.name for label in issue.labels),
    )
