"""One reading of a text as GitHub renders it: what is hidden by markup goes, what a reader sees stays.

Owns a small part of CommonMark: where code is, because there nothing is hidden, and what draws nothing
elsewhere. It is not a parser of Markdown. Where the place of code is in doubt it decides that there is
none (`_Reading.is_sure`), for the rest of the text if need be: then at worst something visible is lost,
and counted.
Must not look at single characters; `invisible` does.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from adw_modules.security.invisible import INVISIBLE

_MOST_BRACKETS = 64  # open at once
_MOST_PARENTHESES = 32  # one in another in an address; more is none, as GitHub has it
LONGEST_ADDRESS = 300  # characters: a longer one is a letter to whoever does not see it


class Kind(StrEnum):
    """What was hidden, in the words that people read."""

    COMMENT = "comment"
    INVISIBLE = "invisible character"
    ELEMENT = "hidden element"
    TAG = "unknown tag"
    ATTRIBUTE = "attribute"
    REFERENCE = "link reference"
    LINK = "link without text"
    TITLE = "link title"
    ADDRESS = "odd address"
    IMAGE_TEXT = "image text"
    CODE_NAME = "text behind a code fence"
    DRAWING = "drawing"
    FORMULA = "formula"
    CELL = "table cell"
    FOOTNOTE = "footnote"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHOWN_TAGS = _words("""
    a abbr b bdo blockquote br caption cite code dd del details dfn div dl dt em figcaption figure
    h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q rt ruby s samp small span strike strong
    sub summary sup table tbody td tfoot th thead time tr tt ul var wbr
""")
_HIDDEN_ELEMENTS = _words("""
    applet audio canvas datalist dialog embed head iframe math noembed noframes noscript object
    option plaintext rp script select style svg template textarea title video xmp
""")
_RAW_ELEMENTS = _words("pre script style textarea")  # a blank line does not end these
_BLOCKS = _words("""
    address article aside base basefont blockquote body caption center col colgroup dd details
    dialog dir div dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6
    head header hr html iframe legend li link main menu menuitem nav noframes ol optgroup option p
    param search section source summary table tbody td tfoot th thead title tr track ul
