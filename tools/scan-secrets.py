#!/usr/bin/env python3
"""Look for keys and tokens in the files and in all commits; exit code 1 names where they are."""

import argparse
import bisect
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN = Path("tests") / "known-secrets.txt"
HEAD = """\
# What tests make up in the form of a secret: hash, kind, the first place. Nothing real may stand here.
# Written by `tools/scan-secrets.py --write`; look at each new line before it is committed.
"""
# Of detect-secrets: what has a form of its own and is found in less than a second. Not the guesses by entropy
# or by a word such as "password" beside a value: hundreds of hits in recorded output, and most of the time.
# Private keys are found by our own pattern: theirs is the first line alone, so one known would excuse all.
DETECTORS = [
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "JwtTokenDetector",
    "NpmDetector",
    "OpenAIDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
]
LOG = [
    "log",
    "--all",
    "--patch",
    "--unified=0",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--diff-merges=first-parent",
    "--format=%x01%H%n%B",
]


class Haystack:
    """All texts as one, so that each pattern is searched once; and where each of them is from."""

    def __init__(self) -> None:
        self.text = ""
        self._parts: list[str] = []
        self._starts: list[int] = []
        self._places: list[str] = []
        self._seen: set[bytes] = set()
        self._end = 0

    def add(self, place: str, text: str) -> None:
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._seen:
            return
        self._seen.add(digest)
        self._starts.append(self._end)
        self._places.append(place)
        self._parts.append(text + "\n")
        self._end += len(text) + 1

    def close(self) -> None:
        self.text = "".join(self._parts)

    def line_at(self, offset: int) -> str:
        start = self.text.rfind("\n", 0, offset) + 1
        return self.text[start : self.text.find("\n", offset)]

    def place_at(self, offset: int) -> str:
        return self._places[bisect.bisect_right(self._starts, offset) - 1]


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=_bootstrap.PROJECT_ROOT, metavar="DIR", help="a checkout"
    )
    parser.add_argument("--write", action="store_true", help=f"write what is found to {KNOWN} as known")
    args = parser.parse_args()
    files = list(_files(args.root))
    haystack = Haystack()
    for place, text in files:
        haystack.add(place, text)
    commits = _add_commits(args.root, haystack)
    haystack.close()
    found = _found(haystack)
    if args.write:
        return _write(args.root / KNOWN, found)
    known = _known(args.root / KNOWN)
    new = sorted(f"{what} ({number})" for number, what in found.items() if number not in known)
    if new:
        # Without the secrets: this goes into the log of continuous integration.
        sys.exit("\n".join([*new, _advice(len(new))]))
    return f"{len(files)} files and {commits} commits: no secret, {len(found)} known inventions of tests"


def _files(root: Path) -> "Iterator[tuple[str, str]]":
    """What is tracked, and what would be with `git add`."""
    for name in _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        path = root / name
        if name and path.is_file() and not path.is_symlink() and path != root / KNOWN:
            yield name, path.read_bytes().decode(errors="replace")


def _add_commits(root: Path, haystack: Haystack) -> int:
    """What each commit says and adds; the number of commits."""
    commits = 0
    for commit in _git(root, *LOG).split("\n\x01"):
        number, _, rest = commit.lstrip("\x01").partition("\n")
        message, *diffs = rest.split("\ndiff --git ")
        commits += bool(number)
        haystack.add(f"message of commit {number[:12]}", message)
        for diff in diffs:
            header, *hunks = diff.split("\n@@ ")
            added = [line[1:] for hunk in hunks for line in hunk.split("\n") if line.startswith("+")]
            haystack.add(
                f"{header.split(' b/')[-1].splitlines()[0]} in commit {number[:12]}", "\n".join(added)
            )
    return commits


def _found(haystack: Haystack) -> "dict[str, str]":
    """The hash of each secret, its kind and first place: by detect-secrets, and by what guards our outbox."""
    from adw_modules.security.tokens import issued

    found: dict[str, str] = {}
    for value, kind, place in _by_detect_secrets(haystack):
        found.setdefault(_hash(value), f"{kind} in {place}")
    data = haystack.text.encode()
    for token in issued(data):
        place = haystack.place_at(len(data[: token.start].decode(errors="replace")))
        found.setdefault(
            _hash(data[token.start : token.end].decode(errors="replace")), f"{token.kind} in {place}"
        )
    return found


def _by_detect_secrets(haystack: Haystack) -> "Iterator[tuple[str, str, str]]":
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import get_plugins, transient_settings

    with transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}):
        patterns = {pattern for plugin in get_plugins() for pattern in plugin.denylist}
        # All its filters for each of 100,000 lines take a minute; a line without a match needs none.
        starts = sorted(match.start() for each in patterns for match in each.finditer(haystack.text))
        lines = {haystack.line_at(start): start for start in reversed(starts)}
        for line, start in lines.items():
            for secret in scan_line(line):
                yield secret.secret_value or line, secret.type, haystack.place_at(start)


def _known(path: Path) -> "set[str]":
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return set()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def _write(path: Path, found: "dict[str, str]") -> str:
    path.write_text(HEAD + "".join(f"{number} {found[number]}\n" for number in sorted(found)))
    return f"{path}: {len(found)} known"


def _advice(count: int) -> str:
    return (
        f"{count} that look like secrets. A real one: revoke it first, a commit cannot be called back. "
        f"An invention of a test: tools/scan-secrets.py --write, and commit {KNOWN}."
    )


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:20]


def _git(root: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    if ended.returncode:
        sys.exit(f"Secrets are looked for in a git checkout: {ended.stderr.decode(errors='replace').strip()}")
    return ended.stdout.decode(errors="replace")


if __name__ == "__main__":
    _bootstrap.enter("pydantic")
    _bootstrap.run(main, needs="detect_secrets")
