"""The string spelling, `condition = "…"`: a small grammar, compiled to closures.

    either     = both { "or" both }
    both       = single { "and" single }
    single     = "not" single | "(" either ")" | comparison
    comparison = operand [ operator operand ]
    operand    = literal | list | path
    path       = name { "." name | "[" text-or-index "]" }

No calls, no arithmetic, no regular expressions: a rule cannot do anything but look and compare.
Everything that can be known to be wrong is refused here, with its position; evaluation never raises.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from adw_modules.routing.attributes import nearest, show, spell, suggestion
from adw_modules.routing.clauses import Clause, ConditionError, clause
from adw_modules.routing.comparisons import Operand, compiled
from adw_modules.routing.meaning import OPERATORS, Constant, Either, Every, Flag, Meaning, Not
from adw_modules.routing.tokens import Token, found, tokens
from adw_modules.routing.vocabulary import ANYTHING, TASK_FIELDS, Kind, Path, attribute

LONGEST = 1000  # characters
DEEPEST = 20  # parentheses and `not`s around one comparison

_LITERALS: dict[str, object] = {"true": True, "false": False, "null": None}
_RESERVED = frozenset(
    {"and", "or", "not", *_LITERALS, *(word for word in OPERATORS if word.isalpha() or "_" in word)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """A piece that is true or false. `parts` are the pieces that `and` joins at its top."""

    meaning: Meaning
    start: int
    end: int
    parts: tuple[_Node, ...] = ()


def parse(text: str, *, names: Collection[str], only_known: bool = False) -> tuple[Clause, ...]:
    """The clauses of a string condition. Raises ConditionError with position and text, and nothing else."""
    try:
        node = _parsed(text, names, only_known)
    except ConditionError as error:
        raise error.within(text) from None
    return tuple(clause(text[part.start : part.end], part.meaning) for part in node.parts or (node,))


def _parsed(text: str, names: Collection[str], only_known: bool) -> _Node:
    if len(text) > LONGEST:
        raise ConditionError(
            f"a condition has at most {LONGEST} characters; split it into several rules", LONGEST
        )
    return _Parser(tokens(text), names, only_known).condition()


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, tokens: list[Token], names: Collection[str], only_known: bool) -> None:
        self._tokens = tokens
        self._names = names
        self._only_known = only_known
        self._at = 0
        self._depth = 0

    def condition(self) -> _Node:
        if self._now.kind == "end":
            raise ConditionError("the condition is empty", 0)
        node = self._either()
        if self._now.kind != "end":
            raise self._unexpected_after_comparison()
        return node

    @property
    def _now(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._now
        self._at += token.kind != "end"
        return token

    def _take_if(self, *texts: str) -> Token | None:
        is_text_literal = self._now.kind == "text"
        return self._take() if not is_text_literal and self._now.text in texts and self._now.text else None

    def _expect(self, text: str, what: str) -> Token:
        token = self._take_if(text)
        if token is None:
            raise ConditionError(f"expected `{text}` {what}, found {found(self._now)}", self._now.start)
        return token

    def _either(self) -> _Node:
        nodes = [self._both()]
        while self._take_if("or"):
            nodes.append(self._both())
        return nodes[0] if len(nodes) == 1 else _joined(nodes, Either)

    def _both(self) -> _Node:
        nodes = [self._single()]
        while self._take_if("and"):
            nodes.append(self._single())
        return nodes[0] if len(nodes) == 1 else _joined(nodes, Every)

    def _single(self) -> _Node:
        opening = self._take_if("not", "(")
        if opening is None:
            return self._comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConditionError(
                f"nested more than {DEEPEST} deep; split it into several rules", opening.start
            )
        node = self._negation(opening) if opening.text == "not" else self._group(opening)
        self._depth -= 1
        return node

    def _negation(self, opening: Token) -> _Node:
        inner = self._single()
        return _Node(meaning=Not(inner=inner.meaning), start=opening.start, end=inner.end)

    def _group(self, opening: Token) -> _Node:
        inner = self._either()
        end = self._expect(")", f"to close the one at character {opening.start + 1}").end
        return _Node(meaning=inner.meaning, start=opening.start, end=end, parts=inner.parts)

    def _comparison(self) -> _Node:
        left = self._operand()
        sign = self._take_if(*OPERATORS)
        if sign is None:
            return self._bare(left)
        right = self._operand()
        return _Node(meaning=compiled(left, sign, right), start=left.start, end=self._last_end)

    def _bare(self, operand: Operand) -> _Node:
        """A path or true/false on its own: holds only for a real `true`."""
        path, value = operand.path, operand.value
        if path is None and not isinstance(value, bool):
            raise ConditionError(f"{show(value)} on its own is no condition; compare it", operand.start)
        if path and operand.known.kind is not Kind.ANY:
            self._refuse_operator()
            raise ConditionError(f"{spell(path)} is not true or false; compare it", operand.start)
        meaning = Flag(path=path) if path else Constant(value=value is True)
        return _Node(meaning=meaning, start=operand.start, end=self._last_end)

    @property
    def _last_end(self) -> int:
        return self._tokens[self._at - 1].end

    def _refuse_operator(self) -> None:
        """After an operand, a stray word or sign was meant as an operator."""
        if self._now.kind != "end" and self._now.text not in {")", "and", "or"}:
            raise self._unexpected_after_comparison()

    def _unexpected_after_comparison(self) -> ConditionError:
        token, before = self._now, self._tokens[self._at - 1]
        if token.kind == "operator" or token.text in OPERATORS:
            return ConditionError("one comparison at a time; join two with `and`", token.start)
        if token.text == "not":
            return ConditionError(
                "write `not` before the whole comparison, as in not (labels contains 'x')", token.start
            )
        if token.text == "(" and before.kind == "name":
            return ConditionError(f"`{before.text}(`: conditions have no function calls", before.start)
        if token.kind == "name":
            known = [*OPERATORS, "and", "or"]
            return ConditionError(
                f'unknown operator "{token.text}"; {suggestion(token.text, known)}', token.start
            )
        return ConditionError(f"expected `and`, `or` or the end, found {found(token)}", token.start)

    def _operand(self) -> Operand:
        token = self._now
        if token.kind == "name" and token.text not in _RESERVED:
            return self._path()
        if token.text == "[" and token.kind == "mark":
            return self._list()
        return Operand(start=token.start, value=self._literal())

    def _literal(self) -> object:
        token = self._take()
        if token.kind == "number":
            return float(token.text) if "." in token.text else int(token.text)
        if token.kind == "text":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind == "name" and token.text in _LITERALS:
            return _LITERALS[token.text]
        raise ConditionError(f"expected a name or a value, found {found(token)}", token.start)

    def _list(self) -> Operand:
        start = self._take().start
        values: list[object] = []
        while not self._take_if("]"):
            if values:
                self._expect(",", "between list items")
            self._refuse_name_in_list()
            values.append(self._literal())
        return Operand(start=start, value=values)

    def _refuse_name_in_list(self) -> None:
        token = self._now
        if token.kind == "name" and token.text not in _RESERVED:
            raise ConditionError(
                f"a list holds values, not names; text needs quotes: '{token.text}'", token.start
            )

    def _path(self) -> Operand:
        token = self._take()
        if token.text not in self._names:
            raise self._unknown_name(token)
        keys: list[str | int] = [token.text]
        while opening := self._take_if(".", "["):
            at = self._now.start
            keys.append(self._name_after_dot() if opening.text == "." else self._key_in_brackets())
            self._refuse_part(tuple(keys), at)
        path = tuple(keys)
        return Operand(start=token.start, path=path, known=attribute(path) or ANYTHING)

    def _refuse_part(self, path: Path, at: int) -> None:
        """A step that leads nowhere: a field of a number, or one of the task that it does not have."""
        if attribute(path) is None:
            if self._now.text == "(" and self._now.kind == "mark":
                raise ConditionError(f"`{path[-1]}(`: conditions have no function calls", at)
            whole = path[:-1]
            what = (attribute(whole) or ANYTHING).kind
            raise ConditionError(f"{spell(whole)} is {what} and has no {_part(path[-1])}", at)
        if self._only_known and path[0] == "task" and len(path) == 2 and path[1] not in TASK_FIELDS:
            name = str(path[1])
            raise ConditionError(f'task has no "{name}"; {suggestion(name, TASK_FIELDS)}', at)

    def _unknown_name(self, token: Token) -> ConditionError:
        if self._now.text == "(" and self._now.kind == "mark":
            return ConditionError(f"`{token.text}(`: conditions have no function calls", token.start)
        known = [*self._names, *_LITERALS, "not"]
        meant = nearest(token.text, known)
        hint = f"did you mean {meant}?" if meant else f"text needs quotes: '{token.text}'"
        return ConditionError(f'unknown name "{token.text}"; {hint}', token.start)

    def _name_after_dot(self) -> str:
        token = self._take()
        if token.kind != "name":
            raise ConditionError(f"expected a name after the dot, found {found(token)}", token.start)
        return token.text

    def _key_in_brackets(self) -> str | int:
        token = self._now
        key = self._literal() if token.kind in {"text", "number"} else None
        if not isinstance(key, str) and not (isinstance(key, int) and key >= 0):
            raise ConditionError(f"brackets take a text or an index, found {found(token)}", token.start)
        self._expect("]", "after the key")
        return key


def _part(key: str | int) -> str:
    return f"item {key}" if isinstance(key, int) else f'part "{key}"'


def _joined(nodes: list[_Node], join: type[Every | Either]) -> _Node:
    """`and` keeps its parts, so that the one that fails can be named; `or` fails only as a whole."""
    parts = tuple(part for node in nodes for part in node.parts or (node,)) if join is Every else ()
    return _Node(
        meaning=join(parts=tuple(node.meaning for node in nodes)),
        start=nodes[0].start,
        end=nodes[-1].end,
        parts=parts,
    )
