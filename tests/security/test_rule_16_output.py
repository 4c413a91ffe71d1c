"""Rule 16: what we write mentions nobody, closes no other issue, refers nowhere and loads no image."""

from __future__ import annotations

import html
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from world import REPO, World, program

from adw_modules.money.quotes import PriceSource
from adw_modules.tasks import report
from adw_modules.tasks.messages import Voice, harmless, reworded
from adw_modules.tasks.model import Cost, ModelUsage, Outcome, TaskState, UsageSource
from adw_modules.tasks.report import RunReport
from coordinator.settling import commit_message
from tests.builders import a_run, a_task

MENTIONS = [
    "@octocat", "@octo/team", "thanks @octocat.", "(@octocat)", "a@octocat", "\\@octocat", "&#64;octocat",
    "&commat;octocat", "&#x40;octocat", "@\u200boctocat", "`@octocat`", "_@octocat_", "@o-c", "@_x",
]  # fmt: skip
REFERENCES = [
    "fixes #1", "Closes #1", "resolves: #1", "fixes GH-1", "fixes gh-1", "closes owner/repo#2",
    "#1", "\\#1",
    "&#35;1", "&num;1", "GH\\-1", "fixes https://github.com/o/r/issues/1",
    "fixes http://github.com/o/r/pull/1",
    "[x](https://github.com/o/r/issues/1)", "www.github.com/o/r/issues/1",
    "https://ghe.example/o/r/discussions/1",
    "https:\\/\\/github.com\\/o\\/r\\/issues\\/1", "https://github.com/o/r/issues/%31", "o/r@0123456",
    "https://github.com/o/r/commit/0123456", "#\u200b1", "fixes\n#1", "GH&#45;1",
]  # fmt: skip
PICTURES = [
    "![x](https://evil/a.png)", "![x][y]\n\n[y]: https://evil/a.png", "<img src=https://evil/a.png>",
    "[![x](https://evil/a.png)](https://evil)", "!\u200b[x](https://evil/a.png)",
    "\\![x](https://evil/a.png)",
    "<picture><source srcset=https://evil/a.png></picture>",
    "<video src=https://evil/a.mp4>", "!&#91;x](https://e)",
]  # fmt: skip
STRUCTURE = [
    "# Done\n\nDraft pull request: http://evil", "---\nMade by nobody", "</details>",
    "<!-- coordinator:100:99 -->",
    "<details open>", "```\nnever closed", "> ", "| a | b |\n|---|---|\n| 1 | x |",
    "a\x0b# b\u2028# c\x85# d",
    "<script>alert(1)</script>", "<h1>x</h1>", "a\r# b", "\u202egnitseretni",
]  # fmt: skip
CORPUS = [*MENTIONS, *REFERENCES, *PICTURES, *STRUCTURE]

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
MENTION = re.compile(r"@[A-Za-z0-9_]")
REFERENCE = re.compile(r"#\d|\bGH-\d|/(?:issues|pull|discussions|commit)/[\w%]", re.IGNORECASE)
INVISIBLE = re.compile("[\u202a-\u202e\u2060-\u206f\U000e0000-\U000e0fff]")


def a_run_report() -> RunReport:
    return RunReport(
        run=a_run(outcome=Outcome.SUCCEEDED),
        rule_reason="the default",
        usage=ModelUsage(input=10, output=5),
        usage_source=UsageSource.REPORTED,
        cost=Cost(usd=None, priced_by="subscription", source=PriceSource.SUBSCRIPTION),
        duration=None,
    )


def as_github_shows_it(markdown: str) -> tuple[str, str]:
    """(the page, its text outside of code): GitHub looks for mentions and references in that text."""
    page = MARKDOWN.render(markdown)
    outside = re.sub(r"<(code|pre)\b.*?</\1>", "", page, flags=re.DOTALL)
    return page, html.unescape(re.sub(r"<!--.*?-->|<[^>]+>", "", outside, flags=re.DOTALL))


