"""Rule 7: the agent sees what a reader of the issue sees, and the number of removals is shown.

The vectors one by one are in `tests/unit/test_sanitise.py`. Here: the way through the daemon, and a judge of
our own reading of Markdown, which is somebody else's parser and a browser's reading of HTML.
"""

from __future__ import annotations

import ast
import html
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from world import LABEL, MAINTAINER, REPO, WRITE, World

from adw_modules.security.admission import KeptComment
from adw_modules.security.sanitise import LONGEST_RAW, sanitise
from coordinator.prompts import PromptValues, render

HIDDEN = "hidden-from-everybody"
BODY = f"""Say hello first.<!-- {HIDDEN} -->

[//]: # ({HIDDEN})
See [the guide](https://example.org/guide "{HIDDEN}") and ![{HIDDEN}](https://example.org/a.png).
<p hidden>{HIDDEN}</p>

```html
<!-- seen: this is code -->
```

{WRITE}

<!-- {HIDDEN}
"""


def prompt_of(world: World, number: int) -> str:
    return (Path(world.runs(number)[-1].run_dir) / "prompt.md").read_text()


def test_what_nobody_sees_reaches_no_agent_and_is_counted_where_people_look(world: World) -> None:
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    number = world.server.add_issue(
        REPO, title=f"Say{tags} hello\u200b", body=BODY, author=MAINTAINER, labels=[LABEL, "a\u202eb\u2063"]
    )
    world.start()
    world.until_state(number, "succeeded")

    prompt = prompt_of(world, number)
    assert HIDDEN not in prompt
    assert not [character for character in prompt if ord(character) > 0x2000]
    assert "Title: Say hello\n" in prompt
    assert "`ab`" in prompt
    assert "<!-- seen: this is code -->" in prompt
    assert "[the guide](https://example.org/guide)" in prompt

    told = "8 hidden pieces: 2 invisible characters, 2 comments, "
    comment = world.comment(number)
    assert told in comment
    assert HIDDEN not in comment
    assert (
        "<details><summary>The text that the agent sees</summary>\n\n````\nSay hello\n\nSay hello first."
        in comment
    )
    assert told in world.cli("why", str(number))
    assert world.cli("why", str(number), "--json")["hidden"].startswith(told)


def test_an_issue_that_hides_nothing_is_not_talked_about(world: World) -> None:
    number = world.issue(WRITE, "Use `<T>` & [this](https://example.org) 👍🏽.")
    world.start()
    world.until_state(number, "succeeded")

    assert "👍🏽" in prompt_of(world, number)
    assert "Taken out" not in world.comment(number)
    assert "Taken out" not in world.cli("why", str(number))


# -- against another parser ---------------------------------------------------------------------------------

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
WORD = re.compile(r"w\d+w")
SHOWN_ELSEWHERE = re.compile(r'(?:class="language-|href="|src=")([^"]*)')
PIECES = [
    "<!--", "-->", "--!>", "<!-->", "`", "``", "```", "~~~", "\n", "\n", "\n\n", "\n", "> ", "- ",
    "1. ", "2. ", "  ", "   ", "    ", "\t", "|", "| a |\n|---|\n", "[", "](", "](u)", ")", "![", '"',
    "'", "<div>", "</div>", "<div hidden>", "<span hidden>", "</span>", "<b>", '<b title="', '">',
    "<x y='", "<pre>", "</pre>", "<?", "?>", "<!X", "<![CDATA[", "]]>", "\\", "&", "&#8203;",
    '[a]: /u "', "[a]: /u\n", "[a]", "[b][a]", "# ", "---\n", "<https://x/", "<a@b.c", "$", "\u200b",
    "\r", "\n> ", "\n- ", "\n  ", "\n```\n", "\n   ```\n", "\n> ```\n", "* ", "10) ", "text ", "(", ":",
    "<", "/>", "<script>", "</script>", "<br>", "<details>", "\n***\n",
]  # fmt: skip
TOKEN = re.compile(
    r"<!--(?:-?>|(?:.*?--!?>|.*))|<[!?][^>]*>?"
    r"|<(/?)([A-Za-z][^\s/>]*)((?:=\s*(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z))|[^>])*)(>?)",
    re.DOTALL,
)


def shown_by_a_browser(source: str) -> set[str]:
    """The words that are visible once the text is HTML: outside comments, tags and hidden elements."""
    page, shown, open_hidden, at = MARKDOWN.render(source), [], [], 0
    for token in TOKEN.finditer(page):
        if not open_hidden:
            shown.append(page[at : token.start()])
        at = token.end()
        name = (token[2] or "").lower()
        if not name or name in ("br", "img", "hr"):
            continue
        if not token[1] and token[4]:
            bare = re.sub(r"=\s*(?:\"[^\"]*\"|'[^']*')", "", token[3])
            if open_hidden or name in ("script", "template") or re.search(r"\bhidden\b", bare):
                open_hidden.append(name)
        elif name in open_hidden:
            del open_hidden[len(open_hidden) - 1 - open_hidden[::-1].index(name) :]
    rest = "" if open_hidden else page[at:]
    elsewhere = " ".join(SHOWN_ELSEWHERE.findall(page))  # an address, and the language of code
    return set(WORD.findall(html.unescape("".join(shown) + rest + elsewhere)))


def a_text(draw: random.Random) -> str:
    pieces = []
    for number in range(draw.randint(1, 16)):
        pieces.append(draw.choice(PIECES))
        if draw.random() < 0.55:
            pieces.append(f"w{number}w" + draw.choice(["", "", " "]))
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(4))
def test_no_word_passes_that_another_parser_and_a_browser_would_not_show(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(500):
        text = a_text(draw)
        passed = set(WORD.findall(sanitise.__wrapped__(text).text))
        assert passed <= shown_by_a_browser(text), repr(text)


# However long a text is


def _calls_of_the_sanitiser() -> list[tuple[str, str]]:
    """(file, argument) of each call of `sanitise` in the product."""
    root = Path(__file__).parents[2]
    files = [*(root / "adw_modules").rglob("*.py"), *(root / "coordinator").rglob("*.py")]
    return [
        (path.name, ast.unparse(node.args[0]))
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sanitise"
    ]


def test_every_path_to_the_sanitiser_is_capped() -> None:
    """It takes a millisecond for each kilobyte of hostile text: nobody may send it ten megabytes."""
    calls = _calls_of_the_sanitiser()
    assert {file for file, _ in calls} == {"sanitise.py", "prompts.py"}
    assert [call for call in calls if not call[1].endswith("[:LONGEST_RAW]")] == []


def test_what_is_behind_the_cap_is_not_read_in_the_text_and_in_comments() -> None:
    """Read as a whole, the comment of HTML would end and what is behind it be seen."""
    long = f"<!--{'x' * LONGEST_RAW}--> BEHIND"
    said = KeptComment(author="ada", author_id=7, at=datetime(2026, 11, 21, tzinfo=UTC), body=long)
    values = PromptValues(
        issue_number=12, title="Title", body=long, repo=REPO, branch="auto/gh-12", default_branch="main",
        labels=(), attempt=1, previous_failure=None, comments=(said,),
    )  # fmt: skip
    prompt = render(None, values=values)
    assert "BEHIND" not in prompt
    behind = len(long) - LONGEST_RAW
    assert f"(The text was cut: its last {behind} bytes are not shown.)" in prompt
    assert f"(The comment was cut: its last {behind} bytes are not shown.)" in prompt
