"""Which changes of a branch need a person before they are pushed. Pure.

Owns the guarded paths, the forms in which a file system or a forge may take another name for one of them,
where links lead, and the limits of size. Reads nothing: git's answers come in as values. Must not decide
what happens to a change.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

LINK, SUBMODULE, GONE = "120000", "160000", "000000"
MOST_LINKS = 40  # as many as Linux follows in one path

# What the agent CLIs take for their configuration, in whatever folder it lies.
AGENT_FILES = frozenset(
    {
        *("claude.md", "claude.local.md", "agents.md", "agents.override.md", "agent.md", "gemini.md"),
        *("qwen.md", "context.md", ".mcp.json", "mcp.json", "opencode.json", "opencode.jsonc"),
        *(".aider.conf.yml", ".aider.model.settings.yml", ".aider.model.metadata.json", ".aiderignore"),
        *(".goosehints", ".goose", ".cursorrules", ".windsurfrules", ".clinerules", ".roorules"),
        *("copilot-instructions.md", ".geminiignore", ".qwenignore", ".cursorignore"),
    }
)
AGENT_FOLDERS = frozenset(
    {
        *(".claude", ".claude-plugin", ".codex", ".gemini", ".qwen", ".opencode", ".cursor", ".copilot"),
        *(".agents", ".agent", ".goose", ".aider", ".windsurf", ".clinerules", ".roo", ".continue"),
        *(".kilocode", ".crush", ".amp"),
    }
)
_AGENT_IN_GITHUB = frozenset({"agents", "hooks", "extensions", "instructions", "prompts", "skills"})
_AGENT_FILES_IN_GITHUB = frozenset({"mcp.json", "lsp.json"})

_CI_FILES = frozenset(
    {
        *(".gitlab-ci.yml", ".gitlab-ci.yaml", "jenkinsfile", "azure-pipelines.yml", "azure-pipelines.yaml"),
        *(".travis.yml", ".drone.yml", ".cirrus.yml", ".cirrus.star", "appveyor.yml", ".appveyor.yml"),
        *("bitbucket-pipelines.yml", "cloudbuild.yaml", "cloudbuild.yml", "buildspec.yml", ".woodpecker.yml"),
        *("wercker.yml", "codefresh.yml", ".semaphore.yml", "circle.yml", "action.yml", "action.yaml"),
    }
)
_CI_FOLDERS = frozenset(
    {
        ".circleci",
        ".ci",
        ".buildkite",
        ".gitlab",
        ".semaphore",
        ".woodpecker",
        ".teamcity",
        ".azure-pipelines",
    }
)
_HOOK_FOLDERS = frozenset({".husky", ".githooks", ".git-hooks", "git-hooks", ".hooks", ".lefthook"})
_HOOK_FILES = frozenset(
    {
        *(".pre-commit-config.yaml", ".pre-commit-config.yml", ".pre-commit-hooks.yaml", ".overcommit.yml"),
        *("lefthook.yml", "lefthook.yaml", ".lefthook.yml", ".lefthook.yaml", "lefthook-local.yml"),
        *(".lefthook-local.yml", ".huskyrc", ".huskyrc.json", ".huskyrc.js", ".lintstagedrc"),
    }
)

_CI_IN_GITHUB = frozenset({"workflows", "actions", "dependabot.yml", "dependabot.yaml"})

# Code points that some file systems leave out when they compare names (HFS+), and others that nobody sees.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_WINDOWS_SHORT_GIT = re.compile(r"(?:\.?git|gi[0-9a-f]{4})~\d+")


class Guard(StrEnum):
    """Why a change needs a person."""

    WORKFLOW = "runs in CI"
    OWNERSHIP = "says who owns code"
    SUBMODULE = "brings in another repository"
    HOOK = "runs on other people's machines"
    AGENT = "configures agents"
    ATTRIBUTES = "sets what git runs on files"
    LINK = "leads out of the repository"
    NAME = "is a name that another system takes for something else"
    SIZE = "is too large"
    CONFIGURED = "is guarded by the configuration"


_BY_NAME: Mapping[str, Guard] = {
    ".gitmodules": Guard.SUBMODULE,
    "codeowners": Guard.OWNERSHIP,
    ".gitattributes": Guard.ATTRIBUTES,
    **dict.fromkeys(_CI_FILES, Guard.WORKFLOW),
    **dict.fromkeys(_HOOK_FILES, Guard.HOOK),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that a branch changes, as git tells it. `size` in bytes; `target` of a symbolic link."""

    path: str
    mode: str  # git's, of the new version; GONE where the path was removed
    old_mode: str = GONE
    size: int = 0
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A path that needs a person, and why."""

    path: str
    guard: Guard
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the operator says: more guarded paths, exceptions (both as globs), and the limits in bytes."""

    guarded: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    max_file: int = 10 * 2**20
    max_total: int = 50 * 2**20
    max_files: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What following a link has to know of the new tree: its other links, by path."""

    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Links:
    """Links as the most generous file system finds them; `twins` are names that it cannot tell apart."""

    by_name: dict[tuple[str, ...], str]
    twins: set[tuple[str, ...]]

    @classmethod
    def of(cls, links: Mapping[str, str]) -> _Links:
        found = cls({}, set())
        for path, target in links.items():
            name = folded(path)
            if name in found.by_name:
                found.twins.add(name)
            found.by_name[name] = target
        return found


def review(changes: Sequence[Change], tree: Tree, policy: Policy) -> tuple[Finding, ...]:
    """All findings of a branch, each path once, in the order of the paths; then the limits of the whole."""
    links = _Links.of(tree.links)
    found = {change.path: finding for change in changes if (finding := _judge(change, links, policy))}
    return (*(found[path] for path in sorted(found)), *_whole(changes, policy))


def is_agent_config(path: str) -> bool:
    """Whether an agent CLI may take the file for its configuration, under any spelling of its name."""
    return guard_of(path) is Guard.AGENT


def guard_of(path: str) -> Guard | None:
    """Why the path alone is guarded, whatever is in the file; None when it is not."""
    return _guard_of(folded(path))


@lru_cache(maxsize=4096)
def folded(path: str) -> tuple[str, ...]:
    """The parts of the path as the most generous file system compares them.

    Without case and compatibility forms, without unseen code points (HFS+), without what Windows drops at
    the end of a name or takes for a stream of it; `\\` parts as `/` does.
    """
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", path)).casefold()
    text = unicodedata.normalize("NFKC", text).replace("\\", "/")
    parts = (part.split(":", 1)[0].rstrip(". ") or part for part in text.split("/"))
    return tuple(part for part in parts if part not in ("", "."))


def _guard_of(parts: tuple[str, ...]) -> Guard | None:
    name, folders = (parts[-1], frozenset(parts[:-1])) if parts else ("", frozenset())
    if any(_is_git(part) for part in parts) or ".." in parts:
        return Guard.NAME
    if name in _BY_NAME:
        return _BY_NAME[name]
    if _is_agents(parts, name, folders):
        return Guard.AGENT
    if _has_pair(parts, ".github", _CI_IN_GITHUB) or (parts and parts[0] in _CI_FOLDERS):
        return Guard.WORKFLOW
    return Guard.HOOK if (folders | {name}) & _HOOK_FOLDERS else None


def _is_agents(parts: tuple[str, ...], name: str, folders: frozenset[str]) -> bool:
    in_github = _has_pair(parts, ".github", _AGENT_IN_GITHUB) or (
        ".github" in folders and name in _AGENT_FILES_IN_GITHUB
    )
    return (
        name in AGENT_FILES
        or bool((folders | {name}) & AGENT_FOLDERS)
        or name.endswith((".instructions.md", ".agent.md"))
        or in_github
        or _has_pair(parts, ".vscode", {"mcp.json", "settings.json", "tasks.json"})
    )


def _has_pair(parts: tuple[str, ...], first: str, seconds: Iterable[str]) -> bool:
    """Whether `first/second` stands anywhere in the path."""
    wanted = frozenset(seconds)
    return any(a == first and b in wanted for a, b in pairwise(parts))


def _is_git(part: str) -> bool:
    return part == ".git" or _WINDOWS_SHORT_GIT.fullmatch(part) is not None


# One change


def _judge(change: Change, links: _Links, policy: Policy) -> Finding | None:
    """An exception of the operator is one for the name of a file, not for what a link or its size does."""
    if SUBMODULE in (change.mode, change.old_mode):
        return Finding(path=change.path, guard=Guard.SUBMODULE)
    if any(ord(character) < 32 or character == "\x7f" for character in change.path):
        return Finding(path=change.path, guard=Guard.NAME, detail="control characters")
    if "\ufffd" in change.path:  # as git's bytes are read: several names may have become this one
        return Finding(path=change.path, guard=Guard.NAME, detail="no UTF-8")
    guard = _guard(change.path, policy)
    if guard is not None:
        return Finding(path=change.path, guard=guard)
    if change.mode == LINK:
        return _judge_link(change, links, policy)
    return _too_large(change, policy)


def _guard(path: str, policy: Policy) -> Guard | None:
    guard = guard_of(path)
    if guard is Guard.NAME or not any(matches(path, pattern) for pattern in policy.allowed):
        is_configured = any(matches(path, pattern) for pattern in policy.guarded)
        return guard or (Guard.CONFIGURED if is_configured else None)
    return None


def _too_large(change: Change, policy: Policy) -> Finding | None:
    if change.mode == GONE or change.size <= policy.max_file:
        return None
    return Finding(path=change.path, guard=Guard.SIZE, detail=_megabytes(change.size))


def _judge_link(change: Change, links: _Links, policy: Policy) -> Finding | None:
    if folded(change.path) in links.twins:
        detail = f"-> {change.target}, and another link has nearly the same name"
        return Finding(path=change.path, guard=Guard.LINK, detail=detail)
    end = _resolved(change.path, links.by_name)
    if end is None:
        return Finding(path=change.path, guard=Guard.LINK, detail=f"-> {change.target}")
    guard = _guard(end, policy)  # the same file under another name
    return Finding(path=change.path, guard=guard, detail=f"-> {end}") if guard else None


def resolved(path: str, links: Mapping[str, str]) -> str | None:
    """Where the path leads inside the tree, through all links on the way; None when it leads out or nowhere.

    Each link is followed when it is met, so that `..` behind one goes up from where that led, as the kernel
    does it. A file system without case is allowed for: links are looked up as `folded` compares names.
    """
    return _resolved(path, _Links.of(links).by_name)


def _resolved(path: str, by_name: Mapping[tuple[str, ...], str]) -> str | None:
    left, done, followed = path.split("/")[::-1], list[str](), 0
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return None
            done.pop()
            continue
        target = by_name.get(folded("/".join([*done, part])))
        if target is None:
            done.append(part)
            continue
        followed += 1
        if followed > MOST_LINKS or target.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", target):
            return None
        left.extend(target.replace("\\", "/").split("/")[::-1])
    return "/".join(done)


# Limits of the whole


def _whole(changes: Sequence[Change], policy: Policy) -> list[Finding]:
    kept = {change.path: change.size for change in changes if change.mode != GONE}
    total = sum(kept.values())
    found = []
    if total > policy.max_total:
        found.append(Finding(path="(all files)", guard=Guard.SIZE, detail=_megabytes(total)))
    if len({change.path for change in changes}) > policy.max_files:
        found.append(Finding(path="(all files)", guard=Guard.SIZE, detail=f"{len(changes)} files"))
    return found


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


# The operator's patterns


def matches(path: str, pattern: str) -> bool:
    """`*` within a folder, `**` across folders, `?` one character; compared as `folded` does."""
    return _compiled(pattern).fullmatch("/".join(folded(path))) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = "/".join(folded(pattern))
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    return re.compile("".join(tokens.get(piece) or re.escape(piece) for piece in pieces), re.DOTALL)


# What people read


def sentence(findings: Sequence[Finding], *, most: int = 10) -> str:
    """`.github/workflows/ci.yml (runs in CI), ...`: at most so many, and of each kind before more of one."""
    first = {each.guard: each for each in reversed(findings)}
    told = sorted(findings, key=lambda each: first[each.guard] is not each)
    shown = [f"{shown_path(each.path)} ({_why(each)})" for each in told[:most]]
    if len(findings) > most:
        shown.append(f"and {len(findings) - most} more")
    return ", ".join(shown)


def _why(finding: Finding) -> str:
    return f"{finding.guard.value}: {shown_path(finding.detail)}" if finding.detail else finding.guard.value


def shown_path(path: str) -> str:
    """The path on one line in plain characters; what is not plain is written as its code point."""
    return "".join(
        c if 32 < ord(c) < 127 or c == " " else c.encode("unicode_escape", "surrogatepass").decode()
        for c in path
    )[:200]
