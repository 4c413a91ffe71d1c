"""GitHub's published contract as a question: does this answer fit what GitHub says it answers?

Reads `tests/samples/github-openapi.json` (see its `x-source`). Knows nothing of the server under test.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

_DOCUMENT = Path(__file__).parent.parent / "samples" / "github-openapi.json"
_URN = "urn:github"
# GitHub gives these to any operation, whether its description lists them or not.
_EVERYWHERE = (307, 401, 403, 404, 405, 410, 422, 429)


class Contract:
    """The trimmed document, ready to be asked."""

    def __init__(self, document: dict[str, Any]) -> None:
        # Imported here: it may build the grammars of all formats, seconds for every process of the suite.
        from referencing import Registry, Resource
        from referencing.jsonschema import DRAFT4

        _mend(document)
        self._document = document
        self._registry = Registry().with_resource(_URN, Resource(contents=document, specification=DRAFT4))
        self._templates = [(re.compile(_pattern(path)), path) for path in sorted(document["paths"])]

    def operation(self, method: str, path: str) -> tuple[str, str] | None:
        """(path template, verb) of a request, or None when the contract does not have it."""
        named = re.sub(r"^/repositories/\d+", "/repos/owner/name", path)
        for pattern, template in self._templates:
            if pattern.fullmatch(named) and method.lower() in self._document["paths"][template]:
                return template, method.lower()
        return None

    def problems(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """Everything in which an answer differs from the contract; empty when it fits."""
        operation = self.operation(method, path)
        if operation is None:
            return [f"{method} {path} is not in the contract"]
        pointer = self._schema(*operation, status)
        if pointer is None:
            return (
                []
                if body is None and self._is_listed(*operation, status)
                else self._error_problems(status, body)
            )
        return self._errors(pointer, body) + (self._error_problems(status, body) if status >= 400 else [])

    def _is_listed(self, template: str, verb: str, status: int) -> bool:
        return str(status) in self._document["paths"][template][verb]["responses"]

    def _schema(self, template: str, verb: str, status: int) -> str | None:
        """JSON pointer of the schema for one status; None when the contract has none for it."""
        response = self._document["paths"][template][verb]["responses"].get(str(status))
        base = f"/paths/{template.replace('/', '~1')}/{verb}/responses/{status}"
        if response is not None and "$ref" in response:
            base = response["$ref"].removeprefix("#")
            response = self._document["components"]["responses"][base.rsplit("/", 1)[1]]
        if response is None or "application/json" not in response.get("content", {}):
            return None
        return f"{base}/content/application~1json/schema"

    def _error_problems(self, status: int, body: Any) -> list[str]:
        if status not in _EVERYWHERE and status < 400:
            return [f"status {status} is not in the contract of this operation"]
        missing = [name for name in ("message", "documentation_url") if name not in (body or {})]
        return [f"error without {name}" for name in missing] + self._errors(
            "/components/schemas/basic-error", body
        )

    def _errors(self, pointer: str, body: Any) -> list[str]:
        from openapi_schema_validator import OAS30ReadValidator

        validator = OAS30ReadValidator({"$ref": f"{_URN}#{pointer}"}, registry=self._registry)
        return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(body)]


def _pattern(path: str) -> str:
    """A path template as a regular expression. GitHub's {ref} and {branch} may hold slashes."""
    return re.sub(
        r"\\\{(\w+)\\\}", lambda name: ".+" if name[1] in ("ref", "branch") else "[^/]+", re.escape(path)
    )


def _mend(node: Any) -> None:
    """Where null is allowed beside an enum or alternatives, say so inside: the validator looks only there."""
    if isinstance(node, list):
        for item in node:
            _mend(item)
    elif isinstance(node, dict):
        if node.get("nullable") and isinstance(node.get("enum"), list) and None not in node["enum"]:
            node["enum"].append(None)
        for alternatives in ("anyOf", "oneOf"):
            if node.get("nullable") and alternatives in node:
                node[alternatives].append({"nullable": True, "enum": [None]})
        for value in node.values():
            _mend(value)


@cache
def contract() -> Contract:
    """The committed document, read once."""
    return Contract(json.loads(_DOCUMENT.read_text()))
