"""Which changed paths need a person, under whatever name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.security.guarded import (
    LINK,
    SUBMODULE,
    Change,
    Guard,
    Policy,
    Tree,
    folded,
    guard_of,
    is_agent_config,
    matches,
    resolved,
    review,
    sentence,
)

FILE, USUAL = "100644", Policy()

GUARDED = [
    (".github/workflows/ci.yml", Guard.WORKFLOW),
    (".github/workflows", Guard.WORKFLOW),
    (".github/actions/build/action.yml", Guard.WORKFLOW),
    ("tools/action.yml", Guard.WORKFLOW),
    (".github/dependabot.yml", Guard.WORKFLOW),
    (".gitlab-ci.yml", Guard.WORKFLOW),
    (".circleci/config.yml", Guard.WORKFLOW),
    ("Jenkinsfile", Guard.WORKFLOW),
    ("ci/Jenkinsfile", Guard.WORKFLOW),
    ("azure-pipelines.yml", Guard.WORKFLOW),
    (".ci/run", Guard.WORKFLOW),
    (".travis.yml", Guard.WORKFLOW),
    ("CODEOWNERS", Guard.OWNERSHIP),
    ("docs/CODEOWNERS", Guard.OWNERSHIP),
    (".github/CODEOWNERS", Guard.OWNERSHIP),
    (".gitmodules", Guard.SUBMODULE),
    (".husky/pre-commit", Guard.HOOK),
    (".githooks/post-checkout", Guard.HOOK),
    ("lefthook.yml", Guard.HOOK),
    (".pre-commit-config.yaml", Guard.HOOK),
    (".gitattributes", Guard.ATTRIBUTES),
    ("sub/.gitattributes", Guard.ATTRIBUTES),
    ("CLAUDE.md", Guard.AGENT),
    ("a/b/CLAUDE.md", Guard.AGENT),
    ("AGENTS.md", Guard.AGENT),
    ("GEMINI.md", Guard.AGENT),
    ("QWEN.md", Guard.AGENT),
    (".claude/settings.json", Guard.AGENT),
    ("pkg/.claude/agents/x.md", Guard.AGENT),
    (".mcp.json", Guard.AGENT),
    (".codex/config.toml", Guard.AGENT),
    (".gemini/settings.json", Guard.AGENT),
    (".qwen/settings.json", Guard.AGENT),
    (".opencode/plugin/x.js", Guard.AGENT),
    ("opencode.json", Guard.AGENT),
    (".github/copilot-instructions.md", Guard.AGENT),
    (".github/hooks/x.json", Guard.AGENT),
    (".cursor/rules/x.mdc", Guard.AGENT),
    (".aider.conf.yml", Guard.AGENT),
    (".goosehints", Guard.AGENT),
    (".vscode/mcp.json", Guard.AGENT),
    (".git/hooks/pre-commit", Guard.NAME),
    ("vendor/.git/config", Guard.NAME),
    ("a/../b", Guard.NAME),
]
SPELLINGS = [
    ".GitHub/Workflows/ci.yml",
    ".github/WORKFLOWS/ci.yml",
    ".ｇithub/workflows/ci.yml",
    ".git\u200chub/workflows/ci.yml",
    ".github/work\ufeffflows/ci.yml",
    ".github./workflows /ci.yml",
    ".github/workflows::$INDEX_ALLOCATION/ci.yml",
    ".github\\workflows\\ci.yml",
    ".github//./workflows/ci.yml",
    ".GITHUB/workﬂows/ci.yml",
]
GIT_SPELLINGS = [".GIT/config", ".g\u200cit/config", "git~1/config", ".git /x", ".git::$DATA/x", ".ｇit/x"]
FREE = [
    "src/app.py",
    "README.md",
    "workflows/ci.md",
    "docs/github/workflows.md",
    "src/claude.py",
    "gitlab.md",
]


@pytest.mark.parametrize(("path", "guard"), GUARDED)
def test_a_guarded_path_says_why(path: str, guard: Guard) -> None:
    assert guard_of(path) is guard


@pytest.mark.parametrize("path", SPELLINGS)
def test_another_spelling_of_a_workflow_is_a_workflow(path: str) -> None:
    assert guard_of(path) is Guard.WORKFLOW


@pytest.mark.parametrize("path", GIT_SPELLINGS)
def test_another_spelling_of_git_is_git(path: str) -> None:
    assert guard_of(path) is Guard.NAME


@pytest.mark.parametrize("path", FREE)
def test_ordinary_files_need_nobody(path: str) -> None:
    assert guard_of(path) is None
    assert not is_agent_config(path)


@pytest.mark.parametrize(
    ("path", "links", "end"),
    [
        ("a", {"a": "b"}, "b"),
        ("a", {"a": "d/b"}, "d/b"),
        ("d/a", {"d/a": "../b"}, "b"),
        ("a", {"a": "../b"}, None),
        ("d/a", {"d/a": "../../b"}, None),
        ("a", {"a": "/etc/passwd"}, None),
        ("a", {"a": "C:\\x"}, None),
        ("a", {"a": "..\\x"}, None),
        ("a", {"a": "b", "b": "c", "c": "../out"}, None),
        ("a", {"a": "d/x", "d": "deep/down"}, "deep/down/x"),
        ("a", {"a": "d/../x", "d": "deep/down"}, "deep/x"),  # not `x`: up from where the link led
        ("a", {"a": "d/../../../x", "d": "deep/down"}, None),
        ("a", {"a": "D/../../x", "d": "deep/down"}, "x"),
        ("a", {"a": "b", "b": "a"}, None),
    ],
)
def test_a_link_is_followed_as_the_kernel_does_it(path: str, links: dict[str, str], end: str | None) -> None:
    assert resolved(path, links) == end


def found(*changes: Change, links: dict[str, str] | None = None, policy: Policy = USUAL) -> dict[str, Guard]:
    return {each.path: each.guard for each in review(changes, Tree(links=links or {}), policy)}


def test_a_link_out_and_a_link_to_a_guarded_place_need_a_person_and_an_inner_one_does_not() -> None:
    links = {"out": "../x", "w": ".github/workflows", "in": "src"}
    changes = [Change(path=path, mode=LINK, target=to) for path, to in links.items()]
    assert found(*changes, links=links) == {"out": Guard.LINK, "w": Guard.WORKFLOW}


def test_a_submodule_that_comes_changes_or_goes_needs_a_person() -> None:
    assert found(
        Change(path="new", mode=SUBMODULE),
        Change(path="gone", mode="000000", old_mode=SUBMODULE),
        Change(path="now-a-file", mode=FILE, old_mode=SUBMODULE),
    ) == dict.fromkeys(("new", "gone", "now-a-file"), Guard.SUBMODULE)


def test_a_removed_and_a_renamed_workflow_need_a_person() -> None:
    assert found(
        Change(path=".github/workflows/ci.yml", mode="000000", old_mode=FILE),
        Change(path="ci.txt", mode=FILE),
    ) == {".github/workflows/ci.yml": Guard.WORKFLOW}


def test_a_name_with_a_newline_needs_a_person_and_is_shown_on_one_line() -> None:
    findings = review([Change(path="a\nb\u202e", mode=FILE)], Tree(), Policy())
    assert sentence(findings).startswith("a\\nb\\u202e (")


def test_the_limits_of_size_count_the_file_the_sum_and_the_number() -> None:
    policy = Policy(max_file=10, max_total=25, max_files=2)
    assert found(Change(path="a", mode=FILE, size=10), policy=policy) == {}
    assert found(Change(path="a", mode=FILE, size=11), policy=policy) == {"a": Guard.SIZE}
    three = [Change(path=path, mode=FILE, size=9) for path in "abc"]
    texts = [each.detail for each in review(three, Tree(), policy)]
    assert texts == ["0.0 MB", "3 files"]
    assert found(Change(path="a", mode="000000", size=99), policy=policy) == {}


def test_operators_add_paths_and_exceptions() -> None:
    policy = Policy(guarded=("deploy/**", "*.key"), allowed=("docs/AGENTS.md",))
    changes = [Change(path=path, mode=FILE) for path in ("Deploy/x/y", "a.key", "s/b.key", "docs/AGENTS.md")]
    assert found(*changes, policy=policy) == {"Deploy/x/y": Guard.CONFIGURED, "a.key": Guard.CONFIGURED}


def test_an_exception_for_a_path_is_none_for_its_size_link_or_submodule() -> None:
    policy = Policy(allowed=("**/*.bin", "in"), max_file=1)
    assert found(Change(path="d/a.bin", mode=FILE, size=2), policy=policy) == {"d/a.bin": Guard.SIZE}
    links = {"in": "../out"}
    assert found(Change(path="in", mode=LINK), links=links, policy=policy) == {"in": Guard.LINK}
    assert found(Change(path="in", mode=SUBMODULE), policy=policy) == {"in": Guard.SUBMODULE}


@pytest.mark.parametrize(
    ("pattern", "path", "is_match"),
    [
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/*", "a/b/c", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("**/x.md", "x.md", True),
    ],
)
def test_patterns(pattern: str, path: str, is_match: bool) -> None:
    assert matches(path, pattern) is is_match


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=100)
def test_folding_is_done_at_once(text: str) -> None:
    assert folded("/".join(folded(text))) == folded(text) or ":" in text


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["a", "b/c", "../a", "/x", "c/.."]), max_size=3)
)
@settings(max_examples=100)
def test_no_link_leads_on_for_ever(links: dict[str, str]) -> None:
    end = resolved("a", links)
    assert end is None or ".." not in end.split("/")
