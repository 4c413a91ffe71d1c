"""Who may start work, and whether a text is still the one that was approved. Rules 1 to 5.

Pure: it judges what `coordinator.github` fetched. Fails closed: whatever is unknown refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

WRITE_PERMISSIONS = frozenset(
    {"admin", "write"}
)  # GitHub's legacy words: `maintain` shows as write, `triage` as read
NEVER_ROLES = frozenset({"", "*", "none", "read", "pull"})  # what everybody has on a public repository
PERSON, BOT = "User", "Bot"  # kinds of accounts, as GitHub calls them
MAX_EDITORS = 5  # accounts that are asked about for one text; beyond that nobody knows who wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who did something. Only `user_id` identifies: a login can be renamed and taken over.

    A deleted account has no login and the id 0. `by_app`: an app or an agent acted, even as its user.
    """

    login: str
    user_id: int
    kind: str  # "User", "Bot", "Organization", "Mannequin" … as GitHub says
    by_app: bool = False

    @property
    def is_gone(self) -> bool:
        return not self.login or not self.user_id


GHOST = Actor(login="", user_id=0, kind="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An account and what GitHub says it may do in the repository now. `problem`: why it does not say."""

    actor: Actor
    permission: str = "none"  # admin, write, read, none
    role: str = "none"  # the role's own name: maintain, triage, or one that an organisation made
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the configuration adds to the rule: further roles, and apps by their numeric account id."""

    roles: frozenset[str] = frozenset()
    bots: frozenset[int] = frozenset()

    def needs_permission(self, actor: Actor) -> bool:
        """Whether GitHub has to be asked at all: apps have no permission, and nobody else may be an app."""
        return not actor.is_gone and actor.kind == PERSON and not actor.by_app

    def is_listed_bot(self, actor: Actor) -> bool:
        """The kind is looked at first: a person of any name and number is never taken for a bot."""
        return actor.kind == BOT and not actor.is_gone and actor.user_id in self.bots

    def refusal(self, standing: Standing) -> str | None:
        """Why this account may not start work, as the rest of a sentence about it; None when it may."""
        actor = standing.actor
        if actor.is_gone:
            return "no longer exists"
        if self.is_listed_bot(actor):
            return None
        if not self.needs_permission(actor):
            return "is an app, or acted through one; a person with write access has to do it"
        if standing.problem is not None:
            return f"may do nobody knows what ({standing.problem})"
        if standing.permission in WRITE_PERMISSIONS or standing.role.casefold() in self.roles:
            return None
        return f"has no write access ({_shown(standing)})"

    def admits(self, standing: Standing) -> bool:
        return self.refusal(standing) is None


def _shown(standing: Standing) -> str:
    role = standing.role
    return role if role and role != standing.permission else standing.permission


# -- the text, and who has touched it --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change of title or body. `editor` None: nobody knows who made it."""

    at: datetime
    editor: Actor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueText:
    """Title and body with their changes, of one moment. `unknown`: why the changes cannot be known."""

    title: str
    body: str
    edits: tuple[Edit, ...] = ()
    unknown: str | None = None

    def edits_since(self, moment: datetime) -> tuple[Edit, ...]:
        """The changes in that second or later: GitHub's times have whole ones, so the same may be later."""
        return tuple(edit for edit in self.edits if edit.at >= moment)

    def editors_since(self, moment: datetime) -> tuple[Actor, ...]:
        """Each account that has changed it since, once."""
        found = {edit.editor.user_id: edit.editor for edit in self.edits_since(moment) if edit.editor}
        return tuple(found.values())


def edited_by_others(text: IssueText, moment: datetime, *, may_start: Callable[[Actor], bool]) -> str | None:
    """Why the text cannot be taken for the one that was approved at `moment`; None when it can.

    A change by somebody who may start work is approved by that: it could as well be a label put on again.
    """
    for edit in text.edits_since(moment):
        if edit.editor is None or edit.editor.is_gone:
            return f"the text was edited at {edit.at:%H:%M:%S} UTC, after the label, nobody knows by whom"
        if not may_start(edit.editor):
            who = edit.editor.login
            return f"the text was edited at {edit.at:%H:%M:%S} UTC, after the label, by {who}"
    return text.unknown


def compared(title: str, body: str, *, updated_at: datetime, approved_at: datetime) -> IssueText:
    """A text of which only the last update is known: of the issue, whatever that was.

    An update no later than the label is the label itself. Of a later one nobody can say what it was.
    """
    if updated_at <= approved_at:
        return IssueText(title=title, body=body)
    why = "nobody can say whether the text was edited after the label"
    return IssueText(title=title, body=body, unknown=why)


# -- comments ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment as GitHub shows it."""

    comment_id: int
    author: Actor
    body: str
    created_at: datetime
    updated_at: datetime  # of its last edit, if there was one

    def is_before(self, moment: datetime) -> bool:
        """Written and last edited strictly before: the same second may have been later."""
        return self.created_at < moment and self.updated_at < moment


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptComment:
    """A comment that was approved with the text, as it stood then."""

    author: str
    author_id: int
    at: datetime
    body: str


MAX_COMMENTS = 50  # the newest ones
MAX_COMMENT_AUTHORS = 20


def before(comments: Iterable[Comment], moment: datetime, *, but: int) -> tuple[Comment, ...]:
    """The newest comments that the label can have approved, oldest first, without those of account `but`."""
    found = [each for each in comments if each.is_before(moment) and each.author.user_id != but]
    return tuple(sorted(found, key=lambda each: (each.created_at, each.comment_id))[-MAX_COMMENTS:])


def authors(comments: Iterable[Comment]) -> tuple[Actor, ...]:
    """Each author once; an app that comments as its user is another one than that user."""
    found = {(each.author.user_id, each.author.by_app): each.author for each in comments}
    return tuple(found.values())[:MAX_COMMENT_AUTHORS]


def kept(comments: Iterable[Comment], *, may_start: Callable[[Actor], bool]) -> tuple[KeptComment, ...]:
    """Those whose authors may start work."""
    return tuple(
        KeptComment(
            author=each.author.login, author_id=each.author.user_id, at=each.created_at, body=each.body
        )
        for each in comments
        if may_start(each.author)
    )


def fingerprint(title: str, body: str, comments: Iterable[KeptComment] = ()) -> str:
    """SHA-256 of a snapshot. Lines may come back with other ends, so they count as the same."""
    digest = hashlib.sha256()
    for part in _parts(title, body, comments):
        data = part.replace("\r\n", "\n").encode(errors="replace")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


def _parts(title: str, body: str, comments: Iterable[KeptComment]) -> Iterator[str]:
    yield from (title, body)
    for comment in comments:
        yield from (str(comment.author_id), comment.at.isoformat(), comment.body)


# -- the record of a decision ------------------------------------------------------------------------------


class Decided(StrEnum):
    """What was decided about an issue. Whoever owns a further decision adds a word."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    PAUSED = "paused"
    APPROVED = "approved"  # a change that needed a person: just that commit may be published
    RECHECKED = "rechecked"  # looked at again, and it goes on: after an edit, and before a push
    REVOKED = "revoked"  # looked at again, and it does not: nothing is started or pushed


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One decision and all that it was made of. Never a secret, never a text.

    `details`: plain JSON data of whoever decides, such as a base commit or the scope of a token.
    """

    decision: str
    reason: str
    config_version: str
    standing: Standing | None = None
    event_id: int | None = None
    snapshot: str | None = None  # SHA-256 of the text that was decided about
    details: dict[str, object] = field(default_factory=dict)
