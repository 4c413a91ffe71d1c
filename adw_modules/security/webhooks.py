"""What a delivery of GitHub's webhook has to prove, and how much a flood of true ones may cause.

Pure: bytes, header values and moments come in. A delivery is never trusted as data; all it can say is in
which repository something is new. Rules: "Validating webhook deliveries",
https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST_SECRET = 16  # characters; GitHub advises a random text of high entropy
MOST_SECRETS = 2  # the present one, and while it is being replaced the former
REMEMBERED = 2048  # deliveries: more than a repository has in an hour
# What can change which issues carry the label. All other events are accepted, and forgotten.
EVENTS = frozenset({"issues", "pull_request"})

_SIGNATURE = re.compile(rb"sha256=([0-9a-f]{64})")
_DELIVERY = re.compile(r"[0-9A-Za-z-]{1,64}")


def secrets_of(value: str) -> list[str]:
    """The secrets in the variable: one, or two with a comma between them."""
    return [part.strip() for part in value.split(",") if part.strip()]


def secrets_problem(value: str | None) -> str | None:
    """What is wrong with the variable's content, in words that do not tell it; None for nothing."""
    if value is None:
        return "is not set: export it or put it into the service's environment file"
    secrets = secrets_of(value)
    if not secrets:
        return "is empty: set it to the secret that the webhook has at GitHub"
    if len(secrets) > MOST_SECRETS:
        return f"holds {len(secrets)} secrets with commas between them: at most the new and the former one"
    if any(len(secret) < SHORTEST_SECRET for secret in secrets):
        return (
            f"holds a secret of less than {SHORTEST_SECRET} characters: make one with `openssl rand -hex 32`"
        )
    return None


def claimed_digest(header: bytes | None) -> bytes | None:
    """The digest of an `X-Hub-Signature-256` header in small hexadecimal; None unless it is exactly that."""
    found = _SIGNATURE.fullmatch(header or b"")
    return found[1] if found else None


class Signatures:
    """Takes the raw body piece by piece, and says at the end whether one of the secrets signed it."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._running = [hmac.new(secret.encode(), digestmod=hashlib.sha256) for secret in secrets]

    def feed(self, piece: bytes) -> None:
        for running in self._running:
            running.update(piece)

    def match(self, claimed: bytes) -> bool:
        """In constant time, whichever secret it is."""
        found = [hmac.compare_digest(each.hexdigest().encode(), claimed) for each in self._running]
        return any(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """In which repository something is new. 0 or empty when the delivery does not say."""

    repo_id: int
    full_name: str


def hint_of(event: str, body: bytes) -> Hint | None:
    """The repository that a signed delivery is about; None when nothing has to be looked at."""
    if event not in EVENTS:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    repository = document.get("repository") if isinstance(document, dict) else None
    if not isinstance(repository, dict):
        return None
    number, name = repository.get("id"), repository.get("full_name")
    return Hint(
        repo_id=number if isinstance(number, int) and not isinstance(number, bool) else 0,
        full_name=name if isinstance(name, str) else "",
    )


class Deliveries:
    """Which deliveries were taken, by their number and by what was signed.

    GitHub's number is not covered by the signature, so a copy could be sent under another one: the digest
    is remembered as well. In memory and bounded, because a delivery that counts twice is one poll more.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._seen: OrderedDict[str | bytes, None] = OrderedDict()

    def is_new(self, delivery: str, digest: bytes) -> bool:
        """Whether neither was seen before; both are remembered now."""
        keys: tuple[str | bytes, ...] = (digest, delivery) if _DELIVERY.fullmatch(delivery) else (digest,)
        new = not any(key in self._seen for key in keys)
        for key in keys:
            self._seen[key] = None
            self._seen.move_to_end(key)
        while len(self._seen) > 2 * self._most:
            self._seen.popitem(last=False)
        return new


class HintPace:
    """How often hints may cause a poll: a few at once, then evenly. One for each repository, one for all.

    Whoever may comment makes GitHub sign deliveries, so true ones can be a flood as well.
    `now` is monotonic, in seconds.
    """

    def __init__(self, *, burst: int, every_seconds: float) -> None:
        self._burst = burst
        self._every = every_seconds
        self._full_at = 0.0  # when the whole burst is there again

    def wait(self, now: float) -> float:
        """Seconds until the next poll may begin; 0 for at once. Takes nothing."""
        return max(0.0, self._full_at - (self._burst - 1) * self._every - now)

    def take(self, now: float) -> None:
        """A poll begins."""
        self._full_at = max(self._full_at, now) + self._every
