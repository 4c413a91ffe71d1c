"""A GitHub App: it signs for itself, and asks for tokens that reach one repository for one hour.

Owns the signatures, which installation a repository belongs to, and the token of each repository: made when
it is first needed, shared by all who need it meanwhile, renewed before it ends. A token that reaches more
than it was asked for is not used. Rules: "Generating an installation access token",
https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from adw_modules.errors import GitHubRefused, GitHubUnavailable
from coordinator.github import answers
from coordinator.github.answers import Account
from coordinator.github.appkey import AppAccess
from coordinator.github.credentials import Secret
from coordinator.github.limiter import Limiter
from coordinator.github.wire import Answer, Transport, Wire, read

PERMISSIONS: Mapping[str, str] = {
    "contents": "write",  # fetch, and push auto/gh-<n>
    "issues": "write",
    "metadata": "read",
    "pull_requests": "write",
}
RENEW_BEFORE = timedelta(minutes=5)
KEEP_FAILURE = timedelta(seconds=10)  # twenty that wait for the same token are one failed request
JUST_MADE = timedelta(seconds=30)  # GitHub's own servers may not know a token for a moment
_BACKDATED = timedelta(seconds=60)  # what GitHub advises against clocks that differ a little
_LIFETIME = timedelta(minutes=9)  # of a signature; GitHub takes ten minutes at most
_TELLING = timedelta(seconds=30)  # a smaller difference of the clocks is no reason for a refusal

Learn = Callable[[str, str], None]  # (what it is the secret of, the secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where the App may work, and what it was given there. `permissions`: name -> "read" or "write"."""

    installation_id: int
    permissions: Mapping[str, str]
    is_suspended: bool

    @property
    def missing(self) -> list[str]:
        """What it needs and was not given, such as "issues: write"."""
        return missing_permissions(self.permissions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    secret: Secret
    made_at: datetime
    renew_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class _Failure:
    error: GitHubRefused | GitHubUnavailable
    until: datetime


def missing_permissions(given: Mapping[str, str]) -> list[str]:
    """What of PERMISSIONS is not in `given`; "write" includes "read"."""
    enough = {"read": ("read", "write", "admin"), "write": ("write", "admin")}
    return [f"{name}: {level}" for name, level in PERMISSIONS.items() if given.get(name) not in enough[level]]


class GitHubApp:
    """What the App asks in its own name, and one credential for each repository. Blocking; for any thread."""

    def __init__(self, access: AppAccess, transport: Transport, *, learn: Learn) -> None:
        self.access = access
        self.now = transport.now
        self.learn = learn
        self._transport = transport
        self._own_limiter = Limiter(self.now)
        self._lock = threading.Lock()
        self._limiters: dict[int, Limiter] = {}
        self._credentials: dict[str, InstallationCredential] = {}
        self._offset = timedelta()  # GitHub's clock minus ours, once a refusal has shown that it matters

    def credential(self, repo: str) -> InstallationCredential:
        """The one credential of a repository."""
        with self._lock:
            key = repo.casefold()
            if key not in self._credentials:
                self._credentials[key] = InstallationCredential(self, repo)
            return self._credentials[key]

    def limiter(self, installation_id: int) -> Limiter:
        """GitHub counts for each installation on its own."""
        with self._lock:
            return self._limiters.setdefault(installation_id, Limiter(self.now))

    @property
    def limiters(self) -> dict[str, Limiter]:
        """All there are, by a name for people."""
        with self._lock:
            found = {f"installation {number}": each for number, each in sorted(self._limiters.items())}
        return {**found, "app": self._own_limiter}

    def clock_was_set_back(self, step: timedelta) -> None:
        """A token is good for as long as it was; `step` is negative."""
        for limiter in self.limiters.values():
            limiter.clock_was_set_back(step)
        with self._lock:
            credentials = list(self._credentials.values())
        for credential in credentials:
            credential.clock_was_set_back(step)

    # Questions in the App's own name

    def ask(self, verb: str, url: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request signed by the App. A signature that was refused for our clock is made once more."""
        answer = self._send(verb, url, body)
        if answer.status == 401 and self._learn_clock(answer):
            answer = self._send(verb, url, body)
        if answer.status == 401:
            raise GitHubRefused(
                f"GitHub does not take the signature of the App {self.access.issuer} ({answer.message}): "
                "look at app_id (or client_id) and at the private key",
                status=401,
            )
        return answer

    def account(self, through: Wire) -> Account:
        """The account that the App's comments are from. Only the App itself may ask for its own name."""
        return through.send("GET", f"/users/{self.slug()}%5Bbot%5D").expect(200).parse(answers.account)

    def slug(self) -> str:
        """The App's name in addresses, and of its account."""
        return self.ask("GET", "/app").expect(200).parse(lambda raw: answers.text(raw, "slug"))

    def installation(self, repo: str) -> Installation:
        """Where the App is installed for `repo`. GitHubRefused(403) when it is not."""
        number = self.access.installation_id
        url = f"/app/installations/{number}" if number else f"/repos/{repo}/installation"
        answer = self.ask("GET", url)
        if answer.status in (301, 404):
            raise GitHubRefused(self._not_installed(repo), status=403)
        return answer.expect(200).parse(_installation)

    def server_now(self, answer: Answer) -> datetime:
        """GitHub's time when it answered."""
        return _date(answer) or self.now() + self._offset

    def _not_installed(self, repo: str) -> str:
        number = self.access.installation_id
        where = f"installation {number} of the GitHub App" if number else "the GitHub App"
        return f"{where} has no access to {repo}: install it there, and write the repository's present name"

    def _send(self, verb: str, url: str, body: Mapping[str, Any] | None) -> Answer:
        return self._transport.send(verb, url, self._signature(), self._own_limiter, body=body)

    def _signature(self) -> Secret:
        import jwt

        at = self.now() + self._offset
        claims = {
            "iat": int((at - _BACKDATED).timestamp()),
            "exp": int((at + _LIFETIME).timestamp()),
            "iss": self.access.issuer,
        }
        return Secret(
            key="app", value=jwt.encode(claims, self.access.key, algorithm="RS256"), scheme="Bearer"
        )

    def _learn_clock(self, refusal: Answer) -> bool:
        """Whether our clock may be why: then signatures are dated by GitHub's from now on."""
        date = _date(refusal)
        if date is None:
            return False
        offset = date - self.now()
        if abs(offset - self._offset) <= _TELLING:
            return False
        self._offset = offset
        return True


class InstallationCredential:
    """The token of one repository. Whoever needs it while it is being made waits for that one."""

    def __init__(self, app: GitHubApp, repo: str) -> None:
        self._app = app
        self._repo = repo
        self._lock = threading.Lock()
        self._made = itertools.count(1)
        self._installation_id = app.access.installation_id
        self._repo_id: int | None = None
        self._token: _Token | None = None
        self._failure: _Failure | None = None

    def secret(self) -> Secret:
        with self._lock:
            token = self._token
            if token is not None and self._app.now() < token.renew_at:
                return token.secret
            try:
                return self._renew().secret
            except GitHubUnavailable:
                if token is not None and self._app.now() < token.ends_at:
                    return token.secret  # it is good for some minutes yet
                raise

    def limiter(self) -> Limiter:
        return self._app.limiter(self._installation_id or 0)

    @property
    def scope(self) -> str:
        return f"app installation {self._installation_id}"

    def refused(self, secret: Secret) -> bool:
        """Forget a token that GitHub does not take. GitHubUnavailable when it was made a moment ago."""
        with self._lock:
            token = self._token
            if token is None or token.secret.key != secret.key:
                return True  # somebody else was faster
            if self._app.now() - token.made_at < JUST_MADE:
                raise GitHubUnavailable(f"GitHub does not know the token it has just made for {self._repo}")
            self._token = None
            return True

    def clock_was_set_back(self, step: timedelta) -> None:
        with self._lock:
            self._failure = None
            if self._token is not None:
                self._token = replace(
                    self._token,
                    made_at=self._token.made_at + step,
                    renew_at=self._token.renew_at + step,
                    ends_at=self._token.ends_at + step,
                )

    def _renew(self) -> _Token:
        """Ask for a token, once; who comes shortly after a failure gets the same answer."""
        failure = self._failure
        if failure is not None and self._app.now() < failure.until:
            raise failure.error.with_traceback(None)
        try:
            token = self._ask()
        except (GitHubRefused, GitHubUnavailable) as error:
            self._failure = _Failure(error, self._app.now() + KEEP_FAILURE)
            raise
        self._token, self._failure = token, None
        return token

    def _ask(self) -> _Token:
        had_number = self._installation_id is not None and self._app.access.installation_id is None
        number = self._number()
        answer = self._app.ask("POST", f"/app/installations/{number}/access_tokens", self._wish())
        if answer.status == 404 and had_number:  # removed and installed again since
            self._installation_id = None
            number = self._number()
            answer = self._app.ask("POST", f"/app/installations/{number}/access_tokens", self._wish())
        if answer.status != 201:
            raise self._refusal(answer)
        token = read(answer.asked, self._token_of, answer.one(), answer)
        self._app.learn(self._repo.casefold(), token.secret.value)
        return token

    def _number(self) -> int:
        if self._installation_id is None:
            self._installation_id = self._app.installation(self._repo).installation_id
        return self._installation_id

    def _wish(self) -> dict[str, Any]:
        """The least that the work needs. By number once we know it: names change."""
        if self._repo_id is not None:
            return {"repository_ids": [self._repo_id], "permissions": dict(PERMISSIONS)}
        return {"repositories": [self._repo.partition("/")[2]], "permissions": dict(PERMISSIONS)}

    def _refusal(self, answer: Answer) -> GitHubRefused | GitHubUnavailable:
        """Never with a 404 of its own: to others that would mean that an issue is gone."""
        told = f"no token for {self._repo}: {answer.message or answer.status}"
        match answer.status:
            case 403:
                mend = "lift that on the installation's page of the owner's settings"
            case 404:
                mend = "install the GitHub App there"
            case 422:
                wanted = ", ".join(f"{name}: {level}" for name, level in PERMISSIONS.items())
                mend = f"the installation has to include this repository and to grant {wanted}"
            case _:
                return GitHubUnavailable(f"{answer.asked}: unexpected status {answer.status}")
        return GitHubRefused(f"{told}; {mend}", status=403)

    def _token_of(self, raw: Mapping[str, Any], answer: Answer) -> _Token:
        self._repo_id = self._only_repository(raw.get("repositories"))
        permissions = answers.part(raw, "permissions")
        missing = missing_permissions({name: str(level) for name, level in permissions.items()})
        if missing:
            raise GitHubRefused(f"the token for {self._repo} lacks {', '.join(missing)}", status=403)
        now = self._app.now()
        # Both times by GitHub's clock: ours may differ from it by any amount.
        lasts = answers.moment(raw, "expires_at") - self._app.server_now(answer)
        return _Token(
            secret=Secret(
                key=f"{self._repo.casefold()} {next(self._made)}", value=answers.text(raw, "token")
            ),
            made_at=now,
            renew_at=now + max(lasts - RENEW_BEFORE, lasts / 2),
            ends_at=now + lasts,
        )

    def _only_repository(self, found: Any) -> int:
        """The number of the one repository that the token reaches; anything wider is not used."""
        entries = found if isinstance(found, list) else []
        if len(entries) != 1 or not isinstance(entries[0], dict):
            raise answers.MalformedError(
                f"GitHub made a token that is not for {self._repo} alone; it is not used"
            )
        number, name = answers.number(entries[0], "id"), answers.text(entries[0], "full_name")
        is_ours = number == self._repo_id if self._repo_id else answers.same_name(name, self._repo)
        if not is_ours:
            raise answers.MalformedError(
                f"GitHub made a token for {name} instead of {self._repo}; it is not used"
            )
        return number


def _installation(raw: Mapping[str, Any]) -> Installation:
    given = answers.part(raw, "permissions")
    return Installation(
        installation_id=answers.number(raw, "id"),
        permissions={name: str(level) for name, level in given.items()},
        is_suspended=raw.get("suspended_at") is not None,
    )


def _date(answer: Answer) -> datetime | None:
    try:
        at = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
