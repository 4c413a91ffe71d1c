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
