"""Draft pull requests only: nothing in the product merges, approves or marks anything ready."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import httpx
import pytest
from world import MAINTAINER, REPO, TOKEN, WRITE, World

ROOT = Path(__file__).parents[2]
PRODUCT = [
    path
    for folder in ("coordinator", "adw_modules", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "demo" not in path.parts  # the server of the tests, which refuses just this
]
WORDS = re.compile(
    r"/merge\b|/merges\b|/reviews\b|/graphql\b|ready_for_review|enable.?auto.?merge|mergePullRequest"
    r"|addPullRequestReview|markPullRequestReady|/actions/runs/|pending_deployments|/protection\b"
    r"|\bgh\s+pr\s+(?:merge|review|ready)\b",
    re.IGNORECASE,
)
METHODS = frozenset(
    {"merge", "create_review", "enable_automerge", "mark_ready_for_review", "dismiss", "approve_run"}
)


def telling(tree: ast.Module) -> list[str]:
    """What the module says or calls that could merge or approve; docstrings are for people."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents
    ]
    calls = [
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
    ]
    return [*filter(WORDS.search, texts), *calls]


def test_no_part_of_the_product_asks_github_to_merge_or_approve() -> None:
    found = {str(path.relative_to(ROOT)): telling(ast.parse(path.read_text())) for path in PRODUCT}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    ['client.put(f"/repos/{r}/pulls/{n}/merge")', "pull.merge()", 'post("/graphql", json=q)'],
)
def test_the_search_would_find_it(code: str) -> None:
    assert telling(ast.parse(code))


def test_only_drafts_are_opened_and_the_default_branch_stays_where_it_is(world: World) -> None:
    main = world.folder / "github" / f"{REPO}.git" / "refs" / "heads" / "main"
    before = main.read_text()
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")

    assert [pull.draft for pull in world.server.pulls(REPO)] == [True]
    assert main.read_text() == before


FORBIDDEN = [
    ("PUT", "/repos/octo/hello/pulls/1/merge"),
    ("POST", "/repos/octo/hello/pulls/1/reviews"),
    ("POST", "/repos/octo/hello/merges"),
    ("POST", "/graphql"),
    ("POST", "/repos/octo/hello/actions/runs/1/approve"),
    ("PUT", "/repos/octo/hello/branches/main/protection"),
]


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_the_server_of_the_tests_reports_such_a_request(world: World, method: str, path: str) -> None:
    """Each world ends with the question whether there was one, so that any scenario would fail."""
    answer = httpx.request(
        method, f"{world.server.api_url}{path}", headers={"Authorization": f"Bearer {TOKEN}"}, json={}
    )
    assert answer.status_code == 405
    assert len(world.server.forbidden_requests) == 1
    world.server.clear_requests()


def test_labels_of_a_maintainer_do_not_make_it_more_than_a_draft(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.server.add_label(REPO, number, "approve-changes", actor=MAINTAINER)
    world.until_polls(3)
    assert [pull.draft for pull in world.server.pulls(REPO)] == [True]
