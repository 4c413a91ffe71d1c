"""Whether a configured name still means the repository it meant at first: ids are for life, names are not.

A repository that is renamed leaves its name to whoever takes it. Work for the one must not be done, written
or pushed in the other. Owns the id that each name had when it was first seen. Must not talk to GitHub.
"""

from __future__ import annotations

from coordinator.store import Store


def other(store: Store, name: str, repo_id: int) -> str | None:
    """Why nothing is done there; None for the repository that was seen first under that name."""
    key = _key(name)
    known = store.get_state(key)
    if known is None:
        store.set_state(key, str(repo_id))
        return None
    if known == str(repo_id):
        return None
    return (
        f"{name} is another repository than before (id {repo_id}, was {known}): nothing is started or "
        f"written there until `coordinator accept {name}`"
    )


def accept(store: Store, name: str) -> None:
    """Take the repository that has the name at the next look."""
    store.set_state(_key(name), None)


def _key(name: str) -> str:
    return f"repository:{name.casefold()}"
