"""The words and signs of a string condition, with their positions. Must not know what they mean together."""

from __future__ import annotations

import re
from dataclasses import dataclass

from adw_modules.routing.attributes import show
from adw_modules.routing.clauses import ConditionError

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>-?\d+(?:\.\d+)?(?![\w.]))
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<name>[A-Za-z_]\w*)
      | (?P<operator>==|!=|<=|>=|<(?!>)|>)
      | (?P<mark>[()\[\].,])""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
# What people write who know other languages, longest first, and what to write here.
_FOREIGN = {
    "&&": "write `and`",
    "||": "write `or`",
    "=~": "there are no regular expressions; use contains, starts_with or ends_with",
    "<>": "write `!=`",
    "=": "write `==`",
    "!": "write `not`",
    "'": "the text has no closing quote",
    '"': "the text has no closing quote",
    "-": "a name with a dash goes in brackets, as in provider_status['claude-cli']; there is no arithmetic",
    "+": "there is no arithmetic",
    "*": "there is no arithmetic",
    "/": "there is no arithmetic",
}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # number, text, name, operator, mark, end
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokens(text: str) -> list[Token]:
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unreadable(text, at)
        if found.lastgroup != "space":
            tokens.append(Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return [*tokens, Token("end", "", len(text))]


def _unreadable(text: str, at: int) -> ConditionError:
    for sign, advice in _FOREIGN.items():
        if text.startswith(sign, at):
            return ConditionError(f"`{sign}` is not understood: {advice}", at)
    return ConditionError(f"{show(text[at])} is not understood", at)


def found(token: Token) -> str:
    return "the end" if token.kind == "end" else f"`{token.text}`"
