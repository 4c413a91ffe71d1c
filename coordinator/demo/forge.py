"""What the demo server knows: accounts, repositories, issues, comments, labels, events, pull requests.

Plain objects in memory with GitHub's rules about them (who may do what, which number comes next, which
event a change leaves). No HTTP, no JSON, no locking: the server holds its lock around every call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from pathlib import Path

from coordinator.demo import bare

MAX_BODY_CHARACTERS = 65_536
MAX_LABEL_CHARACTERS = 50
_DEFAULT_LABELS = {
    "bug": ("d73a4a", "Something isn't working"),
    "documentation": ("0075ca", "Improvements or additions to documentation"),
    "duplicate": ("cfd3d7", "This issue or pull request already exists"),
    "enhancement": ("a2eeef", "New feature or request"),
    "good first issue": ("7057ff", "Good for newcomers"),
    "help wanted": ("008672", "Extra attention is needed"),
    "invalid": ("e4e669", "This doesn't seem right"),
    "question": ("d876e3", "Further information is requested"),
    "wontfix": ("ffffff", "This will not be worked on"),
}


class Role(IntEnum):
    """What an account may do in a repository; a higher role includes the lower ones."""

    NONE = 0
    READ = 1
    TRIAGE = 2
    WRITE = 3
    MAINTAIN = 4
    ADMIN = 5

    @property
    def word(self) -> str:
        """The spelling of `role_name`."""
        return self.name.lower()

    @property
    def legacy(self) -> str:
        """The spelling of `permission`, which knows neither triage nor maintain."""
        return {Role.TRIAGE: "read", Role.MAINTAIN: "write"}.get(self, self.word)


class Rejected(Exception):
    """A change GitHub would refuse. Becomes an error answer with `status` and GitHub's error list."""

    def __init__(self, status: int, message: str, *errors: dict[str, object] | str) -> None:
        self.status = status
        self.message = message
        self.errors = errors
        super().__init__(message)


def invalid(resource: str, fieldname: str, code: str, message: str | None = None) -> Rejected:
    """The 422 that names one field."""
    error: dict[str, object] = {"resource": resource, "field": fieldname, "code": code}
    if message is not None:
        error["message"] = message
    return Rejected(422, "Validation Failed", error)


@dataclass(slots=True, kw_only=True)
class User:
    id: int
    login: str
    kind: str  # "User", "Bot" or "Organization"
    created_at: datetime


@dataclass(slots=True, kw_only=True)
class Label:
    id: int
    name: str
    color: str
    description: str | None
    default: bool = False


@dataclass(slots=True, kw_only=True)
class Comment:
    id: int
    number: int
    author: User
    body: str
    created_at: datetime
    updated_at: datetime
    app: str | None = None


@dataclass(slots=True, kw_only=True)
class Event:
    id: int
    kind: str  # "labeled", "unlabeled", "closed", "reopened", "renamed"
    actor: User | None  # None: the account was deleted since
    created_at: datetime
    label: Label | None = None
    app: str | None = None
    state_reason: str | None = None
    intent: str | None = None  # why an agent did it, with its user's own credentials
    rename: tuple[str, str] | None = None  # the title before and after


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEdit:
    at: datetime
    editor: User | None  # None: the account was deleted since


@dataclass(slots=True, kw_only=True)
class Pull:
    head: str  # a branch of the same repository
    base: str
    draft: bool
    commits: int
    head_sha: str  # as last seen, for when the branch is gone
    base_sha: str


@dataclass(slots=True, kw_only=True)
class Issue:
    """An issue or, with `pull`, a pull request: GitHub numbers and lists them together."""

    id: int
    number: int
    title: str
    body: str | None
    author: User
    created_at: datetime
    updated_at: datetime
    labels: list[Label] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    edits: list[TextEdit] = field(default_factory=list)  # of the body
    state: str = "open"
    state_reason: str | None = None
    closed_at: datetime | None = None
    closed_by: User | None = None
    locked: bool = False
    pull: Pull | None = None
    deleted: bool = False
    moved_to: tuple[Repository, int] | None = None

    def has_label(self, name: str) -> bool:
        """Label names are compared without case, as GitHub does."""
        return any(label.name.lower() == name.lower() for label in self.labels)


@dataclass(slots=True, kw_only=True)
class Repository:
    id: int
    owner: User
    name: str
    private: bool
    default_branch: str
    git_dir: Path
    created_at: datetime
    archived: bool = False
    has_issues: bool = True
    labels: dict[str, Label] = field(default_factory=dict)  # by lower-case name
    issues: dict[int, Issue] = field(default_factory=dict)
    comments: dict[int, Comment] = field(default_factory=dict)
    roles: dict[int, Role] = field(default_factory=dict)  # by the account's id
    role_names: dict[int, str] = field(default_factory=dict)  # of those that an organisation made itself

    @property
    def full_name(self) -> str:
        return f"{self.owner.login}/{self.name}"

    def role_of(self, user: User) -> Role:
        """What the permission endpoint says of an account. On a public repository everybody can read."""
        if user.login == self.owner.login:
            return Role.ADMIN
        return self.roles.get(user.id, Role.NONE if self.private else Role.READ)

    def role_name_of(self, user: User) -> str:
        """The true name of the role, which `permission` knows only by what it is based on."""
        return self.role_names.get(user.id, self.role_of(user).word)

    def access_of(self, user: User | None) -> Role:
        """What a request may do; None is one without a token."""
        least = Role.NONE if self.private else Role.READ
        return least if user is None else max(least, self.role_of(user))

    def open_count(self) -> int:
        return sum(issue.state == "open" and issue.moved_to is None for issue in self.issues.values())

    def sha(self, branch: str) -> str | None:
        return bare.ref_sha(self.git_dir, branch)


