"""What looks like a secret although nobody told us of it: the tokens of known issuers, and random values
with a name such as `api_key`. Pure.

Each kind has a text that every such token holds, so that ordinary text costs one search per kind. What is
plainly made up (`ghp_xxxxxxxx…`, the examples of manuals) is not a token: only the beginning of a token is
judged, so that nothing appended to a real one makes it look made up.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_JUDGED = 20  # characters of a token that say whether it is made up
_FEWEST_DIFFERENT = 7  # characters in them
_RUNS = (b"0123456789", b"1234567890", b"abcdefgh", b"12345678")
# The examples of manuals, which many a test repeats.
_OF_MANUALS = (b"IOSFODNN7EXAMPLE", b"I44QH8DHBEXAMPLE", b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c")


@dataclass(frozen=True, slots=True)
class Kind:
    """Tokens of one issuer. The first group of the pattern is what is random in it.

    A pattern begins with plain letters, and looks behind only after them: that is how `re` is fast.
    """

    name: str
    marks: tuple[bytes, ...]  # one of them is in every such token
    pattern: re.Pattern[bytes]


def _kind(name: str, marks: str, pattern: str) -> Kind:
    return Kind(name, tuple(mark.encode() for mark in marks.split()), re.compile(pattern.encode()))


_WORD = "[A-Za-z0-9_-]"
_PEM = (
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\\r|\\n|[\s\"',+>#*|-]){1,16}"
    r"(?:[A-Z][A-Za-z-]+:[^\n]{0,80}\n\s{0,8}){0,4}"  # headers of an encrypted one
)

KINDS = (
    _kind("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_([A-Za-z0-9]{36})"),
    _kind("a GitHub token", "github_pat_", r"github_pat_([A-Za-z0-9_]{60})"),
    _kind("an Anthropic key", "sk-ant-", r"sk-ant-(?:[a-z]{2,8}\d\d-)?([A-Za-z0-9_-]{24})"),
    _kind("an OpenRouter key", "sk-or-", r"sk-or-(?:v\d-)?([A-Za-z0-9]{32})"),
    _kind("an OpenAI key", "sk-", r"sk-(?<![A-Za-z0-9]sk-)(?:proj|svcacct|admin)-([A-Za-z0-9_-]{40})"),
    _kind("an OpenAI key", "sk-", r"sk-(?<![A-Za-z0-9]sk-)([A-Za-z0-9]{48})(?![A-Za-z0-9])"),
    _kind("an AWS key", "AKIA", r"AKIA(?<![A-Za-z0-9]AKIA)([A-Z2-7]{16})(?![A-Z0-9])"),
    _kind("an AWS key", "ASIA", r"ASIA(?<![A-Za-z0-9]ASIA)([A-Z2-7]{16})(?![A-Z0-9])"),
    _kind("a Slack token", "xox", r"xox[abeoprs]-([A-Za-z0-9-]{24})"),
    _kind(
        "a Slack webhook",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Z0-9]{8,}/[A-Z0-9]{8,}/[A-Za-z0-9]{20})",
    ),
    _kind("a Google API key", "AIza", r"AIza([A-Za-z0-9_-]{35})"),
    _kind("a Google OAuth secret", "GOCSPX-", r"GOCSPX-([A-Za-z0-9_-]{28})"),
    _kind("an npm token", "npm_", r"npm_([A-Za-z0-9]{36})"),
    _kind("a PyPI token", "pypi-AgE", r"pypi-AgE([A-Za-z0-9_-]{50})"),
    _kind("a GitLab token", "glpat-", r"glpat-([A-Za-z0-9_-]{20})"),
    _kind("a Hugging Face token", "hf_", r"hf_(?<![A-Za-z0-9_]hf_)([A-Za-z0-9]{34})(?![A-Za-z0-9_])"),
    _kind("a Stripe key", "k_live_", r"k_live_(?<=[sr]k_live_)([A-Za-z0-9]{20})"),
    _kind("a Docker token", "dckr_", r"dckr_[po]at_([A-Za-z0-9_-]{27})"),
    _kind("a DigitalOcean token", "dop_v1_ doo_v1_ dor_v1_", r"do[por]_v1_([a-f0-9]{64})"),
    _kind("a SendGrid key", "SG.", r"SG\.([A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})"),
    _kind("an age key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1([0-9A-Z]{58})"),
    _kind("an Azure storage key", "AccountKey=", r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    _kind("a private key", "PRIVATE KEY", _PEM + r"([A-Za-z0-9+/=]{40})"),
    _kind(
        "a signed token (JWT)",
        "eyJ",
        rf"eyJ(?<!{_WORD}eyJ){_WORD}{{10,}}\.eyJ{_WORD}{{10,}}\.({_WORD}{{24,}})",
    ),
)  # fmt: skip

# A value in quotes, or one that ends its line, behind `=` or `:`.
_ASSIGNED = re.compile(
    rb"""[=:]>?[ \t]{0,4}(?:["'`]([A-Za-z0-9+/_=-]{20,200})["'`]"""
    rb"""|([A-Za-z0-9+/_=-]{20,200})[ \t]*\r?(?:\n|\Z))"""
)
_KEY_LIKE = re.compile(
    rb"(?i)(?:api_?key|secret|token|passw(?:or)?d|credential|private_?key|access_?key|auth)[a-z0-9_]{0,20}\Z"
)
_NOT_A_KEY = re.compile(rb"(?i)public|hash|sha\d|digest|checksum|cache|fingerprint|integrity|marker|author")
_LOOK_BACK = 80


@dataclass(frozen=True, slots=True)
class Token:
    """Where something that looks like a token stands."""

    kind: str
    start: int
    end: int


def tokens(data: bytes) -> Iterator[Token]:
    """All that look like tokens of a known issuer, or like a random value with the name of a key."""
    yield from issued(data)
    yield from _random(data)


def issued(data: bytes) -> Iterator[Token]:
    """Those of known issuers only."""
    for kind in KINDS:
        if any(mark in data for mark in kind.marks):
            for found in kind.pattern.finditer(data):
                if not is_made_up(found[1]):
                    yield Token(kind.name, found.start(), found.end())


def _random(data: bytes) -> Iterator[Token]:
    for found in _ASSIGNED.finditer(data):
        group = 1 if found[1] else 2
        if _is_key_like(data, found.start()) and is_random(found[group]):
            yield Token("a random value with the name of a key", found.start(group), found.end(group))


def _is_key_like(data: bytes, end: int) -> bool:
    line = data[max(0, end - _LOOK_BACK) : end].rpartition(b"\n")[2]
    name = line.rstrip(b" \t\"'`])?").replace(b"-", b"_")
    return bool(_KEY_LIKE.search(name)) and not _NOT_A_KEY.search(name[-40:])


def is_made_up(body: bytes) -> bool:
    """Whether a token is one for show: words, few different characters, or a run of the alphabet."""
    start = body[:_JUDGED].lower()
    if re.fullmatch(rb"[a-z_-]+", body[:_JUDGED]):  # words
        return True
    if len(set(start)) < min(_FEWEST_DIFFERENT, len(start)):
        return True
    return any(run in start for run in _RUNS) or any(known in body for known in _OF_MANUALS)


def is_random(body: bytes) -> bool:
    """Whether nobody would write this by hand: many different characters in no order of words."""
    body = body.rstrip(b"=")
    if is_made_up(body):
        return False
    if re.fullmatch(rb"[0-9a-fA-F]+", body):
        return len(body) >= 32 and entropy(body) > 3.2
    switches = len(re.findall(rb"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])", body))
    cases = bool(re.search(rb"[a-z]", body)) + bool(re.search(rb"[A-Z]", body))
    return cases == 2 and switches >= 4 and entropy(body) > 3.7


def entropy(body: bytes) -> float:
    """Bits for each character, by how often each one occurs."""
    counts = Counter(body)
    return -sum(count / len(body) * math.log2(count / len(body)) for count in counts.values())
