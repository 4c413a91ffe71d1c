"""Commits of an agent as they may leave: their messages without powers, and in nobody else's name. Pure.

GitHub and its apps read messages: they mention people, close issues, skip checks and credit authors. The
words stay, the powers go; trees and the order of commits are not touched. Must not read or write objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adw_modules.security.invisible import without_invisible
from adw_modules.tasks.report import without_references

SAID = "The agent wrote: "  # before a line that programs would read as a trailer
_ZERO = "\N{ZERO WIDTH SPACE}"
_SKIPS = re.compile(
    r"\[([ \t]*(?:(?:skip|no)[ \t_-]+[\w-]{1,20}|[\w-]{1,20}[ \t_-]+skip)[ \t]*)\]", re.IGNORECASE
)
_STARS = re.compile(r"\*+(NO_CI)\*+", re.IGNORECASE)
_TRAILER = re.compile(r"^(?=[ \t]*[A-Za-z0-9]+(?:-[A-Za-z0-9]+)+[ \t]*[:=#])", re.MULTILINE)
_SUBJECT = re.compile(r"\s*[^\n]*\n?")
_PERSON = re.compile(rb"(.*?) ?<([^<>]*)> (-?\d{1,15}) ([+-]\d{4})")
_KEPT = (b"tree", b"parent", b"author", b"committer")
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"  # what git takes off the ends of a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """In whose name commits are, and the issue that they are about."""

    name: str
    email: str
    issue: int


def harmless(message: str, issue: int) -> str:
    """The message without mentions, references to other issues, orders to skip checks and trailers."""
    text = without_invisible(message.replace("\r\n", "\n"))[0]
    text = _STARS.sub(r"\1", _SKIPS.sub(r"(\1)", without_references(text)))
    found = _SUBJECT.match(text)  # no trailer, and in our own commits it begins like one
    subject = found[0] if found else ""
    return _about_ours(subject + _TRAILER.sub(SAID, text[len(subject) :]), issue)


def _about_ours(text: str, issue: int) -> str:
    """With references to our own issue as they were: our commits and pull request close it as well."""
    return re.sub(rf"(?<![\w/.#-])(#|GH){_ZERO}(-?{issue})(?![\w-])", r"\1\2", text, flags=re.IGNORECASE)


def reworded(commit: bytes, voice: Voice, parents: Mapping[str, str]) -> bytes:
    """A commit object as it may leave; the same bytes if it may as it is. `parents`: old name to new.

    A changed commit loses headers beyond the usual ones: signatures that would be wrong, and an encoding that
    its message may not have.
    """
    head, _, message = commit.partition(b"\n\n")
    lines = [line for line in head.split(b"\n") if line.split(b" ", 1)[0] in _KEPT]
    new = [_line(line, voice, parents) for line in lines]
    said = message.decode(errors="surrogateescape")
    safe = harmless(said, voice.issue)
    is_encoded = b"\nencoding " in head
    if new == lines and safe == said and not is_encoded:
        return commit
    return b"\n".join(new) + b"\n\n" + safe.encode(errors="surrogateescape")


def _line(line: bytes, voice: Voice, parents: Mapping[str, str]) -> bytes:
    word, _, rest = line.partition(b" ")
    if word == b"parent":
        return b"parent " + parents.get(rest.decode(errors="replace"), rest.decode(errors="replace")).encode()
    return word + b" " + _person(rest, voice) if word in (b"author", b"committer") else line


def _person(written: bytes, voice: Voice) -> bytes:
    """Ours with the time that was written. A program may add itself to our name: `Name (aider)`."""
    found = _PERSON.fullmatch(written)
    name, email = _clean(voice.name), _clean(voice.email)
    if found is not None and found[2] == email and (found[1] == name or found[1].startswith(name + b" (")):
        return written
    time = b"%b %b" % (found[3], found[4]) if found is not None else b"0 +0000"
    return b"%b <%b> %b" % (name, email, time)


def _clean(text: str) -> bytes:
    """As git writes it."""
    return re.sub(r"[<>\n]", "", text.strip(_CRUD)).encode(errors="surrogateescape")
