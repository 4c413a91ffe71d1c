"""Which repository a configured name means now.

Owns the renames: GitHub redirects old names (301 for reads, 307 for writes), and PyGithub follows the
first without the query and the second not at all. So a name is resolved once to id and current name, and
everything is asked under the current name; a redirect only makes us resolve again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from adw_modules.errors import ConfigError, GitHubRefused
from adw_modules.security.names import is_full_name
from coordinator.github.answers import RepoInfo, repo_info, same_name
from coordinator.github.wire import Answer, Wire

_REDIRECTS = (301, 302, 307, 308)


LOOK_AGAIN_SECONDS = 3600.0  # whether a repository has become public


class Repositories:
    """Names, ids, default branches and visibility, and requests below `/repos/{name}`. Blocking."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._known: dict[str, RepoInfo] = {}
        # When (monotonic), the ETag of the answer, and which secret it was given to.
        self._asked: dict[str, tuple[float, str | None, str]] = {}

    def info(self, repo: str) -> RepoInfo:
        """What `repo` is, asked once per process. ConfigError when it is not "owner/name"."""
        return self._known.get(_key(repo)) or self.resolve(repo)

    def resolve(self, repo: str) -> RepoInfo:
        """Ask again: the current name, id and default branch."""
        key = _key(repo)
        answer = self._wire.send("GET", f"/repos/{repo}").expect(200)
        info = answer.parse(repo_info)
        self._known[key], self._asked[key] = info, (monotonic(), answer.headers.get("etag"), answer.key)
        return info

    def is_public(self, repo: str, *, now: bool = False) -> bool:
        """Whether everybody can see it; asked again once an hour, and then only whether anything changed.

        With `now` it is asked however short ago that was.
        """
        key, info = _key(repo), self.info(repo)
        at, etag, asked_with = self._asked.get(key, (0.0, None, ""))
        if not now and monotonic() - at < LOOK_AGAIN_SECONDS:
            return info.is_public
        if etag is not None and asked_with == self._wire.key:
            headers = {"If-None-Match": etag}
            if self._wire.send("GET", self.url(repo, ""), headers=headers).status == 304:
                self._asked[key] = (monotonic(), etag, asked_with)
                return info.is_public
        return self.resolve(repo).is_public

    def saw_public(self, repo: str, *, is_public: bool) -> None:
        """Another answer has told, so that nobody waits for the hour."""
        info = self._known.get(_key(repo))
        if info is not None and info.is_public != is_public:
            self._known[_key(repo)] = replace(info, is_public=is_public)
            self._asked.pop(_key(repo), None)  # its ETag belongs to the other answer

    def forget(self, repo: str) -> None:
        self._known.pop(_key(repo), None)

    def url(self, repo: str, suffix: str) -> str:
        known = self._known.get(_key(repo))
        return f"/repos/{known.full_name if known else repo}{suffix}"

    def send(self, verb: str, repo: str, suffix: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request below the repository. A redirect was not carried out, so a POST may follow it once."""
        asked = self.url(repo, suffix)
        answer = self._wire.send(verb, asked, body=body)
        if answer.status not in _REDIRECTS:
            return answer
        self.resolve(repo)
        renamed = self.url(repo, suffix)
        if same_name(renamed, asked):
            raise GitHubRefused(f"{answer.asked}: redirected to an unknown place", status=answer.status)
        return self._wire.send(verb, renamed, body=body)


def _key(repo: str) -> str:
    if not is_full_name(repo):
        raise ConfigError(f"'{repo}' is not a repository name of the form owner/name.")
    return repo.casefold()
