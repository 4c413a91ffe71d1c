"""In whose name a request is sent: a credential gives the secret of the moment and the limits it shares.

A token of the configuration never changes (`FixedToken`, here); those of a GitHub App are made for one
repository and end after an hour (`apps.py`). Must not send anything of a task: that is `wire`'s work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from adw_modules.errors import ConfigError
from coordinator.github.limiter import Limiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What goes into the Authorization header. `key` names it without telling it: ETags are kept by it,
    because GitHub computes them over the header as well."""

    key: str
    value: str = field(repr=False)
    scheme: str = "token"


class Credential(Protocol):
    """Safe to share between threads. All of it may block, because a secret may have to be asked for."""

    def secret(self) -> Secret:
        """The secret for a request now. Raises GitHubUnavailable or GitHubRefused when there is none."""

    def limiter(self) -> Limiter:
        """The limits that this credential shares with others of its account. Call after `secret`."""

    def refused(self, secret: Secret) -> bool:
        """GitHub answered 401: whether another secret is worth one more request."""

    @property
    def scope(self) -> str:
        """Whose it is, for records. Never blocks, and never tells the secret."""


class FixedToken:
    """The one token of the configuration, for every repository."""

    def __init__(self, token: str, now: Callable[[], datetime]) -> None:
        if not token:
            raise ConfigError("The GitHub token is empty.")
        self._secret = Secret(key="token", value=token)
        self._limiter = Limiter(now)

    def secret(self) -> Secret:
        return self._secret

    def limiter(self) -> Limiter:
        return self._limiter

    @property
    def scope(self) -> str:
        return "token"

    def refused(self, secret: Secret) -> bool:
        """There is no other one."""
        return secret != self._secret
