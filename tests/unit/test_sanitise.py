from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.security.invisible import INVISIBLE, without_invisible
from adw_modules.security.sanitise import hidden_pieces, issue_text, sanitise, sanitise_plain

# (what it is, the source, what a reader sees, the kinds taken out)
VECTORS = [
    ("closed comment", "Fix <!-- hidden -->it.", "Fix it.", {"comment": 1}),
    ("comment over lines", "a\n\n<!--\nhidden\n\nmore\n-->\nb", "a\n\n\nb", {"comment": 1}),
    ("unterminated comment", "seen\n\n<!-- hidden\n\nto the end", "seen\n\n", {"comment": 1}),
    ("comment ended as browsers allow", "a <!-- hidden --!> b", "a  b", {"comment": 1}),
    ("nested comments", "<!-- hidden <!-- hidden --> seen -->", " seen -->", {"comment": 1}),
    ("comment that a comment makes", "<!-<!-- hidden -->- hidden --> seen", " seen", {"comment": 2}),
    ("empty comment of browsers", "<!-->seen", "seen", {"comment": 1}),
    ("processing instruction", "a <?hidden?> b", "a  b", {"comment": 1}),
    ("character data", "a <![CDATA[hidden]]> b", "a  b", {"comment": 1}),
    ("declaration", "a <!HIDDEN x> b", "a  b", {"comment": 1}),
    ("tag characters", "a\U000e0068\U000e0069b", "ab", {"invisible character": 1}),
    ("invisible operators", "a\u2060\u2061\u2062\u2063\u2064b", "ab", {"invisible character": 1}),
    ("variation selectors", "a\ufe0fb\U000e0101c", "abc", {"invisible character": 2}),
    ("Hangul fillers", "a\u3164b\u115f\u1160c\uffa0", "abc", {"invisible character": 3}),
    ("zero width", "i\u200bg\u200cn\u200do\ufeffre", "ignore", {"invisible character": 4}),
    ("direction", "a\u202eb\u2066c\u2069", "abc", {"invisible character": 3}),
    ("soft hyphen", "a\u00adb", "ab", {"invisible character": 1}),
    ("private use", "a\ue000\U000f0000b", "ab", {"invisible character": 1}),
    ("half a surrogate pair", "a\ud800b\udfff", "ab", {"invisible character": 2}),
    ("not a character", "a\ufffeb\U0001ffff", "ab", {"invisible character": 2}),
    ("NUL and other controls", "a\x00b\x1b[31mc", "ab[31mc", {"invisible character": 2}),
    ("line separators", "a\u2028b\x0bc", "a b c", {"invisible character": 2}),
    ("entities of them", "a&#8203;b&ZeroWidthSpace;c&shy;&#xE0041;", "abc", {"invisible character": 4}),
    ("comment in a reference", "[//]: # (hidden)\nseen", "seen", {"link reference": 1}),
    ("comment in a reference, quoted", "> [c]: <> 'hidden\n> hidden'\nseen", "> ", {"link reference": 1}),
    ("unused reference", "seen\n\n[x]: http://hidden", "seen\n\n", {"link reference": 1}),
    ("used reference", "[a][hidden] [b]\n\n[hidden]: /u\n[b]: /v", "[a](/u) [b](/v)\n\n", {}),
    ("hidden element", "a <span hidden>hidden</span> b", "a  b", {"hidden element": 1}),
    ("display none", '<p style="display: none">\nhidden\n</p>\nseen', "\nseen", {"hidden element": 1}),
    ("visibility", "a <i style='visibility:hidden'>hidden</i>", "a ", {"hidden element": 1}),
    ("size of nothing", "a <i style='font-size:0px'>hidden</i>", "a ", {"hidden element": 1}),
    ("hidden to the end", "a <div hidden>hidden\n\nhidden `</div>` hidden", "a ", {"hidden element": 1}),
    ("script", "a <script>hidden</script> b", "a  b", {"hidden element": 1}),
    ("template", "a <template>hidden</template> b", "a  b", {"hidden element": 1}),
    ("picture", "<picture><source media='hidden'>seen</picture>", "seen", {"unknown tag": 3}),
    ("attributes", '<b title="hidden" data-x="hidden">seen</b>', "<b>seen</b>", {"attribute": 1}),
    ("image in HTML", '<img src="http://i" alt="hidden">', '<img src="http://i">', {"attribute": 1}),
    ("unknown tag", "a <hidden-words>seen</hidden-words>", "a seen", {"unknown tag": 2}),
    ("alternative text", "![hidden [hidden](u)](http://i)", "![](http://i)", {"image text": 1}),
    ("titles", '[a](u "hidden") ![](i (hidden))', "[a](u) ![](i)", {"link title": 2}),
    ("link without text", "a [](http://hidden) b", "a  b", {"link without text": 1}),
    ("address that is prose", "[a](<hidden words>)", "[a]", {"odd address": 1}),
    ("words behind a fence", "```py hidden\nx\n```", "```py\nx\n```", {"text behind a code fence": 1}),
    ("drawing", "```mermaid\n%% hidden\n```\nseen", "seen", {"drawing": 1}),
    ("formula", "a $\\phantom{hidden}$ b", "a  b", {"formula": 1}),
    ("cell without column", "|a|\n|-|\n|b|hidden|\n\nc", "|a|\n|-|\n|b|\n\nc", {"table cell": 1}),
    ("footnote nobody refers to", "a[^1]\n\n[^1]: b\n[^2]: hidden", "a[^1]\n\n[^1]: b\n", {"footnote": 1}),
]  # fmt: skip