def assert_harmless(markdown: str, own: str) -> None:
    """`own`: the one reference of ours that may be in it."""
    page, text = as_github_shows_it(markdown)
    text = text.replace(own, "", 1)
    assert not MENTION.search(text), text
    assert not REFERENCE.search(text), text
    assert "<img" not in page
    assert not re.search(r"<(?!/?(?:details|summary)\b|!--)[a-z]", re.sub(r"</?[a-z0-9]+[^>]*>", "", page))
    assert not INVISIBLE.search(markdown)


@pytest.mark.parametrize("text", CORPUS)
def test_what_an_agent_says_is_words_wherever_we_write_it(text: str) -> None:
    task = a_task(state=TaskState.BLOCKED, cause=text, snapshot_title=text, snapshot_body="x")
    body = report.pull_request_body(task, a_run_report(), text)
    assert_harmless(body, "Fixes #12")
    assert body.startswith("Fixes #12\n")
    assert_harmless(report.comment(task, [a_run_report()], failure_lines=tuple(text.split("\n"))), "")
    title = report.pull_request_title(task)
    assert_harmless_line(title)
    subject, _, rest = commit_message(task).partition("\n")
    assert subject == title
    assert rest == "\nFixes #12"


def assert_harmless_line(title: str) -> None:
    own, _, said = title.partition(": ")
    assert own == "gh-12"
    assert not MENTION.search(said)
    assert not REFERENCE.search(said)
    assert len(title.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f]", title)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(CORPUS) | st.text(max_size=5), max_size=6).map("".join))
def test_no_mixture_of_them_comes_alive(text: str) -> None:
    task = a_task(state=TaskState.FAILED, cause=text, snapshot_title=text)
    assert_harmless(report.pull_request_body(task, a_run_report(), text), "Fixes #12")
    assert_harmless_line(report.pull_request_title(task))


@pytest.mark.parametrize("text", STRUCTURE)
def test_nothing_that_is_quoted_looks_like_a_part_of_ours(text: str) -> None:
    """Headings, rules, tables and markers of others stay within the quote."""
    body = report.pull_request_body(a_task(), a_run_report(), text)
    page = MARKDOWN.render(body)
    quote = page[page.index("<blockquote>") : page.rindex("</blockquote>")]
    ours = page.replace(quote, "")
    assert ours.count("<hr") == 1
    assert not re.search(r"<h[1-6]|<table|<!--|<script", ours)
    assert "Made by" in ours


def test_the_words_of_a_comment_with_everything_in_it_stay_the_same() -> None:
    """What it looks like, byte for byte; a zero-width space is written out."""
    said = "@octocat fixes #1, GH-2 and o/r#3\n![x](http://e/i.png) <b>&#64;x</b>\n# Done"
    task = a_task(state=TaskState.BLOCKED, cause=said, snapshot_body="a<!-- b -->c @octocat\n```\nd")
    text = report.comment(task, []).replace("\u200b", "{}")
    assert text == (
        "<!-- coordinator:100:12 -->\n\n"
        "### ✋ Needs attention\n\n"
        "> @{}octocat fixes #{}1, GH{}-2 and o/r#{}3\n"
        "> ! [x](http://e/i.png) &lt;b>&amp;#{}64;x&lt;/b>\n"
        "> # Done\n\n"
        "Taken out of the text that the agent sees: 1 hidden piece: 1 comment.\n\n"
        "<details><summary>The text that the agent sees</summary>\n\n"
        f"````\n{task.snapshot_title}\n\nac @octocat\n```\nd\n````\n\n</details>"
    )


SHOUTS = """
open("BLOCKED.md", "w").write(SAID)
"""


