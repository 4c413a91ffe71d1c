"""One request at a time through PyGithub, and nothing of PyGithub beyond this file.

Owns the `Github` objects (one per thread: its connection object mixes up bodies and answers when two
threads share it), the limits, and the translation of whatever can go wrong into `GitHubUnavailable` or
`GitHubRefused`. Must not retry: PyGithub's own retries repeat POSTs and sleep in the calling thread,
so they are off, and a request is sent once or not at all.
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
from coordinator.github.failures import network_failure, plain
from coordinator.github.limiter import Limiter, retry_after

API_VERSION = "2022-11-28"  # the first later one drops fields; pinned so that an upgrade is a decision
PER_PAGE = 100
MAX_PAGES = 200
_ACCEPT = "application/vnd.github+json"
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?')
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer below 500 that is no limit. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: str
    asked: str  # "GET /repos/o/n/issues", for messages

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
        found = _NEXT.search(self.headers.get("link", ""))
        return found[1] if found else None

    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise GitHubUnavailable(f"{self.asked}: the answer is not JSON") from error


class Wire:
    """Sends requests for one token to one server. Blocking; call it from worker threads only."""

    def __init__(
        self, *, api_url: str, token: str, timeout_seconds: float, now: Callable[[], datetime]
    ) -> None:
        if not token:
            raise ConfigError("The GitHub token is empty.")
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._timeout = max(1, math.ceil(timeout_seconds))  # PyGithub insists on a whole number
        self._now = now
        self._here = threading.local()
        self._lock = threading.Lock()
        self._opened: list[Github] = []
        self.limiter = Limiter(now)
        self._check_settings()
        # At DEBUG PyGithub logs whole bodies: private issue texts would end up in our log.
        logging.getLogger("github.Requester").setLevel(logging.INFO)

    def send(
        self,
        verb: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request once. GitHubUnavailable: limit, 5xx, time-out, no network, not GitHub."""
        self.limiter.check("core")
        asked = f"{verb} {urlsplit(url).path}"
        try:
            status, received, text = self._github().requester.requestJson(
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
        answer = Answer(status, {name: str(value) for name, value in received.items()}, text, asked)
        self.limiter.record(status, answer.headers, text, resource="core")
        if status >= 500:
            at = retry_after(answer.headers, self._now())
            raise GitHubUnavailable(f"{asked}: {status} {answer.message}".rstrip(), retry_at=at)
        return answer

    def _why_no_answer(self, asked: str, error: Exception) -> str:
        reason = network_failure(error, self._timeout)
        if reason is not None:  # of the server, not of this request: the same words for every request
            return f"GitHub cannot be reached at {self._api_url}: {reason}"
        return f"{asked}: no usable answer ({plain(error)})"

    def follow(self, answer: Answer) -> str | None:
        """The next page's URL, or None. Refuses another host: PyGithub would ask ours for that path."""
        url = answer.next_url
        if url is not None and urlsplit(url)[:2] != urlsplit(self._api_url)[:2]:
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

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, []
        for github in opened:
            github.close()

    def _check_settings(self) -> None:
        """PyGithub asserts its arguments; better now, with a sentence, than in a thread at each request."""
        try:
            self._open().close()
        except Exception as error:
            raise ConfigError(
                f"The GitHub address '{self._api_url}' is not usable: {plain(error)}"
            ) from error

    def _github(self) -> Github:
        mine: Github | None = getattr(self._here, "github", None)
        if mine is None:
            mine = self._open()
            self._here.github = mine
            with self._lock:
                self._opened.append(mine)
        return mine

    def _open(self) -> Github:
        return Github(
            base_url=self._api_url,
            auth=Auth.Token(self._token),
            timeout=self._timeout,
            user_agent="coordinator",
            retry=None,
            lazy=True,
            per_page=PER_PAGE,
            seconds_between_requests=None,
            seconds_between_writes=None,
            api_version=API_VERSION,
        )


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
