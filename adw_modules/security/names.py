"""Which names of accounts and repositories can be those of one on GitHub, and lead nowhere else. Pure.

They become parts of addresses that are asked with our token, and of paths on this machine: `o/r/../../user`
would reach another endpoint, and `o/..` another directory.
"""

from __future__ import annotations

import re

_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}(?:\[bot\])?")
_FULL_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/(?!\.{1,2}\Z)(?!.*\.\.)(?!.*\.git\Z)[A-Za-z0-9._-]{1,100}", re.IGNORECASE
)


def is_login(text: str) -> bool:
    """Whether it can be the login of a person, an organisation or an app."""
    return _LOGIN.fullmatch(text) is not None


def is_full_name(text: str) -> bool:
    """Whether it can be "owner/name"."""
    return _FULL_NAME.fullmatch(text) is not None
