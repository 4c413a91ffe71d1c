"""How names and values stand in a sentence: as the file would spell them, on one line, never a secret.

So it also owns what looks like a secret. Knows nothing of the keys that there are.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from adw_modules.config.toml_lines import KeyPath

_TOKEN = re.compile(r"(gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}")
_PASSWORD_IN_URL = re.compile(r"(://[^/@:\s]*:)[^/@\s]+@")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)


# --- secrets ------------------------------------------------------------------------------------


def holds_token(text: str) -> bool:
    return bool(_TOKEN.search(text))


def holds_password(address: str) -> bool:
    return bool(_PASSWORD_IN_URL.search(address))


def password_in(address: str) -> str:
    """The password of an address, as it stands there; empty without one."""
    found = re.search(r"://[^/@:\s]*:([^/\s]+)@", address)
    return found[1] if found else ""


def is_secret(variable: str, content: str) -> bool:
    """Whether a variable should not be seen, by its name or by what it holds."""
    return bool(_SECRET_NAME.search(variable)) or holds_token(content) or holds_password(content)


def masked(text: str) -> str:
    return _PASSWORD_IN_URL.sub(r"\1***@", _TOKEN.sub("***", text))


# --- values -------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as it may be repeated in a sentence: short, on one line, and never a secret."""
    if isinstance(value, str):
        if holds_token(value) or holds_password(value):
            return "a text that looks like a secret (not shown)"
        return _in_quotes(value if len(value) <= 60 else f"{value[:57]}…")
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return str(value)[:40]


def toml(value: Any) -> str:
    """A whole value as the file would spell it; unset keys say so."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return _in_quotes(value)
    if isinstance(value, BaseModel):
        return toml({key: inner for key, inner in value if inner is not None})
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{quoted(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    return str(value)


def _in_quotes(text: str) -> str:
    spelled = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in spelled)


# --- names --------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    """One part of a key: bare where TOML allows it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _in_quotes(name)


def dotted(path: KeyPath) -> str:
    """The key without the numbers of entries: `routing.rules.model`."""
    return ".".join(quoted(part) for part in path if isinstance(part, str))


def nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def suggestion(name: str, known: Iterable[str], *, what: str = "known are") -> str:
    """How an unknown name's sentence goes on: the nearest valid name, or all of them."""
    names = list(known)
    hint = nearest(name, names)
    return f"; did you mean {shown(hint)}?" if hint else f"; {what} {', '.join(map(shown, names))}"


def ended(text: str) -> str:
    """The sentence with its full stop; one that goes on below, with what it is about, has its own."""
    return text if "\n" in text or text.endswith(("?", ".")) else f"{text}."
