"""What every request to OpenRouter has in common: the address, the key, the headers.

Owns their rules. Sends nothing and reads no environment but the mapping it is handed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

OPENROUTER_BASE_URL = "https://openrouter.ai/api/v1"
BASE_URL_VARIABLE = "OPENROUTER_BASE_URL"
KEY_VARIABLE = "OPENROUTER_API_KEY"

MOST_CATEGORIES = 2  # of one request; OpenRouter drops the rest without a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What OpenRouter's statistics call the application. Empty values send no header."""

    app_name: str = "Coordinator"
    app_url: str = "http://localhost"  # with a title, OpenRouter counts even this one
    categories: tuple[str, ...] = ("cli-agent",)


def base_url(environ: Mapping[str, str]) -> str:
    """Where OpenRouter is, without a slash at the end: `OPENROUTER_BASE_URL`, or the service itself.

    Raises ValueError, with a sentence, for a value that is no http or https address.
    """
    return check_base_url(environ.get(BASE_URL_VARIABLE, "").strip() or OPENROUTER_BASE_URL)


def check_base_url(address: str) -> str:
    """The address without a slash at the end. Raises ValueError with a sentence if it cannot be used."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not address.isprintable() or " " in address or parts.query or parts.fragment:
        raise ValueError(
            f"{BASE_URL_VARIABLE} must be an http or https address, such as {OPENROUTER_BASE_URL}."
        )
    if parts.username or parts.password:
        raise ValueError(f"{BASE_URL_VARIABLE} must not contain a user or password.")
    return address.rstrip("/")


def check_key(key: str | None) -> str:
    """The key, if it can be one. Raises ValueError with a sentence that does not repeat it."""
    if not isinstance(key, str) or not key.strip():
        raise ValueError(f"OpenRouter needs an API key, and it is empty: set {KEY_VARIABLE} to your key.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"The OpenRouter API key has a space, a line break or another character that no key has: "
            f"set {KEY_VARIABLE} to the key alone."
        )
    return key


def headers(key: str | None, attribution: Attribution | None = None) -> dict[str, str]:
    """The headers of a request; without a key those of the public catalogue."""
    sent = {"Accept": "application/json", "User-Agent": "coordinator"}
    if key is not None:
        sent["Authorization"] = f"Bearer {check_key(key)}"
    return sent | _attribution(attribution or Attribution())


def _attribution(given: Attribution) -> dict[str, str]:
    title, referer = _header_text(given.app_name), _header_text(given.app_url)
    categories = ",".join(_header_text(word) for word in given.categories[:MOST_CATEGORIES])
    sent = {
        "HTTP-Referer": referer,
        "X-OpenRouter-Title": title,
        "X-Title": title,  # the older name of the same; gateways in between know only this one
        "X-OpenRouter-Categories": categories,
    }
    return {name: value for name, value in sent.items() if value}


def _header_text(value: str) -> str:
    """A header holds printable ASCII; a line break in it would be another header."""
    return "".join(char for char in value if char.isascii() and char.isprintable()).strip()