""")
_VOID = _words("area base br col embed hr img input link meta source wbr")
_DRAWN = _words("mermaid geojson topojson stl math")  # GitHub shows a picture, not the source
_PLAIN_ALT = frozenset({"", "image", "img", "screenshot"})  # what GitHub itself writes for a pasted picture

_WORDS = re.compile(r"[A-Za-z][^\n\\`<&\[\]$|]*+(?:\n|\Z)")
_SPECIAL = re.compile(r"[\\`<&\[\]$]")
_BLANK = re.compile(r"\n[ \t]*(?=\n)")
_PREFIX = re.compile(r"[ \t>]*+(?:(?:[-+*]|[0-9]{1,9}[.)])(?:[ \t]++[ \t>]*+|$|(?=\n)))*+")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|\n|\Z)")
_AT_MARGIN = re.compile(r" {0,3}>")
_MARKER = re.compile(r"([-+*]|[0-9]{1,9}[.)])( *)")
_FENCE = re.compile(r"(`{3,}+)([^`\n]*+)(?=\n|\Z)|(~{3,}+)([^\n]*+)(?=\n|\Z)")
_FENCE_LIKE = re.compile(r"`|~~~")
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,20}")
_QUOTE = re.compile(r"(?:> ?)+")
_PLAIN_LINE = re.compile(r"[ ]*[A-Za-z_(\"']")
_RUNS = re.compile(r"`+")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

_BLOCK_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)(?=[\s>]|/>|\Z)", re.ASCII)
_RAW_END = re.compile(r"</(?:pre|script|style|textarea)>", re.IGNORECASE)
_QUOTE_MARKS = re.compile(r"\n[ >]+")
_QUOTE_BEGINS = re.compile(r"\n {0,3}>")
_COMMENT_END = re.compile(r"--!?>")
_AUTOLINK = re.compile(
    r"<(?:[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+)>", re.ASCII
)
_ATTRIBUTE = r"[A-Za-z_:][A-Za-z0-9_.:-]*+(?:WS*+=WS*+(?:[^\s\"'=<>`]++|'[^']*+'|\"[^\"]*+\"))?"
_TAG_PATTERN = rf"<(/?)([A-Za-z][A-Za-z0-9-]*+)((?:WS++{_ATTRIBUTE})*+WS*+)/?>"
_TAG = re.compile(_TAG_PATTERN.replace("WS", r"\s"))
_QUOTED_TAG = re.compile(_TAG_PATTERN.replace("WS", r"(?:[^\S\n]|\n[ \t>]*+)"))
# As a browser reads it where GitHub hands it raw HTML.
_RAW_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*+)((?:=\s*+(?:\"[^\"]*+\"|'[^']*+')|=(?!\s*+[\"'])|[^>=])*+)>")
_HIDING = re.compile(
    r"(?:^|[\s\"'/])hidden(?:[\s=/]|$)|aria-hidden|display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|font(?:-size)?\s*:\s*[^;]*?\b0|opacity\s*:\s*0|(?:text-indent|left|top|margin[a-z-]*)\s*:\s*-"
    r"|(?:height|width|scale)\s*:\s*0|clip|position\s*:\s*(?:absolute|fixed)|color\s*:|/\*|\\",
    re.IGNORECASE,
)
_OPENS_HIDDEN = re.compile(
    rf"<(?:{'|'.join(sorted(_HIDDEN_ELEMENTS))})\b|<[A-Za-z][^<]*?(?:hidden|display|visib|font|opaci|style|=\s*[\"'])",
    re.IGNORECASE,
)
_HARMLESS_ATTRIBUTES = re.compile(
    r"(?:\s*(?:width|height|align|valign|open|border|start|rowspan|colspan|type|checked|disabled)"
    r"(?:\s*=\s*(?:[\w%.]{1,12}|\"[\w%.]{0,12}\"|'[\w%.]{0,12}'))?)*+\s*/?",
    re.IGNORECASE,
)
_ADDRESS_ATTRIBUTE = re.compile(
    r"(?:^|\s)(?:href|src)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'=<>`]+))", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,9}|#[xX][0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{1,31});?")

_DEFINITION = re.compile(
    r"\[(?!\^)((?:[^\[\]\\]|\\.){1,999})\]:[ \t]*+(?:\n[ \t>]*+)?(<(?:[^<>\n\\]|\\.)*+>|[^\s<][^\s]*+)"
    r"(?:(?:[ \t]++(?:\n[ \t>]*+)?|\n[ \t>]*+)"
    r"(\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\))[ \t]*+(?=\n|\Z))?",
    re.DOTALL,
)
_FOOTNOTE = re.compile(r"\[\^([^\[\]\s]+)\]:")
_SHORT_LABEL = re.compile(r"[\w.-]{1,20}")
_TITLE = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|\((?:[^()\\]|\\.)*+\)", re.DOTALL)
_ADDRESS_PIECE = re.compile(r"[()]|(?:[^\s()\\]|\\\S|\\(?=\s))++")
_GAP = re.compile(r"[ \t]*+(?:\n[ \t>]*+)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SCHEMES = ("http:", "https:", "mailto:")

_DELIMITER = re.compile(
    r"^[ \t>]*+\|?[ \t]*+:?-+:?[ \t]*+(?:\|[ \t]*+:?-+:?[ \t]*+)*+\|?[ \t]*+$", re.MULTILINE
)
_CELL_END = re.compile(r"(?:\\.|[^|\\\n])*+\|")
_FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]*+(?:\n[^$\n]+)*+\$")
_HIDING_COMMAND = re.compile(
    r"\\(?:[hv]?phantom|smash|(?:text)?color|f?colorbox|(?:math)?[clr]lap|tiny|style|class|cssId|unicode|def|let"
    r"|(?:re)?newcommand|require|href|tooltip|mmlToken|hskip|kern|mskip|mkern|rule|raise|lower|moveleft)"
    r"(?![a-z])|(?<!\\)%"
)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair of brackets in `out` that is no inline link: perhaps a reference."""

    opened: int
    closed: int
    is_image: bool
    label: str


@dataclass(slots=True)
class _Note:
    """The pieces of `out` that belong to one footnote."""

    label: str
    begin: int
    end: int


def read_once(text: str, *, trusts_code: bool = True) -> tuple[str, Counter[Kind]]:
    """The text without what its markup hides. What is left may hide something again: read until nothing goes.

    With `trusts_code` False nothing is taken for code.
    """
    reading = _Reading(text, is_sure=trusts_code)
    return reading.result(), reading.removed


