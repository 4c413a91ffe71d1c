"""Which repository a configured name means now.

Owns the renames: GitHub redirects old names (301 for reads, 307 for writes), and PyGithub follows the
first without the query and the second not at all. So a name is resolved once to id and current name, and
everything is asked under the current name; a redirect only makes us resolve again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adw_modules.errors import ConfigError, GitHubRefused
from adw_modules.security.names import is_full_name
from coordinator.github.answers import RepoInfo, repo_info, same_name
from coordinator.github.wire import Answer, Wire

_REDIRECTS = (301, 302, 307, 308)


class Repositories:
    """Names, ids and default branches, and requests below `/repos/{name}`. Blocking."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._known: dict[str, RepoInfo] = {}

    def info(self, repo: str) -> RepoInfo:
        """What `repo` is, asked once per process. ConfigError when it is not "owner/name"."""
        return self._known.get(_key(repo)) or self.resolve(repo)

    def resolve(self, repo: str) -> RepoInfo:
        """Ask again: the current name, id and default branch."""
        key = _key(repo)
        info = self._wire.send("GET", f"/repos/{repo}").expect(200).parse(repo_info)
        self._known[key] = info
        return info

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
