"""What GitHub says, as plain values: the shapes this adapter returns and how its JSON becomes them.

Pure: a dict goes in, a frozen value comes out, or `MalformedError`. No request is ever made here, so no
reading of a field can cost quota (PyGithub's lazy attributes can: one more GET each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from adw_modules.security.names import is_full_name
from adw_modules.tasks.model import IssueSnapshot, Trigger

# Old spellings of the legacy permission names; servers that only resemble GitHub still use them.
_LEGACY_PERMISSIONS = {"push": "write", "pull": "read"}


class MalformedError(ValueError):
    """The answer is not what GitHub documents: nothing in it may be believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account our token belongs to. Only `user_id` identifies: logins can be renamed and taken over."""

    login: str
    user_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoInfo:
    """A repository as it is now: the id is for life, the name is not."""

    repo_id: int
    full_name: str
    default_branch: str

    @property
    def owner(self) -> str:
        return self.full_name.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All open issues that carry a label, complete. Absence from it is a hint, never a proof."""

    repo_id: int
    issues: tuple[IssueSnapshot, ...]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Every page of the listing is still the one that was read last (304)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueGone:
    """A single issue that cannot be read any more, although GitHub itself answers normally."""

    reason: Literal["transferred", "not found", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvent:
    """The newest `labeled` event of a label that nobody has taken off since.

    `by_app` is true when an app or an agent acted, even on a user's behalf. A deleted account leaves
    `trigger.actor` and `actor_kind` empty and `trigger.actor_id` 0.
    """

    trigger: Trigger
    by_app: bool
    actor_kind: str  # "User", "Bot", "Organization", "Mannequin" … as GitHub says


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What an account may do in a repository now: admin, write, read or none, and its role's own name."""

    permission: str
    role_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One pull request."""

    number: int
    url: str  # the page a human opens
    state: Literal["open", "closed", "merged"]
    draft: bool


def same_name(left: str, right: str) -> bool:
    """GitHub compares labels, logins and repository names without regard to case."""
    return left.casefold() == right.casefold()


def text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key) if isinstance(raw, Mapping) else None
    if not isinstance(value, str):
        raise MalformedError(f"'{key}' is not text")
    return storable(value)


def storable(value: str) -> str:
    """JSON can carry half a surrogate pair, which is in no file and in no database."""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number(raw: Mapping[str, Any], key: str) -> int:
    """A whole number from 0 on that a database can hold."""
    value = raw.get(key) if isinstance(raw, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise MalformedError(f"'{key}' is not a number")
    return value


def moment(raw: Mapping[str, Any], key: str) -> datetime:
    try:
        at = datetime.fromisoformat(text(raw, key))
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedError(f"'{key}' is not a time") from error


def part(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside an object; a JSON null (deleted account, deleted fork) is an empty one."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError(f"'{key}' is not an object")
    return value


def account(raw: Mapping[str, Any]) -> Account:
    return Account(login=text(raw, "login"), user_id=number(raw, "id"))


def repo_info(raw: Mapping[str, Any]) -> RepoInfo:
    full_name = text(raw, "full_name")
    if not is_full_name(full_name):  # it becomes part of the addresses that are asked next
        raise MalformedError("'full_name' is not a repository's name")
    return RepoInfo(
        repo_id=number(raw, "id"),
        full_name=full_name,
        default_branch=text(raw, "default_branch"),
    )


def is_pull_request(raw: Mapping[str, Any]) -> bool:
    """GitHub lists pull requests among the issues; only this key tells them apart."""
    return raw.get("pull_request") is not None


def repository_of(raw: Mapping[str, Any]) -> str:
    """The "owner/name" an issue says it belongs to: the only trustworthy answer after a redirect."""
    pieces = text(raw, "repository_url").rstrip("/").split("/")
    if len(pieces) < 2:
        raise MalformedError("'repository_url' names no repository")
    return "/".join(pieces[-2:])


def label_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    labels = raw.get("labels")
    if not isinstance(labels, list):
        raise MalformedError("'labels' is not a list")
    return tuple(storable(label) if isinstance(label, str) else text(label, "name") for label in labels)


def issue_snapshot(raw: Mapping[str, Any], *, repo: str, repo_id: int) -> IssueSnapshot:
    user, issue_number = part(raw, "user"), number(raw, "number")
    if issue_number == 0:
        raise MalformedError("'number' is not the number of an issue")
    return IssueSnapshot(
        repo=repo,
        repo_id=repo_id,
        number=issue_number,
        title=text(raw, "title"),
        body=text(raw, "body") if raw.get("body") is not None else "",
        labels=label_names(raw),
        author=text(user, "login") if user else "",
        author_id=number(user, "id") if user else 0,
        state=text(raw, "state"),
        url=text(raw, "html_url"),
        created_at=moment(raw, "created_at"),
        updated_at=moment(raw, "updated_at"),
    )


def last_label_event(events: Iterable[Mapping[str, Any]], label: str) -> LabelEvent | None:
    """Who put `label` on, if it is still on. The order is by time and id, not by page."""
    ours = [raw for raw in events if _concerns(raw, label)]
    if not ours:
        return None
    newest = max(ours, key=lambda raw: (moment(raw, "created_at"), number(raw, "id")))
    return _label_event(newest) if newest["event"] == "labeled" else None


def _concerns(raw: Mapping[str, Any], label: str) -> bool:
    return raw.get("event") in ("labeled", "unlabeled") and same_name(text(part(raw, "label"), "name"), label)


def _label_event(raw: Mapping[str, Any]) -> LabelEvent:
    actor = part(raw, "actor")
    return LabelEvent(
        trigger=Trigger(
            event_id=number(raw, "id"),
            actor=text(actor, "login") if actor else "",
            actor_id=number(actor, "id") if actor else 0,
            labelled_at=moment(raw, "created_at"),
        ),
        # `intent` is what an agent leaves when it labels with its user's own credentials.
        by_app=raw.get("performed_via_github_app") is not None or raw.get("intent") is not None,
        actor_kind=text(actor, "type") if actor else "",
    )


def permission(raw: Mapping[str, Any]) -> Permission:
    named = text(raw, "permission")
    legacy = _LEGACY_PERMISSIONS.get(named, named)
    role = raw.get("role_name")
    return Permission(permission=legacy, role_name=role if isinstance(role, str) else legacy)


def pull(raw: Mapping[str, Any]) -> Pull:
    state: Literal["open", "closed", "merged"] = "open" if text(raw, "state") == "open" else "closed"
    return Pull(
        number=number(raw, "number"),
        url=text(raw, "html_url"),
        state="merged" if raw.get("merged_at") else state,
        draft=raw.get("draft") is True,
    )


def is_pull_of(raw: Mapping[str, Any], *, owner: str, branch: str) -> bool:
    """The `head` filter is lost after a redirect, and a fork may use the same branch name: look again."""
    head = part(raw, "head")
    owner_of_head, _, _ = str(head.get("label") or "").rpartition(":")
    login = part(head, "user").get("login") or owner_of_head
    return text(head, "ref") == branch and same_name(str(login), owner)