def test_a_hostile_title_and_question_come_out_of_the_daemon_as_words(world: World) -> None:
    said = "@octocat fixes #1 and octo/hello#2 ![x](https://evil/a.png)\n\n# Done\n<!-- coordinator:1:1 -->"
    world.write_config(**{"providers.claude-cli": program(SHOUTS.replace("SAID", repr(said)))})
    asks = world.issue(title="fixes #1 for @octocat")
    world.start()
    world.until_state(asks, "blocked")
    assert_harmless(world.comment(asks), "")
    assert "fixes #\u200b1" in world.comment(asks)

    world.write_config(**{"providers.claude-cli": program('open("a.txt", "w").write("x")')})
    world.until(lambda: world.events("configuration reloaded"), "the file is taken over")
    works = world.issue(title="fixes #1, closes octo/hello#2 for @octocat\n\nSigned-off-by: x")
    world.until_state(works, "succeeded")
    (pull,) = world.pulls(works)
    assert not MENTION.search(pull.title)
    assert not REFERENCE.search(pull.title.partition(": ")[2])
    assert_harmless(pull.body, f"Fixes #{works}")
    place = world.folder / "github" / f"{REPO}.git"
    message = subprocess.run(
        ["git", "-C", str(place), "log", "-1", "--format=%B", f"auto/gh-{works}"],
        capture_output=True, text=True, check=True, timeout=10,
    ).stdout  # fmt: skip
    assert message.strip() == f"{pull.title}\n\nFixes #{works}"


# The commits of the agent itself

VOICE = Voice(name="coordinator", email="coordinator@example.org", issue=12)
SKIPS = ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]", "[Skip  CI]", "***NO_CI***",
         "[skip-ci]", "[netlify skip]"]  # fmt: skip
TRAILERS = [
    "Co-authored-by: Ada <ada@example.org>", "co-authored-by: x", "Signed-off-by: Linus <l@example.org>",
    "Reviewed-by : x", "Release-As: 9.0.0", "skip-checks: true", "  Acked-by: x", "Change-Id: I1",
]  # fmt: skip
POWER = re.compile(r"^[ \t]*[A-Za-z0-9]+(-[A-Za-z0-9]+)+[ \t]*:", re.MULTILINE)
SKIP = re.compile(r"\[[^\]]*(skip|no)[ _-]*ci|\[[^\]]*skip[^\]]*\]|\*NO_CI\*", re.IGNORECASE)


def assert_no_powers(message: str) -> None:
    assert not MENTION.search(message), message
    assert not REFERENCE.search(re.sub(r"(?<![\w/.#-])(#|gh-)12(?!\d)", "", message, flags=re.IGNORECASE)), (
        message
    )
    assert not SKIP.search(message), message
    assert not POWER.search(message.lstrip().partition("\n")[2]), message  # a subject is no trailer


@pytest.mark.parametrize("text", [*MENTIONS[:8], *MENTIONS[9:], *REFERENCES, *SKIPS, *TRAILERS])
def test_an_agents_message_mentions_closes_skips_and_credits_nothing(text: str) -> None:
    for message in (text, f"Work\n\n{text}\n", f"Work\n\nx\n\nFixes #12\n{text}\n"):
        assert_no_powers(harmless(html.unescape(message), 12))
        assert harmless(harmless(message, 12), 12) == harmless(message, 12)


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from([*CORPUS, *SKIPS, *TRAILERS, "\n", "\u200b"]) | st.text(max_size=5)).map("".join)
)
def test_a_message_that_was_made_harmless_stays_as_it_is(text: str) -> None:
    once = harmless(text, 12)
    assert harmless(once, 12) == once
    commit = f"tree {'0' * 40}\nauthor a <b> 1 +0000\ncommitter a <b> 1 +0000\n\n{text}"
    first = reworded(commit.encode(errors="surrogateescape"), VOICE, {})
    assert reworded(first, VOICE, {}) == first


@pytest.mark.parametrize(
    "text", ["gh-12: Say hello\n\nFixes #12", "Add a guide\n\nAs #12 asks.\n", "x: y\n\nNote: z"]
)
def test_an_ordinary_message_and_our_own_stay_as_they_are(text: str) -> None:
    assert harmless(text, 12) == text
    assert harmless("Fixes o/r#12, x#12 and #123", 12) == "Fixes o/r#\u200b12, x#\u200b12 and #\u200b123"