# What looks hidden and is not, and what only looks like code.
VISIBLE = [
    "```html\n<!-- seen --> [//]: # (seen) <b title='seen'>&shy;\n```",
    "~~~~\n```\n<!-- seen -->\n~~~\n~~~~",
    "Use `<!-- seen -->` and ``a ` <b hidden>``.",
    "    <div hidden>seen</div>",
    "1. Run\n   ```sh\n   cat <<EOF > a.html\n   ```\n2. See",
    "> ```\n> <!-- seen -->\n> ```",
    "- [ ] open\n- [x] done (see [the docs](https://example.org/a?b=c#d))",
    "<details><summary>Log</summary>\n\nseen\n\n</details>",
    "if a < b && c > d || e<3: f[0](x)",
    "It costs $5, or $6 with 10%.",
    "| a | b |\n|---|:-:|\n| `x \\| y` | <br> |",
    "Press <kbd>Ctrl</kbd>; a &lt;!-- seen --&gt; &amp; &copy;",
    "<https://example.org/?a=b> and me@example.org, @team, #12",
]
TRICKS = [
    ("a fence that its list item ends", "- ```\n<!-- hidden -->\n  ```"),
    ("a fence in raw HTML", "<div>\n```\n<!-- hidden -->\n```\n</div>"),
    ("a span that a block ends", "`a\n<!-- hidden -->\n`"),
    ("a span between two cells", "| a | b |\n|---|---|\n| `a | <!-- hidden --> ` |"),
    ("a backtick in an attribute", '<b title="`"> <!-- hidden --> `'),
    ("a backtick in an address", "<https://a/`> <!-- hidden --> `"),
    ("a span over two paragraphs", "`a\n\n<!-- hidden --> `"),
    ("an escaped backtick", "\\`<!-- hidden -->`"),
    ("a fence that is broken by nothing", "``\u200b`\n<!-- hidden -->\n```"),
    ("a backtick after composition", "\u1fef<!-- hidden -->\u1fef"),
    ("an indented end tag", "<div hidden>\n\n    </div>\n\nhidden"),
    ("an end tag in a comment", "<div hidden><!-- </div> -->hidden</div>"),
    ("a tag that swallows", '<div title="\n\nhidden\n\n'),
    ("a fence within an unclosed comment", "> <!-- a\n\n```\nb --> hidden\n```"),
    ("no space for a fence", "     ```\n<!-- hidden -->\n     ```"),
]  # fmt: skip

PIECES = st.sampled_from(
    [
        "<!--", "-->", "--!>", "`", "```", "~~~", "\n", "\n\n", "> ", "- ", "    ", "|", "|-|\n", "[", "](",
        ")",
        "![", '"', "<div>", "</div>", "<b hidden>", "<b title='", "'>", "<pre>", "<?", "<!X", "\\", "&#8203;",
        "[a]: u\n", "[a]", "[^1]:", "[^1]", "$$", "\\phantom{", "\u200b", "\ud800", "\ufe0f", "e\u0301",
        "<\u0338", "\u1fef", "\r", "\x00",
    ]
)  # fmt: skip
HOSTILE = st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join)


