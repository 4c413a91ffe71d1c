"""Where a key stands in the text: the line for a sentence.

Needed because tomllib tells lines of syntax errors only. Reads valid TOML, and judges nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]  # ("routing", "rules", 0, "model"): where a value stands in the document


class TomlLines:
    """Finds the line of a table or key in a valid TOML text.

    Paths are as pydantic gives them: table names and keys, and the index in an array (also of tables).
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        self._at = 0
        self._table: KeyPath = ()
        self._last: dict[KeyPath, int] = {}  # arrays of tables: the index of the entry being written
        self._lines: dict[KeyPath, int] = {}
        self._scan()

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest table around it that the text has; from 1."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def _scan(self) -> None:
        while self._skip_blank():
            if self._text[self._at] == "[":
                self._header()
            else:
                self._pair(self._table)

    def _mark(self, path: KeyPath, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._starts, at))

    def _skip(self, pattern: str) -> str:
        found = re.compile(pattern).match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found[0] if found else ""

    def _skip_blank(self) -> bool:
        """Go over white space, line ends and comments; False at the end of the text."""
        self._skip(r"(?:[ \t\n]+|#[^\n]*)*")
        return self._at < len(self._text)

    def _header(self) -> None:
        start = self._at
        brackets = 2 if self._text.startswith("[[", start) else 1
        self._at += brackets
        keys = self._dotted_key()
        self._at += brackets
        self._table = self._enter(keys, start, is_array=brackets == 2)

    def _enter(self, keys: list[str], start: int, *, is_array: bool) -> KeyPath:
        path: KeyPath = ()
        for position, key in enumerate(keys, start=1):
            path = (*path, key)
            self._mark(path, start)
            if is_array and position == len(keys):
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                path = (*path, self._last[path])
                self._mark(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = table
        for key in self._dotted_key():
            path = (*path, key)
            self._mark(path, start)
        self._at += len("=")
        self._skip(r"[ \t]*")
        self._value(path)

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._skip(r"[ \t]*")
            raw = self._string() if self._text[self._at] in "\"'" else self._skip(r"[A-Za-z0-9_-]+")
            keys.append(tomllib.loads(f"key = {raw}")["key"] if raw[:1] in "\"'" else raw)
            self._skip(r"[ \t]*")
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(r"[^,\]}\n#]+")

    def _string(self) -> str:
        for quotes in ('"""', "'''"):
            if self._text.startswith(quotes, self._at):
                body = r"(?:\\[\s\S]|[^\\])*?" if quotes == '"""' else r"[\s\S]*?"
                return self._skip(f"{quotes}{body}{quotes[0]}{{3,5}}")
        return self._skip(r'"(?:\\.|[^"\\\n])*"' if self._text[self._at] == '"' else r"'[^'\n]*'")

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._has_next("]"):
            self._mark((*path, index), self._at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._has_next("}"):
            self._pair(path)

    def _has_next(self, closing: str) -> bool:
        """Go to the next item of an array or inline table; at its end go over the bracket."""
        while self._skip_blank() and self._text[self._at] == ",":
            self._at += 1
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False