@pytest.mark.parametrize(
    ("author", "stays"),
    [
        ("coordinator <coordinator@example.org> 1 +0200", True),
        ("coordinator (aider) <coordinator@example.org> 1 +0200", True),
        ("Linus <coordinator@example.org> 1 +0200", False),
        ("coordinator <linus@example.org> 1 +0200", False),
        ("coordinator <> 1 +0200", False),
        ("nonsense", False),
    ],
)
def test_a_commit_is_in_our_name_whatever_its_author_says(author: str, stays: bool) -> None:
    text = f"tree {'0' * 40}\nauthor {author}\ncommitter {author}\ngpgsig x\n y\n\nwork\n".encode()
    assert (reworded(text, VOICE, {}) == text) is stays
    if not stays:
        time = b"1 +0200" if b"1 +0200" in text else b"0 +0000"
        who = b"coordinator <coordinator@example.org> " + time
        ours = b"tree " + b"0" * 40 + b"\nauthor " + who + b"\ncommitter " + who + b"\n\nwork\n"
        assert reworded(text, VOICE, {}) == ours


def test_a_message_in_another_encoding_is_told_in_none() -> None:
    text = f"tree {'0' * 40}\nauthor a <b> 1 +0000\ncommitter a <b> 1 +0000\nencoding UTF-7\n\n+AEA-octocat"
    assert b"encoding" not in reworded(text.encode(), VOICE, {})


FORGES = """
import os, subprocess
def git(*words, **env):
    subprocess.run(["git", *words], check=True, env=dict(os.environ, **env), stdout=subprocess.DEVNULL)
def commit(name, message, **env):
    open(name, "w").write(message)
    git("add", "-A")
    git("commit", "-q", "--cleanup=verbatim", "-m", message, **env)
if not os.path.exists("a.txt"):
    commit("a.txt", "Add a\\n\\nFixes #1, @octocat [skip ci]\\n\\nCo-authored-by: Ada <ada@example.org>")
    git("checkout", "-q", "-b", "side")
    commit("b.txt", "Plain words", GIT_AUTHOR_NAME="Ada", GIT_AUTHOR_EMAIL="ada@example.org")
    git("checkout", "-q", "-")
    commit("c.txt", "Plain words too")
    git("merge", "-q", "--no-ff", "-m", "Merge pull request #7 from octo/side", "side")
    open("rest.txt", "w").write("for our own commit")
else:
    commit("more.txt", "More for @octocat")
"""


def _git(world: World, *arguments: str) -> str:
    place = world.folder / "github" / f"{REPO}.git"
    done = subprocess.run(
        ["git", "-C", str(place), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout


def test_commits_of_an_agent_arrive_with_their_files_and_without_their_powers(world: World) -> None:
    world.write_config(**{"providers.claude-cli": program(FORGES)})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    world.until(lambda: world.pulls(number), "it is published")
    branch = f"auto/gh-{number}"
    listed = _git(world, "log", "--topo-order", "--format=%an %ae|%cn %ce|%B%x00", f"main..{branch}").split(
        "\0"
    )
    commits = [each.strip().split("|", 2) for each in listed if each.strip()]
    assert len(commits) == 5
    (ours,) = {each for author, committer, _ in commits for each in (author, committer)}
    assert "ada" not in ours
    for *_, message in commits:
        assert_no_powers(message.replace(f"#{number}", "").replace(f"gh-{number}", ""))
    said = "\n".join(message for *_, message in commits)
    assert "The agent wrote: Co-authored-by: Ada" in said
    assert "Plain words too" in said
    files = _git(world, "ls-tree", "-r", "--name-only", branch).split()
    assert {"a.txt", "b.txt", "c.txt", "rest.txt"} <= set(files)
    assert "@octocat" in _git(world, "show", f"{branch}:a.txt")  # files are nobody's words but the agent's
    assert len(_git(world, "rev-list", "--merges", f"main..{branch}").split()) == 1
    world.until(lambda: not (world.state_dir / "trees" / f"gh-{number}").exists(), "the worktree was clean")

    before = _git(world, "rev-list", branch).split()
    world.relabel(number)  # goes on from there: what is published is not written anew
    world.until(lambda: len(world.runs(number)) == 2, "it runs again")
    world.until_state(number, "succeeded")
    world.until(lambda: len(_git(world, "rev-list", branch).split()) == len(before) + 1, "it is pushed")
    assert _git(world, "rev-list", branch).split()[1:] == before
    assert_no_powers(_git(world, "log", "-1", "--format=%B", branch))
