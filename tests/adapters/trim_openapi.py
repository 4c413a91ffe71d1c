"""Cut GitHub's OpenAPI document down to the operations the demo server serves.

Run by hand when the package changes:

    npm pack @octokit/openapi@23.0.2 && tar xzf octokit-openapi-23.0.2.tgz
    python tests/adapters/trim_openapi.py package > tests/samples/github-openapi.json

What stays: the operations listed here with the status codes and schemas of their responses, and every
component those reach. What goes: request bodies, parameters, examples and prose; only responses are checked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OPERATIONS = {
    "/app": ["get"],
    "/app/installations/{installation_id}": ["get"],
    "/app/installations/{installation_id}/access_tokens": ["post"],
    "/user": ["get"],
    "/users/{username}": ["get"],
    "/rate_limit": ["get"],
    "/repos/{owner}/{repo}": ["get"],
    "/repos/{owner}/{repo}/installation": ["get"],
    "/repos/{owner}/{repo}/collaborators/{username}/permission": ["get"],
    "/repos/{owner}/{repo}/git/ref/{ref}": ["get"],
    "/repos/{owner}/{repo}/branches/{branch}": ["get"],
    "/repos/{owner}/{repo}/issues": ["get", "post"],
    "/repos/{owner}/{repo}/issues/{issue_number}": ["get", "patch"],
    "/repos/{owner}/{repo}/issues/{issue_number}/events": ["get"],
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ["get", "post"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ["get", "patch", "delete"],
    "/repos/{owner}/{repo}/issues/{issue_number}/labels": ["get", "post"],
    "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}": ["delete"],
    "/repos/{owner}/{repo}/labels": ["get", "post"],
    "/repos/{owner}/{repo}/labels/{name}": ["get"],
    "/repos/{owner}/{repo}/pulls": ["get", "post"],
    "/repos/{owner}/{repo}/pulls/{pull_number}": ["get", "patch"],
}
_PROSE = ("description", "example", "examples", "externalDocs", "summary", "x-github", "operationId", "tags")


def trim(document: dict[str, Any], package: dict[str, Any], licence: str) -> dict[str, Any]:
    """The small document."""
    paths = {
        path: {verb: {"responses": _bare(document["paths"][path][verb]["responses"])} for verb in verbs}
        for path, verbs in OPERATIONS.items()
    }
    components: dict[str, dict[str, Any]] = {}
    _collect(paths, document, components)
    source = (
        f"{package['name']}@{package['version']}, generated/api.github.com.json, trimmed by trim_openapi.py"
    )
    return {
        "openapi": document["openapi"],
        "x-source": {"package": source, "license": package["license"], "license_text": licence},
        "info": {"title": "GitHub REST API, trimmed", "version": document["info"]["version"]},
        "paths": paths,
        "components": components,
    }


def _bare(node: Any, *, is_names: bool = False) -> Any:
    """Without prose. Under `properties` the keys are names, so that a property called description stays."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: value if key in ("enum", "required") else _bare(value, is_names=key in ("properties", "schemas"))
        for key, value in node.items()
        if is_names or key not in _PROSE
    }


def _collect(node: Any, document: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect(item, document, found)
    elif isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            _take(reference, document, found)
        for value in node.values():
            _collect(value, document, found)


def _take(reference: str, document: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    _hash, _components, kind, name = reference.split("/")
    if name in found.setdefault(kind, {}):
        return
    found[kind][name] = _bare(document["components"][kind][name])
    _collect(found[kind][name], document, found)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    full = json.loads((root / "generated" / "api.github.com.json").read_text())
    about = json.loads((root / "package.json").read_text())
    small = trim(full, about, (root / "LICENSE").read_text())
    json.dump(small, sys.stdout, separators=(",", ":"), sort_keys=True)
    sys.stdout.write("\n")
