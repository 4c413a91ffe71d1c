"""One request at a time through PyGithub, and nothing of PyGithub beyond this file.

Owns the `Github` objects (one per thread: its connection object mixes up bodies and answers when two
threads share it) and the translation of whatever can go wrong into `GitHubUnavailable` or
`GitHubRefused`. Must not retry: PyGithub's own retries repeat POSTs and sleep in the calling thread,
so they are off, and a request is sent once or not at all. The exception is a 401, which GitHub says before
it does anything: where the credential has another secret, the request is sent once more.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from github import Auth, Github

from adw_modules.errors import ConfigError, GitHubRefused, GitHubUnavailable
from coordinator.github.answers import MalformedError
from coordinator.github.credentials import Credential, Secret
from coordinator.github.failures import network_failure, plain
from coordinator.github.limiter import Limiter, retry_after

API_VERSION = "2022-11-28"  # the first later one drops fields; pinned so that an upgrade is a decision
PER_PAGE = 100
MAX_PAGES = 200
_ACCEPT = "application/vnd.github+json"
_LIMITED = re.compile(r"rate.limit|abuse detection", re.IGNORECASE)  # RATE_LIMITED, or a sentence
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer below 500 that is no limit. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: str
    asked: str  # "GET /repos/o/n/issues", for messages
    key: str = ""  # of the secret it was sent with

    def expect(self, *statuses: int) -> Answer:
        """Return self, or raise: a 4xx is GitHub's no, anything else is an answer we do not understand."""
        if self.status in statuses:
            return self
        if 400 <= self.status < 500:
            raise self.refusal()
        raise GitHubUnavailable(f"{self.asked}: unexpected status {self.status}")

    def refusal(self) -> GitHubRefused:
        return GitHubRefused(f"{self.asked}: {self.status} {self.message}".rstrip(), status=self.status)

    @property
    def message(self) -> str:
        """GitHub's explanation of an error, with the details of a 422, or nothing."""
        try:
            raw: Any = json.loads(self.body)
        except ValueError:
            return ""
        if not isinstance(raw, dict):
            return ""
        errors = raw.get("errors")
        details = [_detail(each) for each in errors] if isinstance(errors, list) else []
        return "; ".join(str(each) for each in [raw.get("message"), *details] if each)[:500]

    def one(self) -> Mapping[str, Any]:
        value = self._json()
        if not isinstance(value, dict):
            raise GitHubUnavailable(f"{self.asked}: the answer is not an object")
        return value

    def many(self) -> list[Mapping[str, Any]]:
        value = self._json()
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise GitHubUnavailable(f"{self.asked}: the answer is not a list of objects")
        return value

    def parse(self, reader: Callable[[Mapping[str, Any]], _T]) -> _T:
        """The object of this answer as a value."""
        return read(self.asked, reader, self.one())

    @property
    def next_url(self) -> str | None:
        return self.link("next")

    def link(self, rel: str) -> str | None:
        """Where the header says that this page of the list is: "next", "last", …"""
        found = re.search(rf'<([^<>]+)>\s*;[^,]*\brel="?{rel}\b"?', self.headers.get("link", ""))
        return found[1] if found else None

    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise GitHubUnavailable(f"{self.asked}: the answer is not JSON") from error


class _Authorization(Auth.Auth):
    """What PyGithub asks for the header of each request. One object per thread, so it may change."""

    def __init__(self) -> None:
        self.secret = Secret(key="", value="")

    @property
    def token_type(self) -> str:
        return self.secret.scheme

    @property
    def token(self) -> str:
        return self.secret.value


