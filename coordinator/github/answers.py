"""What GitHub says, as plain values: the shapes this adapter returns and how its JSON becomes them.

Pure: a dict goes in, a frozen value comes out, or `MalformedError`. No request is ever made here, so no
reading of a field can cost quota (PyGithub's lazy attributes can: one more GET each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from adw_modules.security.admission import GHOST, Actor, Comment, Edit, IssueText
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
    is_public: bool = True  # unless GitHub says that it is private

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
    """The newest `labeled` event of a label that nobody has taken off since, and whoever acted."""

    trigger: Trigger
    actor: Actor


@dataclass(frozen=True, slots=True)
class LabelTakenOff:
    """The newest event of a label says that it was taken off, whatever a listing shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBuried:
    """None of the newest events is of the label, and there are more than may be read. Nobody counts as having
    put it on; whoever does it now is among the newest. `newest_event`: the highest id that was read."""

    newest_event: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What an account may do in a repository now: admin, write, read or none, and its role's own name.

    `user_id` is the account that GitHub means by the login; None when it does not say.
    """

    permission: str
    role_name: str
    user_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenText:
    """One answer about an issue's text. `labels_applied`: whatever was ever put on it, in small letters."""

    text: IssueText
    is_public: bool
    labels_applied: frozenset[str]


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
        is_public=raw.get("private") is not True,
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
        author_kind=_author_kind(raw, user),
    )


def _author_kind(raw: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """An app that opens an issue as its user is not that user."""
    return "App" if raw.get("performed_via_github_app") is not None else str(user.get("type") or "")


def last_label_event(events: Iterable[Mapping[str, Any]], label: str) -> LabelEvent | LabelTakenOff | None:
    """Who put `label` on; None when no event tells of it. The order is by time and id, not by page."""
    ours = [raw for raw in events if _concerns(raw, label)]
    if not ours:
        return None
    newest = max(ours, key=lambda raw: (moment(raw, "created_at"), number(raw, "id")))
    return _label_event(newest) if newest["event"] == "labeled" else LabelTakenOff()


def _concerns(raw: Mapping[str, Any], label: str) -> bool:
    return raw.get("event") in ("labeled", "unlabeled") and same_name(text(part(raw, "label"), "name"), label)


def _label_event(raw: Mapping[str, Any]) -> LabelEvent:
    actor = _actor(raw, "actor")
    trigger = Trigger(
        event_id=number(raw, "id"),
        actor=actor.login,
        actor_id=actor.user_id,
        labelled_at=moment(raw, "created_at"),
    )
    return LabelEvent(trigger=trigger, actor=actor)


def _actor(raw: Mapping[str, Any], key: str) -> Actor:
    """Whoever did what `raw` tells. `intent` is left by an agent that acts with its user's credentials."""
    found = part(raw, key)
    by_app = raw.get("performed_via_github_app") is not None or raw.get("intent") is not None
    if not found:
        return Actor(login="", user_id=0, kind="", by_app=by_app)
    return Actor(
        login=text(found, "login"), user_id=number(found, "id"), kind=text(found, "type"), by_app=by_app
    )


def comment(raw: Mapping[str, Any]) -> Comment:
    return Comment(
        comment_id=number(raw, "id"),
        author=_actor(raw, "user"),
        body=raw.get("body") or "",
        created_at=moment(raw, "created_at"),
        updated_at=moment(raw, "updated_at"),
    )


def permission(raw: Mapping[str, Any]) -> Permission:
    named = text(raw, "permission")
    legacy = _LEGACY_PERMISSIONS.get(named, named)
    role, user = raw.get("role_name"), part(raw, "user")
    return Permission(
        permission=legacy,
        role_name=role if isinstance(role, str) else legacy,
        user_id=number(user, "id") if user else None,
    )


# All about the text in one answer, so that no edit slips in between two of them.
TEXT_QUERY = """query($owner: String!, $name: String!, $number: Int!) {
  repository(owner: $owner, name: $name) {
    isPrivate
    issue(number: $number) {
      title body createdAt lastEditedAt
      editor { __typename login ... on User { databaseId } ... on Bot { databaseId } }
      userContentEdits(first: 50) {
        totalCount
        nodes { editedAt editor { __typename login ... on User { databaseId } ... on Bot { databaseId } } }
      }
      renames: timelineItems(last: 50, itemTypes: [RENAMED_TITLE_EVENT]) {
        pageInfo { hasPreviousPage }
        nodes {
          ... on RenamedTitleEvent {
            createdAt
            actor { __typename login ... on User { databaseId } ... on Bot { databaseId } }
          }
        }
      }
      labellings: timelineItems(last: 50, itemTypes: [LABELED_EVENT]) {
        nodes { ... on LabeledEvent { label { name } } }
      }
    }
  }
}"""


def seen_text(raw: Mapping[str, Any]) -> SeenText:
    """What GraphQL says of an issue's text. What its lists leave out counts as an edit by an unknown."""
    repository = part(part(raw, "data"), "repository")
    issue = part(repository, "issue")
    found = IssueText(
        title=text(issue, "title"),
        body=text(issue, "body"),
        edits=(*_body_edits(issue), *_title_edits(issue)),
    )
    return SeenText(
        text=found,
        is_public=repository.get("isPrivate") is not True,
        labels_applied=frozenset(
            text(part(event, "label"), "name").casefold() for event in _nodes(part(issue, "labellings"))
        ),
    )


def _body_edits(issue: Mapping[str, Any]) -> list[Edit]:
    if issue.get("lastEditedAt") is None:
        return []
    last, created = moment(issue, "lastEditedAt"), moment(issue, "createdAt")
    told = part(issue, "userContentEdits")
    nodes = _nodes(told)
    edits = [Edit(at=moment(node, "editedAt"), editor=_graph_actor(node, "editor")) for node in nodes]
    # The text of the beginning stands in the list as well; the last edit is an edit whenever it was.
    found = [edit for edit in edits if edit.at > created]
    found.append(Edit(at=last, editor=_graph_actor(issue, "editor")))
    if not nodes or number(told, "totalCount") > len(nodes):
        found.append(Edit(at=last, editor=None))
    return found


def _title_edits(issue: Mapping[str, Any]) -> list[Edit]:
    told = part(issue, "renames")
    found = [Edit(at=moment(node, "createdAt"), editor=_graph_actor(node, "actor")) for node in _nodes(told)]
    if part(told, "pageInfo").get("hasPreviousPage") is not False:  # those before were no later than these
        oldest = min((edit.at for edit in found), default=moment(issue, "createdAt"))
        found.append(Edit(at=oldest, editor=None))
    return found


def _nodes(connection: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    nodes = connection.get("nodes") or []
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise MalformedError("'nodes' is not a list of objects")
    return nodes


def _graph_actor(raw: Mapping[str, Any], key: str) -> Actor:
    found = part(raw, key)
    if not isinstance(found.get("databaseId"), int):
        return GHOST
    bare, kind = text(found, "login"), text(found, "__typename")
    login = f"{bare}[bot]" if kind == "Bot" and not bare.endswith("[bot]") else bare  # as REST spells it
    return Actor(login=login, user_id=number(found, "databaseId"), kind=kind)


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