@pytest.mark.parametrize(
    ("text", "seen", "removed"), [each[1:] for each in VECTORS], ids=[e[0] for e in VECTORS]
)
def test_what_is_hidden_goes_and_what_is_seen_stays(text: str, seen: str, removed: dict[str, int]) -> None:
    done = sanitise(text)
    assert done.text == seen
    assert dict(done.removed) == removed
    assert done.total == sum(removed.values())
    assert sanitise(seen).text == seen


@pytest.mark.parametrize("text", VISIBLE)
def test_what_looks_hidden_but_is_seen_stays(text: str) -> None:
    assert (sanitise(text).text, sanitise(text).total) == (text, 0)


@pytest.mark.parametrize("text", [each[1] for each in TRICKS], ids=[each[0] for each in TRICKS])
def test_what_only_looks_like_code_protects_nothing(text: str) -> None:
    assert "hidden" not in sanitise(text).text.replace("<div hidden>", "")


@given(HOSTILE)
@settings(max_examples=100)
def test_the_result_is_its_own_result_and_holds_nothing_invisible(text: str) -> None:
    done = sanitise(text)
    assert sanitise(done.text).text == done.text
    assert not INVISIBLE.search(done.text)
    assert unicodedata.is_normalized("NFC", done.text)
    done.text.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="<&[]$|`~\\"), max_size=60))
@settings(max_examples=50)
def test_plain_text_stays_as_it_is(text: str) -> None:
    seen = unicodedata.normalize("NFC", without_invisible(text)[0])
    assert sanitise(text).text == seen


def test_the_list_of_invisible_characters_holds_all_that_unicode_calls_so() -> None:
    for category, code in ((unicodedata.category(chr(code)), code) for code in range(0x110000)):
        if category in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") and chr(code) not in "\t\n":
            assert INVISIBLE.match(chr(code)), hex(code)
        elif category[0] in "LNP":
            assert not INVISIBLE.match(chr(code)) or chr(code) in "\u115f\u1160\u3164\uffa0", hex(code)


@pytest.mark.parametrize(
    ("emoji", "seen"), [("❤️", "❤"), ("👩\u200d💻", "👩💻"), ("1️⃣", "1⃣"), ("👍🏽", "👍🏽")]
)
def test_an_emoji_stays_a_little_plainer_and_is_not_counted(emoji: str, seen: str) -> None:
    assert (sanitise(emoji).text, sanitise(emoji).total) == (seen, 0)


def steps(text: str) -> int:
    """How many calls one reading takes: time without a clock."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        sanitise.__wrapped__(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(
    "piece",
    [
        "<", "<!--", "<a b='", "[", "![", "[a](b", "](", "`", "` ``", "<div>\n", "> <a\n", "$a",
        "[a]: b\n\n[a]",
        "<?", "- ", "![<!-- ] -->",
    ],
)  # fmt: skip
def test_twice_the_text_takes_no_more_than_about_twice_the_steps(piece: str) -> None:
    counts = [steps(piece * (size // len(piece))) for size in (200, 400, 800)]
    assert all(more <= 2.5 * less + 100 for less, more in pairwise(counts)), counts


def test_a_text_built_to_come_apart_layer_by_layer_comes_to_an_end() -> None:
    text = "<!-" * 30 + "<!-- x -->" + "- hidden -->" * 30
    done = sanitise(text)
    assert "<" not in done.text
    assert sanitise(done.text).text == done.text


def test_a_title_is_no_markdown_and_loses_only_what_nobody_sees() -> None:
    seen = issue_text("Keep <!-- this -->\n\u202eand\u200b that", "")
    assert seen.title.text == "Keep <!-- this --> and that"
    assert seen.hidden == "2 hidden pieces: 2 invisible characters"


def test_a_body_beyond_all_measure_is_read_in_part() -> None:
    assert issue_text("t", "é" * 300_000).unread == 2 * (300_000 - 262_144)


def test_removals_are_counted_in_words() -> None:
    texts = [sanitise("<!-- a --><!-- b -->\u200b"), sanitise_plain("\x1b")]
    assert hidden_pieces(texts) == "4 hidden pieces: 2 comments, 2 invisible characters"
    assert hidden_pieces([sanitise("<!-- a -->")]) == "1 hidden piece: 1 comment"
    assert hidden_pieces([sanitise("plain")]) == ""
