"""Which repositories everybody can see: what the last poll saw, kept over restarts. Unknown counts as public.

Used on the loop's thread only. What follows from it is for polling and planning to say.
"""

from __future__ import annotations

from adw_modules.config import ResolvedRepository, Settings
from coordinator.store import Store

PUBLIC, PRIVATE = "public", "private"  # values of the store's fact about a repository


class Openness:
    """What is known of the repositories' visibility."""

    def __init__(self, store: Store) -> None:
        self._store = store
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

    def is_closed(self, full_name: str, settings: Settings) -> bool:
        """Whether `why_closed` may have something to say: cheap, as it is asked for each task of a plan."""
        is_open_to_all = settings.admission.public_repositories and not settings.repositories
        return not is_open_to_all and self.is_public(full_name)

    def why_closed(self, repository: ResolvedRepository) -> str | None:
        """Why nothing is started in this repository, and what to set; None when work may be."""
        if repository.may_be_public or not self.is_public(repository.full_name):
            return None
        return closed_text(repository)


def closed_text(repository: ResolvedRepository) -> str:
    """The sentence for a repository that everybody can see and that is not meant to be worked on."""
    key = "admission.public_repositories = true"
    if not repository.is_primary:
        key += ", or public = true in its [[repositories]] table"
    name = repository.full_name
    return f"{name} is public (or GitHub does not say): nothing is started there without {key}"


def _fact(key: str) -> str:
    return f"visibility:{key}"
