"""The little of GraphQL that GitHub's clients need to ask about one issue: a reader of queries, and its data.

Reads queries only: a mutation is answered like any other forbidden request, in `routes.py`. A field that the
data does not have is an error, as at GitHub, so that a slip of the pen in a query does not pass here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coordinator.demo.forge import Event, Issue, Repository, Role, TextEdit, User
from coordinator.demo.render import moment

Json = dict[str, Any]
_WORD = re.compile(r"\s*(\.\.\.|[A-Za-z_]\w*|\$\w+|-?\d+|\"[^\"]*\"|[{}()\[\]:!=,]|\Z)")


class QueryError(Exception):
    """GitHub's sentence about a query that it does not take."""


@dataclass(slots=True, kw_only=True)
class Field:
    """One selected field (under the name of its alias), or with `on` the fields that a type adds."""

    name: str
    alias: str = ""
    arguments: Json = field(default_factory=dict)
    fields: list[Field] = field(default_factory=list)
    on: bool = False


def is_query(text: str) -> bool:
    """Whether this only reads."""
    return text.lstrip().startswith(("query", "{"))


def answer(text: str, variables: Json, *, find: Repository | None, role: Role, number: int | None) -> Json:
    """The body of the answer: `data`, or `errors` as GitHub puts them."""
    try:
        wanted = _Reader(text, variables).query()
        data = {each.name: _repository(find, role, number, each) for each in wanted}
    except QueryError as error:
        return {"errors": [{"message": str(error)}]}
    except LookupError as missing:
        return {"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "message": str(missing)}]}
    return {"data": data}


def names_of(text: str, variables: Json) -> tuple[str, str, int | None]:
    """Owner, repository and issue that a query is about."""
    try:
        (asked,) = _Reader(text, variables).query()
    except (QueryError, ValueError):
        return "", "", None
    inner = next((each for each in asked.fields if each.name == "issue"), None)
    number = inner.arguments.get("number") if inner else None
    owner, name = asked.arguments.get("owner"), asked.arguments.get("name")
    return str(owner), str(name), number if isinstance(number, int) else None


def _repository(repository: Repository | None, role: Role, number: int | None, asked: Field) -> Json:
    if asked.name != "repository":
        raise QueryError(f"Field '{asked.name}' doesn't exist on type 'Query'")
    if repository is None or role < Role.READ:
        raise LookupError("Could not resolve to a Repository.")
    data: Json = {
        "__typename": "Repository",
        "databaseId": repository.id,
        "isPrivate": repository.private,
        "nameWithOwner": repository.full_name,
    }
    if any(each.name == "issue" for each in asked.fields):
        issue = repository.issues.get(number or 0)
        if issue is None or issue.deleted or issue.moved_to is not None or issue.pull is not None:
            raise LookupError(f"Could not resolve to an Issue with the number of {number}.")
        data["issue"] = _issue(issue)
    found: Json = _select(data, asked.fields)
    return found


def _issue(issue: Issue) -> Json:
    last = issue.edits[-1] if issue.edits else None
    # The first edit brings the text of the beginning into the list as well.
    kept = [TextEdit(at=issue.created_at, editor=issue.author), *issue.edits] if issue.edits else []
    renames = [event for event in issue.events if event.kind == "renamed"]
    labellings = [event for event in issue.events if event.kind in ("labeled", "unlabeled")]
    return {
        "__typename": "Issue",
        "number": issue.number,
        "title": issue.title,
        "body": issue.body or "",
        "createdAt": moment(issue.created_at),
        "lastEditedAt": moment(last.at) if last else None,
        "editor": _actor(last.editor) if last else None,
        "userContentEdits": _connection([_edit(each) for each in reversed(kept)]),
        "timelineItems": _connection([_event(each) for each in (*renames, *labellings)]),
    }


def _actor(user: User | None) -> Json | None:
    """GraphQL calls an app by its bare name; a deleted account is null."""
    if user is None:
        return None
    return {
        "__typename": user.kind,
        "login": user.login.removesuffix("[bot]"),
        "databaseId": user.id,
    }


def _edit(edit: TextEdit) -> Json:
    return {"__typename": "UserContentEdit", "editedAt": moment(edit.at), "editor": _actor(edit.editor)}


_KINDS = {
    "renamed": ("RenamedTitleEvent", "RENAMED_TITLE_EVENT"),
    "labeled": ("LabeledEvent", "LABELED_EVENT"),
    "unlabeled": ("UnlabeledEvent", "UNLABELED_EVENT"),
}


def _event(event: Event) -> Json:
    data: Json = {
        "__typename": _KINDS[event.kind][0],
        "item": _KINDS[event.kind][1],
        "createdAt": moment(event.created_at),
        "actor": _actor(event.actor),
    }
    if event.label is not None:
        data["label"] = {"__typename": "Label", "name": event.label.name}
    return data


@dataclass(frozen=True, slots=True)
class _Connection:
    items: list[Json]

    def page(self, arguments: Json) -> Json:
        wanted = arguments.get("itemTypes")
        items = [each for each in self.items if wanted is None or each.get("item") in wanted]
        first, last = arguments.get("first"), arguments.get("last")
        shown = items[:first] if first is not None else items[-last:] if last is not None else items
        return {
            "__typename": "Connection",
            "totalCount": len(items),
            "pageInfo": {"__typename": "PageInfo", "hasPreviousPage": last is not None and last < len(items)},
            "nodes": shown,
        }


def _connection(items: list[Json]) -> _Connection:
    return _Connection(items)


def _select(data: Any, wanted: list[Field]) -> Any:
    if isinstance(data, list):
        return [_select(each, wanted) for each in data]
    if not isinstance(data, dict):
        return data
    found: Json = {}
    for each in wanted:
        if each.on:
            if each.name == data["__typename"]:
                found |= _select(data, each.fields)
        elif each.name not in data:
            raise QueryError(f"Field '{each.name}' doesn't exist on type '{data['__typename']}'")
        else:
            value = data[each.name]
            value = value.page(each.arguments) if isinstance(value, _Connection) else value
            found[each.alias or each.name] = _select(value, each.fields)
    return found


class _Reader:
    """Reads one query: fields, arguments, inline fragments. Nothing else is in use."""

    def __init__(self, text: str, variables: Json) -> None:
        self._words = list(_words(text))
        self._at = 0
        self._variables = variables

    def query(self) -> list[Field]:
        while self._peek() != "{":  # the name of the query and the types of its variables
            self._next()
        return self._fields()

    def _fields(self) -> list[Field]:
        self._expect("{")
        found: list[Field] = []
        while self._peek() != "}":
            found.append(self._field())
        self._expect("}")
        return found

    def _field(self) -> Field:
        name = self._next()
        if name == "...":
            self._expect("on")
            return Field(name=self._next(), fields=self._fields(), on=True)
        alias = ""
        if self._peek() == ":":
            self._expect(":")
            alias, name = name, self._next()
        arguments = self._arguments() if self._peek() == "(" else {}
        inner = self._fields() if self._peek() == "{" else []
        return Field(name=name, alias=alias, arguments=arguments, fields=inner)

    def _arguments(self) -> Json:
        self._expect("(")
        found: Json = {}
        while self._peek() != ")":
            name = self._next()
            self._expect(":")
            found[name] = self._value()
        self._expect(")")
        return found

    def _value(self) -> Any:
        word = self._next()
        if word == "[":
            items = []
            while self._peek() != "]":
                items.append(self._value())
            self._expect("]")
            return items
        if word.startswith("$"):
            return self._variables.get(word[1:])
        return int(word) if word.lstrip("-").isdigit() else word.strip('"')

    def _peek(self) -> str:
        if self._at >= len(self._words):
            raise QueryError("Expected '}', actual: end of file")
        return self._words[self._at]

    def _next(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise QueryError(f"Expected '{wanted}', actual: '{found}'")


def _words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise QueryError(f"Unknown character at {at}")
        at = match.end()
        if match[1] and match[1] != ",":
            yield match[1]
        if not match[1]:
            return