class Transport:
    """The connections to one server. Blocking; call it from worker threads only."""

    def __init__(self, *, api_url: str, timeout_seconds: float, now: Callable[[], datetime]) -> None:
        self.api_url = api_url.rstrip("/")
        self.now = now
        self._timeout = max(1, math.ceil(timeout_seconds))  # PyGithub insists on a whole number
        self._here = threading.local()
        self._lock = threading.Lock()
        self._opened: list[Github] = []
        self._check_settings()
        # At DEBUG PyGithub logs whole bodies: private issue texts would end up in our log.
        logging.getLogger("github.Requester").setLevel(logging.INFO)

    def send(
        self,
        verb: str,
        url: str,
        secret: Secret,
        limiter: Limiter,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        resource: str = "core",
    ) -> Answer:
        """Send one request once. GitHubUnavailable: limit, 5xx, time-out, no network, not GitHub."""
        limiter.check(resource)
        asked = f"{verb} {urlsplit(url).path}"
        github, authorization = self._github()
        authorization.secret = secret
        try:
            status, received, text = github.requester.requestJson(
                verb,
                url,
                parameters=dict(params or {}),
                headers={"Accept": _ACCEPT, **(headers or {})},
                input=None if body is None else dict(body),
            )
        except Exception as error:
            # Not only GithubException: redirects to other hosts are RuntimeErrors, foreign URLs
            # AssertionErrors, and the network's own failures come from requests.
            raise GitHubUnavailable(self._why_no_answer(asked, error)) from error
        answer = Answer(
            status, {name: str(value) for name, value in received.items()}, text, asked, secret.key
        )
        limiter.record(status, answer.headers, text, resource=resource)
        if status >= 500:
            at = retry_after(answer.headers, self.now())
            raise GitHubUnavailable(f"{asked}: {status} {answer.message}".rstrip(), retry_at=at)
        return answer

    @property
    def graphql_url(self) -> str:
        return self._github()[0].requester.graphql_url

    def _why_no_answer(self, asked: str, error: Exception) -> str:
        reason = network_failure(error, self._timeout)
        if reason is not None:  # of the server, not of this request: the same words for every request
            return f"GitHub cannot be reached at {self.api_url}: {reason}"
        return f"{asked}: no usable answer ({plain(error)})"

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, []
        for github in opened:
            github.close()

    def _check_settings(self) -> None:
        """PyGithub asserts its arguments; better now, with a sentence, than in a thread at each request."""
        try:
            self._open(_Authorization()).close()
        except Exception as error:
            raise ConfigError(f"The GitHub address '{self.api_url}' is not usable: {plain(error)}") from error

    def _github(self) -> tuple[Github, _Authorization]:
        mine: tuple[Github, _Authorization] | None = getattr(self._here, "github", None)
        if mine is None:
            authorization = _Authorization()
            mine = self._open(authorization), authorization
            self._here.github = mine
            with self._lock:
                self._opened.append(mine[0])
        return mine

    def _open(self, authorization: _Authorization) -> Github:
        return Github(
            base_url=self.api_url,
            auth=authorization,
            timeout=self._timeout,
            user_agent="coordinator",
            retry=None,
            lazy=True,
            per_page=PER_PAGE,
            seconds_between_requests=None,
            seconds_between_writes=None,
            api_version=API_VERSION,
        )


class Wire:
    """Sends requests in the name of one credential. Blocking, as `Transport` is."""

    def __init__(self, transport: Transport, credential: Credential) -> None:
        self._transport = transport
        self._credential = credential

    def send(
        self,
        verb: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        resource: str = "core",
    ) -> Answer:
        """Send one request. GitHubUnavailable: limit, 5xx, time-out, no network, not GitHub, no token."""

        def once(secret: Secret) -> Answer:
            limiter = self._credential.limiter()
            return self._transport.send(
                verb, url, secret, limiter, params=params, headers=headers, body=body, resource=resource
            )

        secret = self._credential.secret()
        answer = once(secret)
        if answer.status == 401 and self._credential.refused(secret):
            answer = once(self._credential.secret())
        return answer

    def query(self, text: str, variables: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Ask GraphQL; None when it cannot be asked here, or does not say. GitHubUnavailable as with `send`.

        Errors come with status 200. A limit among them ends like any other limit.
        """
        sent = {"query": text, "variables": dict(variables)}
        answer = self.send("POST", self._transport.graphql_url, body=sent, resource="graphql")
        if answer.status != 200:
            return None
        found = answer.one()
        if not found.get("errors"):
            return found
        if _LIMITED.search(str(found["errors"])):
            headers = {**answer.headers, "x-ratelimit-remaining": "0"}
            self._credential.limiter().record(429, headers, answer.body, resource="graphql")
        return None

    @property
    def key(self) -> str:
        """Which secret the next request goes with. May ask for one."""
        return self._credential.secret().key

    def follow(self, answer: Answer) -> str | None:
        """The next page's URL, or None. Refuses another host: PyGithub would ask ours for that path."""
        url = answer.next_url
        if url is not None and urlsplit(url)[:2] != urlsplit(self._transport.api_url)[:2]:
            raise GitHubUnavailable(f"{answer.asked}: the next page is on another server")
        return url

    def pages(self, url: str, params: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """All items of a list. The whole list or an exception, never a part as if it were all."""
        following: str | None = url
        asked_for: Mapping[str, Any] | None = {**(params or {}), "per_page": PER_PAGE}
        for _ in range(MAX_PAGES):
            answer = self.send("GET", following or url, params=asked_for).expect(200)
            yield from answer.many()
            following, asked_for = self.follow(answer), None
            if following is None:
                return
        raise GitHubUnavailable(f"GET {url}: more than {MAX_PAGES} pages")


def read(asked: str, reader: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Turn foreign JSON into a value; what does not fit is not GitHub's answer."""
    try:
        return reader(*args, **kwargs)
    except (MalformedError, TypeError, AttributeError) as error:
        raise GitHubUnavailable(f"{asked}: {error}") from error


def _detail(error: object) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or " ".join(str(value) for value in error.values()))
    return str(error)
