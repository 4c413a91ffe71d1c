"""One labelled listing, read page by page with `If-None-Match`.

Owns what was read last time (`Pages`) and the rule for what may be asked conditionally. Decides nothing
about tasks. The URL never changes between polls: a changed query would never match an ETag, and
`since`/`updated_at` do not move when a label does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adw_modules.errors import GitHubUnavailable
from adw_modules.tasks.model import IssueSnapshot
from coordinator.github import answers
from coordinator.github.wire import MAX_PAGES, PER_PAGE, Answer, Wire, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page as last read. `foreign` are repositories its items named that are not the one asked for."""

    issues: tuple[IssueSnapshot, ...]
    foreign: frozenset[str]
    size: int  # items before any was dropped
    etag: str | None
    next_url: str | None
    key: str  # of the secret it was read with: another one's ETag never fits

    @property
    def may_ask_conditionally(self) -> bool:
        """The ETag covers this page's body only: behind a full last page a new page may hide."""
        return self.etag is not None and (self.next_url is not None or self.size < PER_PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """All pages of one complete reading, and the repository name they were asked under."""

    full_name: str
    pages: tuple[Page, ...]

    @property
    def issues(self) -> tuple[IssueSnapshot, ...]:
        """Each issue once: an item can move across a page border between two requests."""
        return tuple({issue.number: issue for page in self.pages for issue in page.issues}.values())

    @property
    def foreign(self) -> frozenset[str]:
        return frozenset().union(*(page.foreign for page in self.pages))


def read_pages(
    wire: Wire, *, repo: str, info: answers.RepoInfo, label: str, before: Pages | None
) -> tuple[Pages, bool]:
    """Read the listing; also say whether any page differs from `before`. All of it or an exception."""
    known = before.pages if before is not None and before.full_name == info.full_name else ()
    url: str | None = f"/repos/{info.full_name}/issues"
    params: Mapping[str, Any] | None = _query(label)
    pages: list[Page] = []
    changed = not known
    while url is not None:
        if len(pages) == MAX_PAGES:
            raise GitHubUnavailable(f"The list of {repo} has more than {MAX_PAGES} pages")
        old = known[len(pages)] if len(pages) < len(known) else None
        page = _read_page(wire, url, params, old, lambda answer: _page(wire, answer, repo, info, label))
        changed = changed or page is not old
        pages.append(page)
        url, params = page.next_url, None
    return Pages(full_name=info.full_name, pages=tuple(pages)), changed


def _query(label: str) -> dict[str, Any]:
    return {"labels": label, "state": "open", "sort": "created", "direction": "asc", "per_page": PER_PAGE}


def _read_page(
    wire: Wire, url: str, params: Mapping[str, Any] | None, old: Page | None, fresh: Callable[[Answer], Page]
) -> Page:
    is_usable = old is not None and old.may_ask_conditionally and old.key == wire.key
    etag = old.etag if old is not None and is_usable else None
    answer = wire.send("GET", url, params=params, headers={"If-None-Match": etag} if etag else None)
    if answer.status == 304 and etag is not None and old is not None:
        if answer.key == old.key:
            return old
        answer = wire.send("GET", url, params=params)  # the token changed on the way: that 304 was not ours
    return fresh(answer.expect(200))


def _page(wire: Wire, answer: Answer, repo: str, info: answers.RepoInfo, label: str) -> Page:
    """Keep only what the items themselves prove: after a redirect the query may have been lost."""
    items = answer.many()
    issues, foreign = [], set()
    for raw in items:
        if answers.is_pull_request(raw):
            continue
        home = read(answer.asked, answers.repository_of, raw)
        if not (answers.same_name(home, repo) or answers.same_name(home, info.full_name)):
            foreign.add(home)
            continue
        issue = read(answer.asked, answers.issue_snapshot, raw, repo=repo, repo_id=info.repo_id)
        if issue.state == "open" and _carries(issue, label):
            issues.append(issue)
    return Page(
        issues=tuple(issues),
        foreign=frozenset(foreign),
        size=len(items),
        etag=answer.headers.get("etag"),
        next_url=wire.follow(answer),
        key=answer.key,
    )


def _carries(issue: IssueSnapshot, label: str) -> bool:
    return any(answers.same_name(each, label) for each in issue.labels)
