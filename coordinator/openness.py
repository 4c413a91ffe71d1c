"""Which repositories everybody can see: what the last poll saw, kept over restarts. Unknown counts as public.

Used on the loop's thread only. What follows from it is for polling and planning to say.
"""

from __future__ import annotations

from collections.abc import Callable

from adw_modules.config import ResolvedRepository
from coordinator.store import Store

PUBLIC, PRIVATE = "public", "private"  # values of the store's fact about a repository


class Openness:
    """What is known of the repositories' visibility.

    `why_unsafe` says in half a sentence why no agent of this host may work for strangers, or None.
    """

    def __init__(self, store: Store, why_unsafe: Callable[[], str | None]) -> None:
        self._store = store
        self._why_unsafe = why_unsafe
        self._seen: dict[str, str | None] = {}

    def is_public(self, full_name: str) -> bool:
        """Whether everybody can see it, or nobody knows."""
        key = full_name.casefold()
        if key not in self._seen:
            self._seen[key] = self._store.get_state(_fact(key))
        return self._seen[key] != PRIVATE

    def note(self, full_name: str, *, is_public: bool) -> bool:
        """Keep what GitHub says; True when that is news."""
        key, seen = full_name.casefold(), PUBLIC if is_public else PRIVATE
        if key not in self._seen:
            self._seen[key] = self._store.get_state(_fact(key))
        if self._seen[key] == seen:
            return False
        self._store.set_state(_fact(key), seen)
        self._seen[key] = seen
        return True

    def why_closed(self, repository: ResolvedRepository) -> str | None:
        """Why nothing is started in this repository, and what to set; None when work may be.

        Blocks where nobody has looked for a sandbox yet, which the daemon does as it starts.
        """
        if not self.is_public(repository.full_name):
            return None
        if not repository.may_be_public:
            return closed_text(repository)
        problem = self._why_unsafe()
        return None if problem is None else unsafe_text(repository, problem)


def closed_text(repository: ResolvedRepository) -> str:
    """The sentence for a repository that everybody can see and that is not meant to be worked on."""
    key = "admission.public_repositories = true"
    if not repository.is_primary:
        key += ", or public = true in its [[repositories]] table"
    name = repository.full_name
    return f"{name} is public (or GitHub does not say): nothing is started there without {key}"


def unsafe_text(repository: ResolvedRepository, problem: str) -> str:
    """The sentence for a repository that may be public, on a host that has no sandbox for its agents."""
    return (
        f"{repository.full_name} is public (or GitHub does not say), and {problem}: nothing is started there "
        "without a sandbox; see `coordinator doctor`, or set sandbox.required_for_public = false"
    )


def _fact(key: str) -> str:
    return f"visibility:{key}"