class _Reading:
    """A cursor that goes once over the text, from line to line and within them from mark to mark."""

    def __init__(self, text: str, *, is_sure: bool) -> None:
        self.text, self.size, self.at = text, len(text), 0
        self.out: list[str] = []
        self.removed: Counter[Kind] = Counter()
        self.is_sure = is_sure  # False: from here on nothing is taken for code
        self.spans_are_sure = True  # the same for code within lines, until the paragraph ends
        self.lists: list[int] = []  # columns where the contents of the open list items begin
        self.lists_in_doubt = False
        self.after_blank, self.in_indented = True, False
        self.zone = ""  # raw HTML until: "line", "blank", "end tag"
        self.is_quoted = False
        self.columns = 0  # of the table we are in
        self.is_one_line = False  # a heading or a row: nothing in it goes on in the next line
        self.delimiters = {found.start() for found in _DELIMITER.finditer(text)}
        self.brackets: list[tuple[int, bool, int]] = []
        self.pairs: list[_Pair] = []
        self.definitions: dict[str, tuple[str, bool]] = {}
        self.notes: list[_Note] = []
        self.noted: set[str] = set()  # labels of footnotes that the text refers to
        self.paragraph_end = self.raw_end = -1
        self.runs: dict[int, list[int]] = {}

    def result(self) -> str:
        while self.at < self.size:
            self._line()
        self._end_note()
        self._resolve_references()
        self._settle_notes()
        return "".join(self.out)

    # -- lines ---------------------------------------------------------------------------------------

    def _line(self) -> None:
        if not self.zone and self._plain_line():
            return
        begin, end = self.at, self._line_end(self.at)
        if not self.text[begin:end].strip(" \t"):
            self._blank_line(begin, end)
            return
        prefix_match = _PREFIX.match(self.text, begin, end)
        content = prefix_match.end() if prefix_match else begin
        prefix = self.text[begin:content]
        self.is_quoted = ">" in prefix
        starts_block = prefix.strip(" ") != "" or self._interrupts(content, end)
        self._follow_lists(prefix, starts_block=starts_block)
        if content == end:
            self.lists_in_doubt = True  # an item without text, or what underlines a heading, or a rule
        if self.notes and self.notes[-1].end < 0 and self.after_blank and len(prefix) < 4:
            self._end_note()
        if not (self._indented_code(prefix, begin, end) or self._fenced_code(prefix, content, end)):
            self._text_line(begin, content, end)
        self.after_blank = False

    def _plain_line(self) -> bool:
        """Most lines are words: nothing in them, and nothing that they could begin."""
        plain = _WORDS.match(self.text, self.at)
        if plain is None or plain.end() in self.delimiters:
            return False
        if self.after_blank:
            self._end_note()
            self.lists, self.lists_in_doubt = [], False
        elif self.lists:
            self.lists_in_doubt = True
        self._emit(plain[0])
        self.at = plain.end()
        self.after_blank = self.in_indented = self.is_quoted = self.is_one_line = False
        return True

    def _blank_line(self, begin: int, end: int) -> None:
        self._emit(self.text[begin : end + 1])
        self.at = end + 1
        self.after_blank, self.spans_are_sure, self.columns = True, True, 0
        self.brackets.clear()
        if self.zone not in ("end tag", "all"):
            self.zone = ""

    def _text_line(self, begin: int, content: int, end: int) -> None:
        """A line that is neither blank nor code: blocks that it may begin, then what stands in it."""
        self.in_indented = False
        self._emit(self.text[begin:content])
        self.at = content
        if not self.zone and self._definition(content):
            return
        opened = not self.zone and self._zone_at(content, end)
        if opened:
            self.zone = opened
        if not self.columns and end + 1 in self.delimiters:
            self._begin_table(content, end)
        row_end, row = self._row_end(content, end), len(self.out)
        self.is_one_line = bool(self.columns) or _HEADING.match(self.text, content, end) is not None
        self._inline(row_end, is_first=bool(opened))
        if row_end < end and self.at != row_end:  # something led over the border of a cell
            self._cut_out(row)
            self.at = self._line_end(self.at)
        self._finish_line(end)

    def _interrupts(self, content: int, end: int) -> bool:
        """Whether a block surely begins here even below a paragraph."""
        if _HEADING.match(self.text, content, end) or _FENCE.match(self.text, content, end):
            return True
        tag = _BLOCK_TAG.match(self.text, content, end)
        is_block = tag is not None and tag[1].lower() in _BLOCKS
        return is_block or self._zone_at(content, end) in ("line", "end tag")

    def _zone_at(self, content: int, end: int) -> str:
        """Until when raw HTML lasts that begins here; empty where these are marks within a text."""
        if not self.text.startswith("<", content):
            return ""
        if self.text[content + 1 : content + 2] in ("!", "?"):
            # A comment, as all of these, ends its block with its own line; not each `<!` is one.
            is_one = self.text.startswith(("<!--", "<?", "<![CDATA["), content)
            return "line" if is_one or self.text[content + 2 : content + 3].isalpha() else ""
        tag = _BLOCK_TAG.match(self.text, content, end)
        name = tag[1].lower() if tag else ""
        if name in _RAW_ELEMENTS and self.text[content + 1] != "/":
            return "end tag"
        whole = _TAG.match(self.text, content, end)
        is_alone = whole is not None and not self.text[whole.end() : end].strip()
        return "blank" if name in _BLOCKS or is_alone else ""

    def _begin_table(self, content: int, end: int) -> None:
        """The line above a delimiter row heads a table if it has as many cells."""
        delimiter = self.text[end + 1 : self._line_end(end + 1)]
        columns = _columns(delimiter)
        header = self.text[content:end].strip(" \t")
        cells = len(_CELL_END.findall(header.removeprefix("|") + ("" if header.endswith("|") else "|")))
        self.columns = columns if cells == columns and _is_row(header + delimiter) else 0

    def _finish_line(self, end: int) -> None:
        if self.at < end:  # cells that no column shows
            self._drop(Kind.CELL, self._judge_gone(self.at, end))
        if self.zone == "end tag" and _RAW_END.search(self.text, self._start_of_line(), self.at):
            self.zone = ""
        if self.zone == "line":
            self.zone = ""
        if self.at < self.size and self.text[self.at] == "\n":
            self._emit("\n")
            self.at += 1

    def _start_of_line(self) -> int:
        return self.text.rfind("\n", 0, self.at) + 1

    def _line_end(self, at: int) -> int:
        found = self.text.find("\n", at)
        return self.size if found < 0 else found

    def _row_end(self, content: int, end: int) -> int:
        """Where the last cell of this row ends that its table has a column for."""
        if not self.columns or self.zone:
            return end
        at = content + self.text.startswith("|", content)
        for _ in range(self.columns):
            cell = _CELL_END.match(self.text, at, end)
            if cell is None:
                return end
            at = cell.end()
        return at if self.text[at:end].strip(" \t") else end

    def _follow_lists(self, prefix: str, *, starts_block: bool) -> None:
        """Keep the open list items up to date with one more line, or note that we do not know them."""
        if ">" in prefix or "\t" in prefix:
            # A quote at the left margin stands in no list, and what is in it ends with it.
            self.lists_in_doubt |= bool(self.lists) or "\t" in prefix or not _AT_MARGIN.match(prefix)
            self.lists = []
            return
        indent, has_left = len(prefix) - len(prefix.lstrip(" ")), self.after_blank
        while self.lists and indent < self.lists[-1]:
            if not (self.after_blank or starts_block):
                self.lists_in_doubt = True  # text that goes on below a paragraph of the item
                break
            self.lists.pop()
            has_left = True
        if self.after_blank and not self.lists and indent == 0:
            self.lists_in_doubt = False
        for marker in _MARKER.finditer(prefix):
            base = self.lists[-1] if self.lists else 0
            can_begin = has_left or marker[1] in ("-", "+", "*", "1.", "1)")
            if marker.start() - base > 3 or not 1 <= len(marker[2]) <= 4 or not can_begin:
                self.lists_in_doubt = True
            self.lists.append(marker.end())

    # -- code ----------------------------------------------------------------------------------------

    def _indented_code(self, prefix: str, begin: int, end: int) -> bool:
        """Take a line that is surely code by its four spaces."""
        is_code = (
            self.is_sure
            and not (self.zone or self.lists or self.lists_in_doubt or self._in_note())
            and self.text.startswith("    ", begin)
            and (self.after_blank or self.in_indented)
        )
        if is_code:
            self._emit(self.text[begin : end + 1])
            self.at = end + 1
        self.in_indented = is_code
        return is_code

    def _fenced_code(self, prefix: str, content: int, end: int) -> bool:
        """Take a whole fenced block, if this line surely begins one; else be unsure from here on."""
        fence = _FENCE.match(self.text, content, end)
        if fence is None:
            return False
        mark, info = fence[1] or fence[3], fence[2] or fence[4] or ""
        if self.zone:  # code, if the block of HTML has ended with its list or quote
            self.is_sure = False
            self._emit(prefix + mark)
            self._drop(Kind.CODE_NAME, self.size if "<" in info else end)
            self._finish_line(end)
            return True
        place = self._place_of_fence(prefix) if self.is_sure else None
        if place is None:
            self.is_sure, self.at = False, min(end + 1, self.size)
            self._emit(prefix + mark + self._shown_info(info) + self.text[end : self.at])
            return True
        depth, column = place
        if depth < 0:
            return False
        self.brackets.clear()
        self.columns = 0
        self._take_block(prefix + mark, info, self._end_of_block(end, mark, depth, column), end)
        return True

    def _place_of_fence(self, prefix: str) -> tuple[int, int] | None:
        """(quotes around it, column of the list item around it); depth -1: surely none; None: in doubt."""
        if "\t" in prefix:
            return None
        if _QUOTE.fullmatch(prefix):
            return prefix.count(">"), 0
        if ">" in prefix:
            return None
        if not prefix:
            self.lists, self.lists_in_doubt = [], False
        if self.lists_in_doubt:
            return None
        column = self.lists[-1] if self.lists else 0
        if len(prefix) - column > 3:
            return None if self.lists else (-1, 0)
        return 0, column

    def _end_of_block(self, opened_end: int, mark: str, depth: int, column: int) -> int:
        """Where the line after the block begins."""
        closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}+[ \t]*+(?=\n|\Z)")
        inside = re.compile(rf"(?: {{0,3}}> ?){{{depth}}}" if depth else rf" {{{column}}}")
        at = opened_end + 1
        while at < self.size:
            end = self._line_end(at)
            within = inside.match(self.text, at, end)
            is_blank = not depth and not self.text[at:end].strip(" \t")
            if within is None and not is_blank:
                # A tab could have been as good as spaces.
                self.is_sure = self.is_sure and "\t" not in self.text[at : at + column + 1]
                return at
            if within is not None and closing.match(self.text, within.end()):
                return end + 1
            if depth and within is not None and self.text.startswith("\t", within.end()):
                self.is_sure = False
                return at
            at = end + 1
        return self.size

    def _take_block(self, opening: str, info: str, until: int, opened_end: int) -> None:
        self.at = until
        if info.strip(" \t").split(" ")[0].lower() in _DRAWN or "&" in info or "\\" in info:
            self.removed[Kind.DRAWING] += 1
            return
        self._emit(opening + self._shown_info(info) + self.text[opened_end:until])

    def _shown_info(self, info: str) -> str:
        """What is behind the opening of a fence colours the code, and is not shown."""
        language = info.strip(" \t")
        if not language or _LANGUAGE.fullmatch(language):
            return info
        self.removed[Kind.CODE_NAME] += 1
        first = language.split()[0] if language.split() else ""
        return first if _LANGUAGE.fullmatch(first) else ""

    def _code_span(self) -> None:
        """Backticks: the code up to their partners, or only themselves."""
        begin = self.at
        run = _RUNS.match(self.text, begin)
        after = run.end() if run else begin + 1
        self.at = after
        if self._knows_code():
            closed = self._partner(after - begin, after)
            if closed >= 0:
                code = self.text[after:closed]
                if self._is_surely_code(code):
                    self.at = closed + after - begin
                else:
                    self.spans_are_sure = False
        self._emit(self.text[begin : self.at])

    def _knows_code(self) -> bool:
        return self.is_sure and self.spans_are_sure and not self.zone

    def _partner(self, length: int, after: int) -> int:
        """Where the next run of so many backticks begins in this paragraph; -1 if there is none."""
        self._know_paragraph(after)
        places = self.runs.get(length, [])
        index = bisect_left(places, after)
        return places[index] if index < len(places) else -1

    def _know_paragraph(self, at: int) -> None:
        """Index the backticks of the paragraph once, so that unpaired ones cost no search each."""
        if at <= self.paragraph_end:
            return
        blank = _BLANK.search(self.text, max(at - 1, 0))
        self.paragraph_end = blank.start() if blank else self.size
        self.runs = {}
        for run in _RUNS.finditer(self.text, at, self.paragraph_end):
            self.runs.setdefault(len(run[0]), []).append(run.start())

    def _is_surely_code(self, code: str) -> bool:
        if "|" in code and self.delimiters:
            return False  # a table's cells are cut before anything else
        if self.is_one_line and "\n" in code:
            return False  # and so are its rows, and a heading
        return all(_PLAIN_LINE.match(line) for line in code.split("\n")[1:])

    # -- within lines --------------------------------------------------------------------------------

    def _inline(self, end: int, *, is_first: bool) -> None:
        """Go to `end`, or to the end of the line that something longer has led to."""
        first = self.at if is_first else -1
        while True:
            while self.at < end:
                found = _SPECIAL.search(self.text, self.at, end)
                place = found.start() if found else end
                if place > self.at:
                    self._emit(self.text[self.at : place])
                    self.at = place
                if found:
                    self._mark(found[0], is_first=place == first)
            if self.at == end or self.at >= self.size:
                return
            end = self._line_end(self.at)

    def _mark(self, mark: str, *, is_first: bool) -> None:
        if mark == "<":
            self._angle(is_first=is_first)
        elif mark == "&":
            self._entity()
        elif mark == "\\":
            following = self.text[self.at + 1 : self.at + 2]
            is_escape = following in _PUNCTUATION and not (self.zone and following in "<&")
            self._keep(2 if is_escape else 1)
        elif mark == "`":
            self._code_span()
        elif mark == "[":
            self._open_bracket()
        elif mark == "]":
            self._close_bracket()
        else:
            self._formula()

    def _entity(self) -> None:
        entity = _ENTITY.match(self.text, self.at)
        if entity is None:
            self._keep(1)
            return
        means = html.unescape(entity[0])
        if means and not INVISIBLE.search(means):
            self._keep(len(entity[0]))
        else:
            self._drop(Kind.INVISIBLE, entity.end())

    def _formula(self) -> None:
        formula = _FORMULA.match(self.text, self.at)
        if (
            formula
            and "\n\n" not in formula[0]
            and _HIDING_COMMAND.search(formula[0])
            and _is_formula(formula)
        ):
            self._doubt_if_code(formula[0])
            self._drop(Kind.FORMULA, formula.end())
        else:
            self._keep(2 if self.text.startswith("$$", self.at) else 1)

    # -- angle brackets ------------------------------------------------------------------------------

    def _angle(self, *, is_first: bool) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if self.text.startswith("<!--", self.at):
            self._comment(is_first=is_first)
        elif following in ("!", "?") and following:
            self._declaration()
        elif not self.zone and (link := _AUTOLINK.match(self.text, self.at)):
            self._keep(len(link[0]))
        elif following.isalpha() or following == "/":
            self._tag()
        else:
            self._keep(1)

    def _comment(self, *, is_first: bool) -> None:
        begin, inside = self.at, self.at + 4
        if self.text.startswith((">", "->"), inside):
            end, mark = self.text.index(">", inside) + 1, "-->"
        else:
            found = _COMMENT_END.search(self.text, inside)
            end, mark = (found.end(), found[0]) if found else (self.size, "-->")
        if is_first:
            is_whole = self._stays_inside(begin, end)
        else:
            is_whole = not self.zone or end <= self._zone_end(begin)
        if not is_whole:
            end = self.size  # the block ends before the comment: then everything is in it
        elif not self.zone or not is_first or not self._is_at_margin(begin):
            end = self._judge_gone(begin, end)
        if mark == "--!>":  # a browser goes on here, Markdown takes all to the end of the block for HTML
            self.is_sure, self.zone = False, "all" if self.zone else "blank"
        self._drop(Kind.COMMENT, end)

    def _zone_end(self, at: int) -> int:
        if self.zone == "line":
            return self._line_end(at)
        if self.zone == "all":
            return self.size
        if self.zone == "blank":
            return self._text_block_end()
        if at > self.raw_end:
            found = _RAW_END.search(self.text, self.text.rfind("\n", 0, at) + 1)
            self.raw_end = self._line_end(found.end()) if found else self.size
        return self.raw_end

    def _stays_inside(self, begin: int, end: int) -> bool:
        """Whether a block of several lines stays in the quote or list item that it began in."""
        line = self.text.rfind("\n", 0, begin) + 1
        prefix = self.text[line:begin]
        more = self.text[begin:end].split("\n")[1:]
        if not more or not prefix:
            return True
        if ">" in prefix or "\t" in prefix:
            return False
        return all(not each.strip(" \t") or each.startswith(" " * len(prefix)) for each in more)

    def _is_at_margin(self, at: int) -> bool:
        """Whether nothing but a few spaces stand before it, so that it is no indented code."""
        before = self.text[self.text.rfind("\n", 0, at) + 1 : at]
        return len(before) < 4 and before.strip(" ") == ""

    def _judge_gone(self, begin: int, end: int) -> int:
        """What went may have been no unit after all: then what it opened and did not close is open."""
        gone = self.text[begin:end]
        self._doubt_if_code(gone)
        crosses = "\n" in gone and not self.zone and not self._is_surely_code(gone)
        return self.size if crosses or _OPENS_HIDDEN.search(gone, 2) else end

    def _doubt_if_code(self, gone: str) -> None:
        """Then its backticks count as well, and ours are in doubt."""
        if _FENCE_LIKE.search(gone) or _BLANK.search(gone):
            self.is_sure = False
        if "\n" in gone:
            self.lists_in_doubt = True

    def _declaration(self) -> None:
        """`<?…?>`, `<![CDATA[…]]>`, `<!X…>`. A browser ends each of them at the first `>`."""
        begin, is_plain = self.at, self.text[self.at + 2 : self.at + 3].isalpha()
        is_cdata = self.text.startswith("<![CDATA[", begin)
        close = "?>" if self.text[begin + 1] == "?" else "]]>" if is_cdata else ">"
        found = self.text.find(close, begin + 2) if close != ">" or is_plain or self.zone else -1
        if found < 0 and not self.zone:
            self._keep(2)
            return
        end = found + len(close) if found >= 0 else self.size
        browser_end = self.text.find(">", begin) + 1
        is_cut = self.is_quoted and "\n" in self.text[begin:end]
        if is_cut or "<" in self.text[browser_end:end] or self._zone_ends_before(end):
            end = self.size
        self._drop(Kind.COMMENT, self._judge_gone(begin, end))

    def _zone_ends_before(self, end: int) -> bool:
        return self.zone == "blank" and end > self._zone_end(self.at)

    def _tag(self) -> None:
        self._know_paragraph(self.at)
        grammar = _QUOTED_TAG if self.is_quoted else _TAG
        limit = self._zone_end(self.at) if self.zone else self._text_block_end()
        tag = grammar.match(self.text, self.at, limit)
        if tag is None and self.zone:
            tag = _RAW_TAG.match(self.text, self.at, limit)
            if tag is None or _OPENS_HIDDEN.search(tag[0], 1):  # it swallows what follows
                self._drop(Kind.TAG, self.size)
                return
            self._doubt_if_code(tag[0])
        if tag is None:
            self._keep(1)
            return
        if "\n" in tag[0] and not self.zone:
            if not self.is_quoted and _QUOTE_BEGINS.search(tag[0]):
                self._keep(1)
                return
            self._doubt_if_code(tag[0])
            if not self._is_surely_code(_QUOTE_MARKS.sub("\n", tag[0]) if self.is_quoted else tag[0]):
                self._drop(Kind.TAG, self.size)
                return
        self._judge_tag(tag)

    def _text_block_end(self) -> int:
        if self.at > self.paragraph_end:
            self._know_paragraph(self.at)
        return self.paragraph_end

    def _judge_tag(self, tag: re.Match[str]) -> None:
        name, attributes = tag[2].lower(), tag[3]
        if tag[1]:
            if name in _SHOWN_TAGS:
                self._replace(tag, f"</{tag[2]}>", attributes)
            else:
                self._drop(Kind.TAG, tag.end())
        elif name in _HIDDEN_ELEMENTS or (attributes.strip() and _HIDING.search(html.unescape(attributes))):
            self._hidden_element(tag, name)
        elif name in _SHOWN_TAGS:
            self._replace(tag, f"<{tag[2]}{_address_of(name, attributes)}>", attributes)
        else:
            self._drop(Kind.TAG, tag.end())

    def _replace(self, tag: re.Match[str], shown: str, attributes: str) -> None:
        rest = _ADDRESS_ATTRIBUTE.sub("", attributes) if shown.endswith('">') else attributes
        if not _HARMLESS_ATTRIBUTES.fullmatch(rest) and not _is_plain_alt(rest):
            self.removed[Kind.ATTRIBUTE] += 1
        self._emit(shown)
        self.at = tag.end()

    def _hidden_element(self, tag: re.Match[str], name: str) -> None:
        """Everything to its end tag where that is beyond doubt, else to the end of the text."""
        if name in _VOID:
            self._drop(Kind.ELEMENT, tag.end())
            return
        plain = re.compile(rf"[^<`~\\&\[]*+</{re.escape(name)}\s*+>", re.IGNORECASE)
        closed = plain.match(self.text, tag.end())
        if closed and "\n" in closed[0]:
            last = closed[0].rsplit("\n", 1)[1]
            if not re.match(r" {0,3}<", last) or self.lists or self.is_quoted:
                closed = None
        self._drop(Kind.ELEMENT, closed.end() if closed else self.size)

    # -- square brackets -----------------------------------------------------------------------------

    def _open_bracket(self) -> None:
        """Note where it stands; an exclamation mark before it makes an image of it."""
        is_image = bool(self.out) and self.out[-1].endswith("!") and not self.out[-1].endswith("\\!")
        self.brackets.append((len(self.out), is_image, self.at))
        if len(self.brackets) > _MOST_BRACKETS:
            opened, was_image, _ = self.brackets.pop(0)
            if was_image:  # nobody writes that: all of it may be the text of an image
                self._cut_out(opened)
                self._drop(Kind.IMAGE_TEXT, self.size)
                return
        self._keep(1)

    def _close_bracket(self) -> None:
        tail = self._tail(self.at + 1) if self.text.startswith("(", self.at + 1) else None
        if not self.brackets:
            if tail is not None and tail[2]:
                self._link(len(self.out), tail, is_image=True)
            else:
                self._keep(1)
            return
        opened, is_image, source = self.brackets.pop()
        if is_image and not self._knows_code() and self._has_backtick(opened):
            # This bracket may be code, and the text of the image go on.
            self._cut_out(opened)
            self._know_paragraph(self.at)
            self._drop(Kind.IMAGE_TEXT, max(self.paragraph_end, self.at + 1))
            return
        if tail is not None:
            self._link(opened, tail, is_image=is_image)
            return
        label = self.text[source + 1 : self.at] if self.at - source <= 1001 else ""
        if label.startswith("^"):
            self._note_reference(label[1:], opened)
        self.pairs.append(_Pair(opened, len(self.out), is_image, label))
        self._keep(1)

    def _has_backtick(self, begin: int) -> bool:
        return any("`" in self.out[at] for at in range(begin, len(self.out)))

    def _tail(self, at: int) -> tuple[int, str, bool] | None:
        """`(address "title")` behind a link's text: its end, the address, whether it has a title."""
        at = self._gap(at + 1)
        address_end = self._address_end(at)
        if address_end is None:
            return None
        address, after = self.text[at:address_end], self._gap(address_end)
        title = _TITLE.match(self.text, after) if after > address_end or not address else None
        if title:
            after = self._gap(title.end())
        if not self.text.startswith(")", after):
            return None
        return after + 1, address, title is not None

    def _gap(self, at: int) -> int:
        found = _GAP.match(self.text, at)
        return found.end() if found else at

    def _address_end(self, at: int) -> int | None:
        if self.text.startswith("<", at):
            found = re.compile(r"<(?:[^<>\n\\]|\\.)*+>").match(self.text, at)
            return found.end() if found else None
        depth, here = 0, at
        while piece := _ADDRESS_PIECE.match(self.text, here):
            if piece[0] == ")" and depth == 0:
                break
            depth += (piece[0] == "(") - (piece[0] == ")")
            if depth > _MOST_PARENTHESES:
                return None
            here = piece.end()
        return here if depth == 0 else None

    def _link(self, opened: int, tail: tuple[int, str, bool], *, is_image: bool) -> None:
        end, address, has_title = tail
        is_empty = not is_image and not any(self.out[at].strip() for at in range(opened + 1, len(self.out)))
        if has_title:
            self.removed[Kind.TITLE] += 1
        if is_empty and not is_image:
            self._cut_out(opened)
            self._drop(Kind.LINK, end)
            return
        if is_image:
            self._forget_alt(opened)
        shown = f"({address})"
        if not _is_plain_address(address):
            self.removed[Kind.ADDRESS] += 1
            shown = ""
        self._emit("]" + shown)
        self.at = end

    def _forget_alt(self, opened: int) -> None:
        alt = "".join(self.out[opened + 1 :])
        self._cut_out(opened + 1)
        if alt.strip().lower() not in _PLAIN_ALT:
            self.removed[Kind.IMAGE_TEXT] += 1

    def _cut_out(self, begin: int) -> None:
        del self.out[begin:]
        while self.pairs and self.pairs[-1].opened >= begin:
            self.pairs.pop()

    def _definition(self, content: int) -> bool:
        """A line that defines a link's address or begins a footnote; it shows nothing itself."""
        if not self.text.startswith("[", content):
            return False
        note = _FOOTNOTE.match(self.text, content)
        if note:
            self._end_note()
            self.notes.append(_Note(note[1], len(self.out), -1))
            self._emit(f"[^{_short(note[1])}]:")
            self.at = note.end()
            self.brackets.clear()
            self._inline(self._line_end(self.at), is_first=False)
            self._finish_line(self._line_end(self.at))
            return True
        found = _DEFINITION.match(self.text, content)
        if found is None or _BLANK.search(found[0]):
            return False
        rest = self._line_end(found.end())
        if self.text[found.end() : rest].strip(" \t"):
            return False
        self.definitions.setdefault(_key(found[1]), (found[2], found[3] is not None))
        self.removed[Kind.REFERENCE] += 1
        whole_end = self._judge_gone(content, found.end())
        self.at = min(rest + 1, self.size) if whole_end <= rest else self.size
        return True

    # -- what only the whole text tells -----------------------------------------------------------------

    def _in_note(self) -> bool:
        return bool(self.notes) and self.notes[-1].end < 0

    def _end_note(self) -> None:
        if self._in_note():
            self.notes[-1].end = len(self.out)

    def _note_reference(self, label: str, opened: int) -> None:
        if not self._in_note():
            self.noted.add(_key(label))
        if _short(label) != label:
            self.out[opened + 1 :] = [f"^{_short(label)}"]

    def _settle_notes(self) -> None:
        """A footnote that nothing refers to is not shown."""
        for note in self.notes:
            if _key(note.label) not in self.noted:
                self.out[note.begin : note.end] = [""] * (note.end - note.begin)
                self.removed[Kind.FOOTNOTE] += 1

    def _resolve_references(self) -> None:
        """Put the addresses where they are used; what defined them is gone, and so are the hidden labels."""
        if not self.definitions:
            return
        behind = {pair.opened: pair for pair in self.pairs}
        done: set[int] = set()
        for pair in sorted(self.pairs, key=lambda pair: pair.opened):
            if pair.opened in done:
                continue
            second = behind.get(pair.closed + 1)
            label = (second.label or pair.label) if second else pair.label
            if second and _key(label) not in self.definitions:
                second, label = None, pair.label
            if _key(label) in self.definitions:
                self._use(pair, second, _key(label))
                done.add(second.opened if second else -1)

    def _use(self, pair: _Pair, second: _Pair | None, key: str) -> None:
        address, has_title = self.definitions[key]
        if not has_title and self.removed[Kind.REFERENCE]:
            self.definitions[key] = (address, True)  # one that is used has hidden nothing: not counted
            self.removed[Kind.REFERENCE] -= 1
        if second:
            self.out[second.opened : second.closed + 1] = [""] * (second.closed + 1 - second.opened)
        if pair.is_image:
            alt = "".join(self.out[pair.opened + 1 : pair.closed])
            self.removed[Kind.IMAGE_TEXT] += alt.strip().lower() not in _PLAIN_ALT
            self.out[pair.opened + 1 : pair.closed] = [""] * (pair.closed - pair.opened - 1)
        self.out[pair.closed] = f"]({address})" if _is_plain_address(address) else "]"

    # -- moving --------------------------------------------------------------------------------------

    def _emit(self, piece: str) -> None:
        self.out.append(piece)

    def _keep(self, count: int) -> None:
        self.out.append(self.text[self.at : self.at + count])
        self.at += count

    def _drop(self, kind: Kind, end: int) -> None:
        self.removed[kind] += 1
        images = [opened for opened, is_image, _ in self.brackets if is_image]
        if images and self.text.find("]", self.at, end) >= 0:
            self._cut_out(images[0] + 1)  # perhaps the text of an image, whose end went
            self.brackets = [each for each in self.brackets if each[0] <= images[0]]
        self.at = end


