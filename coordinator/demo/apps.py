"""GitHub Apps of the demo server: who signed a request, where an App is installed, which tokens it was given.

Owns the keys, the installations and the tokens with what each reaches and when it ends. No HTTP and no
locking, as in `forge.py`; `routes.py` asks.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from coordinator.demo.forge import Rejected, Repository, Role, User

if TYPE_CHECKING:
    from jwt.types import Options

_MOST_AHEAD = timedelta(minutes=10)  # how far in the future a signature may end
_SKEW = timedelta(seconds=10)


@dataclass(slots=True, kw_only=True)
class App:
    id: int
    client_id: str
    slug: str
    owner: User
    bot: User
    public_key: str  # PEM
    permissions: dict[str, str]
    created_at: datetime


@dataclass(slots=True, kw_only=True)
class Installation:
    """`repositories` None: all of the account's."""

    id: int
    app: App
    account: User
    repositories: set[int] | None
    permissions: dict[str, str]
    created_at: datetime
    suspended_at: datetime | None = None

    def includes(self, repository: Repository) -> bool:
        if repository.owner is not self.account:
            return False
        return self.repositories is None or repository.id in self.repositories


@dataclass(slots=True, kw_only=True)
class Grant:
    """An installation token: what it reaches, and until when."""

    token: str
    installation: Installation
    repositories: frozenset[int] | None
    permissions: dict[str, str]
    expires_at: datetime

    def reaches(self, repository: Repository) -> bool:
        inside = self.repositories is None or repository.id in self.repositories
        return inside and self.installation.includes(repository)

    def role_in(self, repository: Repository) -> Role:
        """A public repository can be read with any token."""
        if self.reaches(repository):
            return Role.WRITE
        return Role.NONE if repository.private else Role.READ

    def allows(self, name: str, *, writing: bool) -> bool:
        return self.permissions.get(name) in (("write", "admin") if writing else ("read", "write", "admin"))


@dataclass(slots=True)
class Apps:
    """All Apps of one server."""

    now: Callable[[], datetime]
    lifetime: timedelta = timedelta(hours=1)
    apps: dict[int, App] = field(default_factory=dict)
    installations: dict[int, Installation] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(71))

    def add(
        self, slug: str, *, owner: User, bot: User, public_key: str, permissions: Mapping[str, str]
    ) -> App:
        number = next(self._ids)
        app = App(
            id=number,
            client_id=f"Iv23li{number:014d}",
            slug=slug,
            owner=owner,
            bot=bot,
            public_key=public_key,
            permissions=dict(permissions),
            created_at=self.now(),
        )
        self.apps[number] = app
        return app

    def by_slug(self, slug: str) -> App:
        return next(app for app in self.apps.values() if app.slug == slug)

    def install(self, app: App, account: User, repositories: set[int] | None) -> Installation:
        made = Installation(
            id=next(self._ids),
            app=app,
            account=account,
            repositories=repositories,
            permissions=dict(app.permissions),
            created_at=self.now(),
        )
        self.installations[made.id] = made
        return made

    def remove(self, number: int) -> None:
        """As its owner's "uninstall" does: its tokens end with it."""
        del self.installations[number]
        self.end_tokens(number)

    def end_tokens(self, number: int) -> None:
        """All tokens of one installation are unknown from now on."""
        self.grants = {token: each for token, each in self.grants.items() if each.installation.id != number}

    def grant_of(self, token: str) -> Grant | None:
        """What an installation token may do; None when it is none, or over. Rejected while suspended."""
        grant = self.grants.get(token)
        if grant is None or self.now() >= grant.expires_at:
            return None
        if grant.installation.suspended_at is not None:
            raise Rejected(403, "This installation has been suspended")
        return grant

    def signer_of(self, token: str) -> App:
        """The App whose signature this is; Rejected in GitHub's words."""
        import jwt

        try:
            claimed = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            raise _undecodable() from None
        app = self._named(claimed.get("iss"))
        try:
            checks: Options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
            jwt.decode(token, app.public_key, algorithms=["RS256"], options=checks)
        except jwt.PyJWTError:
            raise _undecodable() from None
        self._check_times(claimed)
        return app

    def _named(self, issuer: Any) -> App:
        for app in self.apps.values():
            if str(issuer) in {str(app.id), app.client_id}:
                return app
        raise Rejected(404, "Integration not found")

    def _check_times(self, claimed: Mapping[str, Any]) -> None:
        now = self.now()
        if _at(claimed.get("iat")) > now + _SKEW:
            raise Rejected(
                401,
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was "
                "issued",
            )
        ends = _at(claimed.get("exp"))
        if ends <= now:
            raise Rejected(
                401,
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at "
                "which the assertion expires",
            )
        if ends > now + _MOST_AHEAD + _SKEW:
            raise Rejected(401, "'Expiration time' claim ('exp') is too far in the future")

    # What an App may ask --------------------------------------------------------------------------

    def installation(self, app: App, number: int) -> Installation:
        found = self.installations.get(number)
        if found is None or found.app is not app:
            raise Rejected(404, "Not Found")
        return found

    def installation_for(self, app: App, repository: Repository) -> Installation:
        for found in self.installations.values():
            if found.app is app and found.includes(repository):
                return found
        raise Rejected(404, "Not Found")

    def make_token(
        self, installation: Installation, wanted: list[Repository] | None, permissions: Mapping[str, str]
    ) -> Grant:
        """A token for `wanted` (None: all it has), with no more than was granted to the installation."""
        if installation.suspended_at is not None:
            raise Rejected(403, "This installation has been suspended")
        if wanted is not None and not all(map(installation.includes, wanted)):
            raise Rejected(
                422,
                "There is at least one repository that does not exist or is not accessible to the parent "
                "installation.",
            )
        for name, level in permissions.items():
            given = installation.permissions.get(name)
            if given is None or (level == "write" and given == "read"):
                raise Rejected(422, "The permissions requested are not granted to this installation.")
        grant = Grant(
            token=f"ghs_{secrets.token_hex(18)}",
            installation=installation,
            repositories=None if wanted is None else frozenset(each.id for each in wanted),
            permissions=dict(permissions or installation.permissions),
            expires_at=self.now() + self.lifetime,
        )
        self.grants[grant.token] = grant
        return grant


def _undecodable() -> Rejected:
    return Rejected(401, "A JSON web token could not be decoded")


def _at(seconds: Any) -> datetime:
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise _undecodable()
    return datetime.fromtimestamp(min(max(seconds, 0), 32_503_680_000), UTC)