class Forge:
    """All accounts and repositories of one server."""

    def __init__(self, git_root: Path, clock: Callable[[], datetime]) -> None:
        self.git_root = git_root
        self.users: dict[str, User] = {}  # by lower-case login
        self.tokens: dict[str, User] = {}
        self.repositories: dict[int, Repository] = {}
        self.names: dict[str, int] = {}  # lower-case "owner/name", also former ones -> repository id
        self._clock = clock
        self._ids = itertools.count(1001)

    def now(self) -> datetime:
        """GitHub's times have whole seconds."""
        return self._clock().replace(microsecond=0)

    # Accounts -------------------------------------------------------------------------------------

    def add_user(self, login: str, kind: str) -> User:
        """The account with this login, made when it is new."""
        known = self.users.get(login.lower())
        if known is not None:
            return known
        user = User(id=next(self._ids), login=login, kind=kind, created_at=self.now())
        self.users[login.lower()] = user
        return user

    def rename_user(self, user: User, login: str) -> None:
        """The id stays; the old login is free for anybody."""
        del self.users[user.login.lower()]
        user.login = login
        self.users[login.lower()] = user

    def user(self, login: str) -> User:
        """The account with this login; accounts mentioned by a test spring into being."""
        return self.add_user(login, "Bot" if login.endswith("[bot]") else "User")

    # Repositories ---------------------------------------------------------------------------------

    def add_repository(
        self, full_name: str, *, private: bool, default_branch: str, files: dict[str, str]
    ) -> Repository:
        owner, name = full_name.split("/")
        path = self.git_root / owner / f"{name}.git"
        bare.create(path, branch=default_branch, files=files)
        repository = Repository(
            id=next(self._ids),
            owner=self.user(owner),
            name=name,
            private=private,
            default_branch=default_branch,
            git_dir=path,
            created_at=self.now(),
        )
        for label, (color, description) in _DEFAULT_LABELS.items():
            self.create_label(repository, label, color, description).default = True
        self.repositories[repository.id] = repository
        self.names[full_name.lower()] = repository.id
        return repository

    def repository(self, full_name: str) -> Repository:
        """By present or former name; KeyError when there is none."""
        return self.repositories[self.names[full_name.lower()]]

    def rename(self, repository: Repository, full_name: str) -> None:
        """The old name goes on leading here. The git directory stays where it is."""
        owner, name = full_name.split("/")
        repository.owner, repository.name = self.user(owner), name
        self.names[full_name.lower()] = repository.id

    # Labels ---------------------------------------------------------------------------------------

    def create_label(self, repository: Repository, name: str, color: str, description: str | None) -> Label:
        """A new label of the repository; 422 when the name is taken, empty or too long."""
        if not name.strip():
            raise invalid("Label", "name", "missing_field")
        if len(name) > MAX_LABEL_CHARACTERS:
            raise invalid(
                "Label",
                "name",
                "too_long",
                f"name is too long (maximum is {MAX_LABEL_CHARACTERS} characters)",
            )
        if name.lower() in repository.labels:
            raise invalid("Label", "name", "already_exists")
        label = Label(id=next(self._ids), name=name, color=color.lower(), description=description)
        repository.labels[name.lower()] = label
        return label

    def put_labels(
        self,
        repository: Repository,
        issue: Issue,
        names: Iterable[str],
        actor: User | None,
        *,
        app: str | None = None,
        intent: str | None = None,
    ) -> None:
        """Add labels, making those the repository does not know yet."""
        for name in names:
            if issue.has_label(name):
                continue
            label = repository.labels.get(name.lower()) or self.create_label(repository, name, "ededed", None)
            issue.labels.append(label)
            self._record(issue, "labeled", actor, label=label, app=app, intent=intent)

    def take_label(self, issue: Issue, name: str, actor: User | None, *, app: str | None = None) -> None:
        """Remove one label; 404 when the issue does not have it."""
        label = next((label for label in issue.labels if label.name.lower() == name.lower()), None)
        if label is None:
            raise Rejected(404, "Label does not exist")
        issue.labels.remove(label)
        self._record(issue, "unlabeled", actor, label=label, app=app)

    # Issues ---------------------------------------------------------------------------------------

    def add_issue(self, repository: Repository, *, title: str, body: str | None, author: User) -> Issue:
        if not title.strip():
            raise invalid("Issue", "title", "missing_field")
        _refuse_long("Issue", body)
        issue = Issue(
            id=next(self._ids),
            number=max(repository.issues, default=0) + 1,
            title=title,
            body=body,
            author=author,
            created_at=self.now(),
            updated_at=self.now(),
        )
        repository.issues[issue.number] = issue
        return issue

    def edit_issue(self, issue: Issue, *, title: str | None, body: str | None, editor: User | None) -> None:
        """None leaves a field as it is. A new title leaves an event, a new body an edit."""
        _refuse_long("Issue", body)
        if title is not None and title != issue.title:
            self._record(issue, "renamed", editor, rename=(issue.title, title))
            issue.title = title
        if body is not None and body != issue.body:
            issue.edits.append(TextEdit(at=self.now(), editor=editor))
            issue.body = body
        issue.updated_at = self.now()

    def set_state(self, issue: Issue, state: str, actor: User | None, reason: str | None = None) -> None:
        """Close or reopen; the same state again changes nothing and leaves no event."""
        if state not in ("open", "closed"):
            raise invalid("Issue", "state", "invalid")
        if state == issue.state:
            return
        closing = state == "closed"
        issue.state = state
        issue.state_reason = (reason or "completed") if closing else "reopened"
        issue.closed_at = self.now() if closing else None
        issue.closed_by = actor if closing else None
        self._record(issue, "closed" if closing else "reopened", actor, reason=issue.state_reason)

    def transfer(self, issue: Issue, target: Repository) -> Issue:
        """The issue goes on in another repository; the old address leads there."""
        moved = self.add_issue(target, title=issue.title, body=issue.body, author=issue.author)
        issue.moved_to = (target, moved.number)
        return moved

    def add_comment(
        self, repository: Repository, issue: Issue, author: User, body: str, *, app: str | None = None
    ) -> Comment:
        _refuse_blank_or_long(body)
        comment = Comment(
            id=next(self._ids),
            number=issue.number,
            author=author,
            body=body,
            created_at=self.now(),
            updated_at=self.now(),
            app=app,
        )
        repository.comments[comment.id] = comment
        issue.comments.append(comment)
        issue.updated_at = self.now()
        return comment

    def edit_comment(self, comment: Comment, body: str) -> None:
        _refuse_blank_or_long(body)
        comment.body = body
        comment.updated_at = self.now()

    @staticmethod
    def delete_comment(repository: Repository, comment: Comment) -> None:
        del repository.comments[comment.id]
        repository.issues[comment.number].comments.remove(comment)

    def _record(
        self,
        issue: Issue,
        kind: str,
        actor: User | None,
        *,
        label: Label | None = None,
        app: str | None = None,
        reason: str | None = None,
        intent: str | None = None,
        rename: tuple[str, str] | None = None,
    ) -> None:
        issue.updated_at = self.now()
        issue.events.append(
            Event(
                id=next(self._ids),
                kind=kind,
                actor=actor,
                created_at=self.now(),
                label=label,
                app=app,
                state_reason=reason,
                intent=intent,
                rename=rename,
            )
        )

    # Pull requests --------------------------------------------------------------------------------

    def add_pull(
        self,
        repository: Repository,
        *,
        title: str,
        body: str | None,
        author: User,
        head: str,
        base: str,
        draft: bool,
    ) -> Issue:
        """A pull request between two branches of one repository; 422 for all that GitHub refuses."""
        head_sha, base_sha = repository.sha(head), repository.sha(base)
        if head_sha is None or base_sha is None:
            raise invalid("PullRequest", "head" if head_sha is None else "base", "invalid")
        if self._open_pull(repository, head, base) is not None:
            text = f"A pull request already exists for {repository.owner.login}:{head}."
            raise Rejected(
                422, "Validation Failed", {"resource": "PullRequest", "code": "custom", "message": text}
            )
        commits = bare.commits_ahead(repository.git_dir, base_sha, head_sha)
        if commits == 0:
            text = f"No commits between {base} and {head}"
            raise Rejected(
                422, "Validation Failed", {"resource": "PullRequest", "code": "custom", "message": text}
            )
        issue = self.add_issue(repository, title=title, body=body, author=author)
        issue.pull = Pull(
            head=head, base=base, draft=draft, commits=commits, head_sha=head_sha, base_sha=base_sha
        )
        return issue

    @staticmethod
    def _open_pull(repository: Repository, head: str, base: str) -> Issue | None:
        return next(
            (
                issue
                for issue in repository.issues.values()
                if issue.pull and issue.state == "open" and (issue.pull.head, issue.pull.base) == (head, base)
            ),
            None,
        )


def _refuse_long(resource: str, body: str | None) -> None:
    if body is not None and len(body) > MAX_BODY_CHARACTERS:
        raise invalid(
            resource, "body", "custom", f"body is too long (maximum is {MAX_BODY_CHARACTERS} characters)"
        )


def _refuse_blank_or_long(body: str) -> None:
    if not body.strip():
        raise invalid("IssueComment", "body", "missing_field", "body cannot be blank")
    _refuse_long("IssueComment", body)