def _key(label: str) -> str:
    return " ".join(label.split()).casefold()


def _short(label: str) -> str:
    return label if _SHORT_LABEL.fullmatch(label) else "note"


def _is_row(line: str) -> bool:
    return "|" in line or ":" in line


def _columns(delimiter: str) -> int:
    return len(re.findall(r"-+", delimiter))


def _is_formula(found: re.Match[str]) -> bool:
    """`$5 and 6%` is money; a formula hugs its dollar signs, or has two of them."""
    inner = found[0].strip("$")
    return found[0].startswith("$$") or (
        inner[:1].strip() != "" and inner[-1:].strip() != "" and "\\" in inner
    )


def _is_plain_address(address: str) -> bool:
    bare = address[1:-1] if address.startswith("<") else address
    if len(bare) > LONGEST_ADDRESS or any(character.isspace() for character in bare):
        return False
    scheme = _SCHEME.match(bare)
    return scheme is None or scheme[0].lower() in _SCHEMES


def _address_of(name: str, attributes: str) -> str:
    """` href="…"` or ` src="…"` for a link or image with a plain address."""
    found = _ADDRESS_ATTRIBUTE.search(attributes) if name in ("a", "img") else None
    address = next((group for group in found.groups() if group is not None), "") if found else ""
    if not address or '"' in address or "&" in address or not _is_plain_address(address):
        return ""
    return f' {"href" if name == "a" else "src"}="{address}"'


def _is_plain_alt(rest: str) -> bool:
    without = re.sub(r"\s+alt\s*=\s*\"(?:image|img|screenshot)?\"", "", rest, count=1, flags=re.IGNORECASE)
    return bool(_HARMLESS_ATTRIBUTES.fullmatch(without))
