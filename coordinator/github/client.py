"""GitHub for the daemon: asynchronous questions and writes, plain values as answers.

The face over `wire` (requests, limits), `repositories` (renames) and `polling` (the labelled listing).
Requests block, so they run on four own threads. Raises GitHubUnavailable (nothing may be concluded, try
after `retry_at`), GitHubRefused (the answer is no) and, for impossible names, ConfigError. Decides
nothing about tasks, and never sends a write twice: whoever is unsure looks first (`find_comment`,
`find_pull`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from adw_modules.errors import ConfigError, GitHubRefused, GitHubUnavailable
from adw_modules.security.admission import Comment
from adw_modules.security.names import is_login
from adw_modules.tasks.model import IssueSnapshot
from coordinator.faultpoints import Point, reached
from coordinator.github import answers, labelevents
from coordinator.github.answers import (
    Account,
    IssueGone,
    LabelBuried,
    LabelEvent,
    LabelTakenOff,
    Listing,
    Permission,
    Pull,
    SeenText,
    Unchanged,
)
from coordinator.github.appkey import AppAccess
from coordinator.github.apps import GitHubApp, Installation, Learn
from coordinator.github.credentials import Credential, FixedToken
from coordinator.github.limiter import Ledger, WritePace, all_of
from coordinator.github.polling import Pages, read_pages
from coordinator.github.repositories import Repositories
from coordinator.github.threads import RequestThreads
from coordinator.github.wire import Answer, Transport, Wire, read

_THREADS = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """How the repositories of one credential are asked."""

    credential: Credential
    wire: Wire
    repositories: Repositories


class GitHub:
    """One account on one server: that of a token, or of a GitHub App. Make it once per process; `close()` it
    at the end. With an `app` there is a token for each repository, and `learn` is told of each new one."""

    def __init__(
        self,
        *,
        api_url: str,
        token: str = "",
        app: AppAccess | None = None,
        learn: Learn = lambda _name, _secret: None,
        timeout_seconds: float = 15,
        writes_per_minute: int = 60,
        writes_per_hour: int = 400,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        fixed = None if app is not None else FixedToken(token, now)
        self._transport = Transport(api_url=api_url, timeout_seconds=timeout_seconds, now=now)
        self._app = None if app is None else GitHubApp(app, self._transport, learn=learn)
        self._home = "" if app is None else app.home
        self._fixed = None if fixed is None else self._reached_with(fixed)
        self._reaches: dict[str, _Reach] = {}
        self._pace = WritePace(writes_per_minute, writes_per_hour)
        self._now = now
        self._sleep = sleep
        # `timeout_seconds` is per read; an answer that trickles in would never end without this.
        self._deadline = max(120.0, 8 * timeout_seconds)
        self._threads = RequestThreads(_THREADS)
        self._read: dict[tuple[str, str], Pages] = {}
        self._account: Account | None = None
        self._closed = False

    @property
    def ledger(self) -> Ledger:
        """What is left of each limit, and until when requests are held back."""
        if self._app is not None:
            return all_of({name: limiter.ledger for name, limiter in self._app.limiters.items()})
        return self._of("").credential.limiter().ledger

    @property
    def is_app(self) -> bool:
        """Whether we speak as a GitHub App."""
        return self._app is not None

    def clock_was_set_back(self, step: timedelta) -> None:
        """Have all waits last as long as they were meant to; `step` is negative."""
        if self._app is not None:
            self._app.clock_was_set_back(step)
        else:
            self._of("").credential.limiter().clock_was_set_back(step)
        self._pace.clock_was_set_back(step)

    def close(self) -> None:
        """Take no more requests and close the connections; what is on its way is not waited for."""
        self._closed = True
        self._threads.close()
        self._transport.close()

    # Questions about us and the repository

    async def whoami(self, repo: str = "") -> Account:
        """The account that what we write is from; asked once. An App asks through the token of `repo`."""
        if self._account is None:
            self._account = await self._run(lambda: self._ask_who(repo))
        return self._account

    def secret(self, repo: str) -> str:
        """The token for `repo` as it is now, for git. Blocks: it may have to be asked for."""
        return self._of(repo).credential.secret().value

    def scope(self, repo: str) -> str:
        """Whose token `repo` is written with: "token", or "app installation" and its number."""
        return self._of(repo).credential.scope

    async def installation(self, repo: str) -> Installation:
        """Where our App is installed for `repo`, and what it may do there. Only for an App."""
        return await self._run(lambda: self._as_app().installation(repo))

    async def app_name(self) -> str:
        """The App's short name at GitHub. Only for an App."""
        return await self._run(lambda: self._as_app().slug())

    async def default_branch(self, repo: str) -> str:
        return (await self._run(lambda: self._of(repo).repositories.resolve(repo))).default_branch

    async def is_public(self, repo: str, *, now: bool = False) -> bool:
        """Whether everybody can see the repository. What GitHub does not call private counts as public.

        With `now` GitHub is asked; else what it said within the hour will do.
        """
        return await self._run(lambda: self._of(repo).repositories.is_public(repo, now=now))

    async def repository_id(self, repo: str) -> int:
        """The id of what the name means at this moment; costs no quota while nothing changed."""

        def ask() -> int:
            repositories = self._of(repo).repositories
            repositories.is_public(repo, now=True)
            return repositories.info(repo).repo_id

        return await self._run(ask)

    async def permission(self, repo: str, login: str) -> Permission:
        """What `login` may do in `repo` now. Whoever GitHub does not know there (404) may do nothing."""
        nothing = Permission(permission="none", role_name="none")
        if not is_login(login):  # `..` would ask about something else
            return nothing
        suffix = f"/collaborators/{quote(login, safe='')}/permission"
        answer = await self._request("GET", repo, suffix)
        if answer.status == 404:
            return nothing
        return answer.expect(200).parse(answers.permission)

    # Issues

    async def poll(self, repo: str, label: str) -> Listing | Unchanged:
        """All open issues of `repo` with `label`, or Unchanged since the last poll that returned."""
        _usable_label(label)
        key = _poll_key(repo, label)
        before = self._read.get(key)
        pages, changed, repo_id = await self._run(lambda: self._poll(repo, label, before))
        # Kept only here, after the await: a poll that nobody waited for must not eat the change it saw.
        if self._read.get(key) is before:
            self._read[key] = pages
        return Listing(repo_id=repo_id, issues=pages.issues) if changed else Unchanged()

    def forget(self, repo: str, label: str) -> None:
        """Make the next poll read everything, under the name the repository has by then."""
        self._read.pop(_poll_key(repo, label), None)
        self._of(repo).repositories.forget(repo)

    async def issue(self, repo: str, number: int) -> IssueSnapshot | IssueGone:
        """One issue as it is now. GitHubRefused(404) when the repository itself cannot be seen."""
        return await self._run(lambda: self._issue(repo, number))

    async def text(self, repo: str, number: int) -> SeenText | None:
        """Title and body with who changed them when; None where GraphQL does not tell that."""
        return await self._run(lambda: self._text(repo, number))

    async def comments(self, repo: str, number: int) -> list[Comment]:
        """All comments of an issue, oldest first."""
        raw = await self._list(repo, f"/issues/{number}/comments")
        return [read(f"comments of {repo}#{number}", answers.comment, each) for each in raw]

    async def trigger(
        self, repo: str, number: int, label: str
    ) -> LabelEvent | LabelTakenOff | LabelBuried | None:
        """Who put `label` on the issue; None when no event tells of the label at all.

        At most some ten requests, however long the issue's history is.
        """

        def ask() -> LabelEvent | LabelTakenOff | LabelBuried | None:
            reach = self._of(repo)
            name = reach.repositories.info(repo).full_name
            return labelevents.newest(reach.wire, f"/repos/{name}/issues/{number}/events", label)

        return await self._run(ask)

    async def set_status_label(
        self, repo: str, number: int, prefix: str, wanted: str | None, current_labels: Iterable[str]
    ) -> None:
        """Show `wanted` and no other label that starts with `prefix`. Other people's labels stay.

        `current_labels` only matters when nothing is wanted: GitHub answers an addition with all labels
        the issue has then, and that beats what a poll saw some time ago.
        """
        shown = current_labels if wanted is None else await self._add_label(repo, number, wanted)
        reached(Point.LABEL_ADDED)
        for label in shown:
            if _is_stale_status(label, prefix, wanted):
                await self._remove_label(repo, number, label)

    # Comments

    async def find_comment(self, repo: str, number: int, marker: str) -> int | None:
        """Our own oldest comment that contains `marker`; other people's quotes of it do not count."""
        me = await self.whoami(repo)
        comments = await self._list(repo, f"/issues/{number}/comments")
        return read(f"comments of {repo}#{number}", _own_comment, comments, me, marker)

    async def create_comment(self, repo: str, number: int, body: str) -> int:
        """Write a comment; return its id. After GitHubUnavailable it may exist: look before repeating."""
        answer = await self._write("POST", repo, f"/issues/{number}/comments", {"body": body})
        return answer.expect(201).parse(lambda raw: answers.number(raw, "id"))

    async def edit_comment(self, repo: str, comment_id: int, body: str) -> bool:
        """Replace a comment's text; False when somebody deleted the comment."""
        answer = await self._write("PATCH", repo, f"/issues/comments/{comment_id}", {"body": body})
        if answer.status in (404, 410):
            return False
        return answer.expect(200).parse(lambda raw: answers.number(raw, "id")) == comment_id

    # Pull requests

    async def find_pull(self, repo: str, branch: str) -> Pull | None:
        """The pull request from our own `branch`: the open one, else the newest."""
        return await self._run(lambda: self._find_pull(repo, branch))

    async def create_pull(
        self, repo: str, *, branch: str, base: str, title: str, body: str, draft: bool = True
    ) -> Pull:
        """Open a pull request, or return the one that exists. Not a draft where drafts are not offered."""
        content = {"head": branch, "base": base, "title": title, "body": body, "draft": draft}
        answer = await self._write("POST", repo, "/pulls", content)
        if draft and answer.status == 422 and "draft" in answer.message.casefold():
            answer = await self._write("POST", repo, "/pulls", {**content, "draft": False})
        if answer.status == 422 and "already exists" in answer.message.casefold():
            existing = await self.find_pull(repo, branch)
            if existing is not None:
                return existing
        return answer.expect(201).parse(answers.pull)

    # How the blocking half works; everything from here runs in a worker thread, except `_run` and its users

    def _as_app(self) -> GitHubApp:
        assert self._app is not None  # noqa: S101  callers look at `is_app`
        return self._app

    def _of(self, repo: str) -> _Reach:
        """How `repo` is asked: with the one token, or with the App's for it."""
        if self._fixed is not None or self._app is None:
            assert self._fixed is not None  # noqa: S101  one of the two is set
            return self._fixed
        key = repo.casefold()
        reach = self._reaches.get(key)
        if reach is None:
            # Two threads may make one each: what they stand on, the credential, is the same.
            reach = self._reaches[key] = self._reached_with(self._app.credential(repo))
        return reach

    def _reached_with(self, credential: Credential) -> _Reach:
        wire = Wire(self._transport, credential)
        return _Reach(credential=credential, wire=wire, repositories=Repositories(wire))

    def _ask_who(self, repo: str) -> Account:
        wire = self._of(repo or self._home).wire
        if self._app is not None:
            return self._app.account(wire)
        return wire.send("GET", "/user").expect(200).parse(answers.account)

    def _poll(self, repo: str, label: str, before: Pages | None) -> tuple[Pages, bool, int]:
        reach = self._of(repo)
        info = reach.repositories.info(repo)
        try:
            pages, changed = read_pages(reach.wire, repo=repo, info=info, label=label, before=before)
        except GitHubRefused as refused:
            if refused.status == 404:
                reach.repositories.forget(repo)  # the name may mean something else by now
            raise
        if changed and pages.foreign:
            # Renamed since we resolved it: PyGithub followed, but the query stayed behind.
            info = reach.repositories.resolve(repo)
            pages, changed = read_pages(reach.wire, repo=repo, info=info, label=label, before=None)
        return pages, changed, info.repo_id

    def _issue(self, repo: str, number: int) -> IssueSnapshot | IssueGone:
        reach = self._of(repo)
        info = reach.repositories.info(repo)
        answer = reach.wire.send("GET", reach.repositories.url(repo, f"/issues/{number}"))
        if answer.status in _GONE:
            # A token that lost the whole repository sees 404 for each issue: that says nothing about them.
            reach.repositories.resolve(repo)
            return _GONE[answer.status]
        home = answer.expect(200).parse(answers.repository_of)
        if not answers.same_name(home, info.full_name):
            info = reach.repositories.resolve(repo)
        if not answers.same_name(home, info.full_name):
            return IssueGone(reason="transferred")
        return answer.parse(lambda raw: answers.issue_snapshot(raw, repo=repo, repo_id=info.repo_id))

    def _text(self, repo: str, number: int) -> SeenText | None:
        reach = self._of(repo)
        owner, _, name = reach.repositories.info(repo).full_name.partition("/")
        found = reach.wire.query(answers.TEXT_QUERY, {"owner": owner, "name": name, "number": number})
        if found is None:
            return None
        seen = read(f"the text of {repo}#{number}", answers.seen_text, found)
        reach.repositories.saw_public(repo, is_public=seen.is_public)
        return seen

    def _find_pull(self, repo: str, branch: str) -> Pull | None:
        reach = self._of(repo)
        owner = reach.repositories.info(repo).owner
        params = {"head": f"{owner}:{branch}", "state": "all"}
        found = [
            read(f"pulls of {repo}", answers.pull, raw)
            for raw in reach.wire.pages(reach.repositories.url(repo, "/pulls"), params)
            if read(f"pulls of {repo}", answers.is_pull_of, raw, owner=owner, branch=branch)
        ]
        return max(found, key=lambda pull: (pull.state == "open", pull.number), default=None)

    async def _add_label(self, repo: str, number: int, label: str) -> tuple[str, ...]:
        _usable_label(label)
        answer = await self._write("POST", repo, f"/issues/{number}/labels", {"labels": [label]})
        raw = {"labels": answer.expect(200, 201).many()}
        shown = read(answer.asked, answers.label_names, raw)
        if not any(answers.same_name(label, each) for each in shown):
            raise GitHubUnavailable(f"{answer.asked}: the label '{label}' is not on the issue afterwards")
        return shown

    async def _remove_label(self, repo: str, number: int, label: str) -> None:
        answer = await self._write("DELETE", repo, f"/issues/{number}/labels/{quote(label, safe='')}")
        answer.expect(200, 204, 404)

    async def _list(self, repo: str, suffix: str) -> list[Mapping[str, Any]]:
        def read_all() -> list[Mapping[str, Any]]:
            reach = self._of(repo)
            return list(reach.wire.pages(f"/repos/{reach.repositories.info(repo).full_name}{suffix}"))

        return await self._run(read_all)

    async def _request(
        self, verb: str, repo: str, suffix: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        return await self._run(lambda: self._of(repo).repositories.send(verb, repo, suffix, body))

    async def _write(
        self, verb: str, repo: str, suffix: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        wait = self._pace.book(self._now())
        if wait > 0:
            await self._sleep(wait)
        return await self._request(verb, repo, suffix, body)

    async def _run(self, job: Callable[[], _T]) -> _T:
        if self._closed:
            raise GitHubUnavailable("The connection to GitHub is closed")
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.wrap_future(self._threads.submit(job))
        except TimeoutError as error:
            raise GitHubUnavailable(f"GitHub did not finish within {self._deadline:.0f} s") from error


_GONE = {
    301: IssueGone(reason="transferred"),
    404: IssueGone(reason="not found"),
    410: IssueGone(reason="deleted"),
}


def _poll_key(repo: str, label: str) -> tuple[str, str]:
    return repo.casefold(), label.casefold()


def _usable_label(label: str) -> None:
    """A comma means "and" in the query, a slash another path, and GitHub allows 50 characters."""
    if not label or len(label) > 50 or "," in label or "/" in label:
        raise ConfigError(f"The label '{label}' cannot be used: 1 to 50 characters, no ',' and no '/'.")


def _is_stale_status(label: str, prefix: str, wanted: str | None) -> bool:
    if not prefix or not label.casefold().startswith(prefix.casefold()):
        return False
    return wanted is None or not answers.same_name(label, wanted)


def _own_comment(comments: Iterable[Mapping[str, Any]], me: Account, marker: str) -> int | None:
    ours = (
        answers.number(raw, "id")
        for raw in comments
        if answers.part(raw, "user").get("id") == me.user_id and marker in (raw.get("body") or "")
    )
    return min(ours, default=None)
