"""GitHub's REST endpoints over the forge: one small function each, a request in, a response out.

Owns statuses, permissions, paging, conditional requests and error bodies. Opens no socket and takes no
lock; the server calls `Api.answer` with its lock held.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode

from coordinator.demo import bare, graphql
from coordinator.demo.apps import App, Apps, Grant
from coordinator.demo.forge import Comment, Forge, Issue, Rejected, Repository, Role, User, invalid
from coordinator.demo.limits import Bucket, RateLimits
from coordinator.demo.render import Json, Renderer

T = TypeVar("T")
_DOCS = "https://docs.github.com/rest"
_REPOSITORY = re.compile(r"/(?:repos/(?P<name>[^/]+/[^/]+)|repositories/(?P<id>\d+))(?P<rest>/.*)?")
_BY_APP = "Resource not accessible by integration"
# The first part of a path below a repository -> the permission that an App needs for it.
_AREAS = {
    "issues": "issues",
    "labels": "issues",
    "pulls": "pull_requests",
    "git": "contents",
    "branches": "contents",
}
# What an unattended program must never do: merge, approve, or (a mutation of GraphQL) reach either so.
_FORBIDDEN = re.compile(
    r"(?:PUT|POST|PATCH|DELETE) (?:/repos/[^/]+/[^/]+|/repositories/\d+)/(?:pulls/\d+/(?:merge|reviews.*)"
    r"|merges|actions/runs/.*|branches/.*/protection.*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str  # still percent-encoded, without the query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    token: str | None
    user: User | None  # of an installation token: the App's bot
    grant: Grant | None = None  # an installation token's
    app: App | None = None  # who signed, in place of a token
    refusal: Rejected | None = None  # what is wrong with the signature or the installation

    @property
    def login(self) -> str:
        return self.user.login if self.user else ""

    @property
    def counted_as(self) -> str:
        """Whose limit it is counted against: each installation of an App has its own."""
        if self.grant is not None:
            return f"{self.login}/{self.grant.installation.id}"
        return f"app {self.app.slug}" if self.app is not None else self.login

    def role_in(self, repository: Repository) -> Role:
        if self.grant is not None:
            return self.grant.role_in(repository)
        return repository.access_of(self.user)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_forbidden: bool = False  # a merge or an approval was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to one repository, with what every endpoint needs to know."""

    request: Request
    repository: Repository
    role: Role
    rest: str  # the path behind the repository

    def need(self, role: Role, message: str = "Must have admin rights to Repository.") -> User:
        """The account, when it may write here as `role`; raises Rejected otherwise."""
        if self.request.user is None:
            raise Rejected(401, "Requires authentication")
        if self.role < role:
            raise Rejected(403, message)
        if self.repository.archived:
            raise Rejected(403, "Repository was archived so is read-only.")
        return self.request.user

    def check_grant(self) -> None:
        """An installation token may do what it was given, where it was given it."""
        grant, writing = self.request.grant, self.request.method != "GET"
        if grant is None or (not writing and not grant.reaches(self.repository)):
            return
        area = self.rest.split("/")[1] if self.rest else ""
        if not grant.reaches(self.repository) or not grant.allows(
            _AREAS.get(area, "metadata"), writing=writing
        ):
            raise Rejected(403, _BY_APP)

    def reader(self) -> User:
        """The account, for a write that everybody who may read can do."""
        return self.need(Role.READ)


def error(status: int, message: str, *errors: Any, headers: dict[str, str] | None = None) -> Response:
    """GitHub's error body."""
    body: Json = {"message": message}
    if errors:
        body["errors"] = list(errors)
    body |= {"documentation_url": _DOCS, "status": str(status)}
    return reply(status, body, headers)


def reply(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(
        status=status, body=json.dumps(body, separators=(",", ":")).encode(), headers=headers or {}
    )


Endpoint = Callable[["Api", Call, "re.Match[str]"], Response]
_ENDPOINTS: list[tuple[str, re.Pattern[str], Endpoint]] = []


def _on(method: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint for the part of the path behind the repository."""

    def register(endpoint: Endpoint) -> Endpoint:
        _ENDPOINTS.append((method, re.compile(pattern), endpoint))
        return endpoint

    return register


class Api:
    """Answers requests from the forge."""

    def __init__(self, forge: Forge, apps: Apps, limits: RateLimits, render: Renderer) -> None:
        self.forge = forge
        self.apps = apps
        self.limits = limits
        self.render = render
        self.primary_limit_status = 403  # GitHub documents 403 and 429 for the same thing

    def answer(self, request: Request) -> Response:
        """The whole way: identity, limit, endpoint, ETag, rate headers."""
        if request.refusal is not None:
            return error(request.refusal.status, request.refusal.message)
        if request.token is not None and request.user is None and request.app is None:
            return error(401, "Bad credentials")
        bucket = self._bucket(request)
        if request.path == "/rate_limit":
            return self._with_rate(request, self._rate_limit(request))
        if bucket.remaining == 0:
            return self._with_rate(request, self._over_limit(request))
        response = _conditional(request, self._dispatch(request))
        if response.status != 304:
            bucket.used += 1
        return self._with_rate(request, response)

    def _bucket(self, request: Request) -> Bucket:
        return self.limits.of(request.counted_as, "graphql" if request.path == "/graphql" else "core")

    def _with_rate(self, request: Request, response: Response) -> Response:
        headers = response.headers | self._bucket(request).headers()
        return Response(
            status=response.status, body=response.body, headers=headers, is_forbidden=response.is_forbidden
        )

    def _over_limit(self, request: Request) -> Response:
        who = f"user ID {request.user.id}" if request.user else "127.0.0.1"
        return error(self.primary_limit_status, f"API rate limit exceeded for {who}.")

    def _rate_limit(self, request: Request) -> Response:
        core = self.limits.of(request.counted_as).as_json()
        search = core | {"limit": 30, "used": 0, "remaining": 30}
        graphql = core | {"limit": 5000, "used": 0, "remaining": 5000}
        return reply(200, {"resources": {"core": core, "search": search, "graphql": graphql}, "rate": core})

    def _dispatch(self, request: Request) -> Response:
        is_graphql = (request.method, request.path) == ("POST", "/graphql")
        if _FORBIDDEN.fullmatch(f"{request.method} {request.path}") or (is_graphql and _mutates(request)):
            refused = error(405, "This server accepts neither merges nor reviews nor mutations.")
            return Response(status=405, body=refused.body, is_forbidden=True)
        try:
            if is_graphql:
                return self._graphql(request)
            if request.path == "/user" and request.method == "GET":
                return self._own_user(request)
            asked = _answer_app(self, request)
            if asked is not None:
                return asked
            match = _REPOSITORY.fullmatch(request.path)
            return error(404, "Not Found") if match is None else self._in_repository(request, match)
        except Rejected as rejected:
            return error(rejected.status, rejected.message, *rejected.errors)

    def _graphql(self, request: Request) -> Response:
        if request.user is None:
            raise Rejected(401, "This endpoint requires you to be authenticated.")
        body = _fields(request)
        text, variables = _required(body, "query"), body.get("variables") or {}
        owner, name, number = graphql.names_of(text, variables)
        found = self.forge.repositories.get(self.forge.names.get(f"{owner}/{name}".lower(), 0))
        role = request.role_in(found) if found else Role.NONE
        return reply(200, graphql.answer(text, variables, find=found, role=role, number=number))

    def _own_user(self, request: Request) -> Response:
        if request.user is None:
            raise Rejected(401, "Requires authentication")
        if request.grant is not None:
            raise Rejected(403, _BY_APP)
        return reply(200, self.render.own_user(request.user))

    def _in_repository(self, request: Request, match: re.Match[str]) -> Response:
        rest = match["rest"] or ""
        by_id = match["id"] is not None
        number = int(match["id"]) if by_id else self.forge.names.get(unquote(match["name"]).lower())
        repository = self.forge.repositories.get(number or 0)
        role = request.role_in(repository) if repository else Role.NONE
        if request.app is not None and repository is not None:
            role = Role.READ  # it signs only to ask where it is installed
        if repository is None or role < Role.READ:
            raise Rejected(404, "Not Found")
        if not by_id and unquote(match["name"]).lower() != repository.full_name.lower():
            return self._moved(request, f"/repositories/{repository.id}{rest}")
        return self._endpoint(Call(request=request, repository=repository, role=role, rest=rest))

    def _moved(self, request: Request, path: str) -> Response:
        query = f"?{urlencode(request.query)}" if request.query else ""
        url = f"{self.render.api_url}{path}{query}"
        status, text = (301, "Moved Permanently") if request.method == "GET" else (307, "Temporary Redirect")
        return reply(status, {"message": text, "url": url, "documentation_url": _DOCS}, {"Location": url})

    def _endpoint(self, call: Call) -> Response:
        if call.request.app is not None:
            if (call.request.method, call.rest) != ("GET", "/installation"):
                raise Rejected(401, "A JSON web token could not be decoded")
            found = self.apps.installation_for(call.request.app, call.repository)
            return reply(200, self.render.installation(found))
        call.check_grant()
        for method, pattern, endpoint in _ENDPOINTS:
            match = pattern.fullmatch(call.rest)
            if match is not None and method == call.request.method:
                return endpoint(self, call, match)
        raise Rejected(404, "Not Found")

    # Looking things up ----------------------------------------------------------------------------

    def issue(self, call: Call, number: str) -> Issue | Response:
        """The issue, or the answer for one that moved; 404 and 410 are raised."""
        issue = call.repository.issues.get(int(number))
        if issue is None:
            raise Rejected(404, "Not Found")
        if issue.deleted:
            raise Rejected(410, "This issue was deleted")
        if issue.moved_to is not None:
            target, moved = issue.moved_to
            tail = call.rest.removeprefix(f"/issues/{number}")
            return self._moved(call.request, f"/repositories/{target.id}/issues/{moved}{tail}")
        return issue

    @staticmethod
    def pull(call: Call, number: str) -> Issue:
        issue = call.repository.issues.get(int(number))
        if issue is None or issue.pull is None:
            raise Rejected(404, "Not Found")
        return issue

    def page(self, call: Call, items: Sequence[T], render: Callable[[T], Json]) -> Response:
        """One page of a list, with the Link header when there is more than one."""
        size = min(100, max(1, _whole(call.request.query.get("per_page"), 30)))
        number = max(1, _whole(call.request.query.get("page"), 1))
        last = max(1, -(-len(items) // size))
        shown = items[(number - 1) * size : number * size]
        headers = {} if last == 1 else {"Link": self._links(call, number, last)}
        return reply(200, [render(item) for item in shown], headers)

    def _links(self, call: Call, number: int, last: int) -> str:
        wanted = {"prev": number - 1, "next": number + 1, "last": last, "first": 1}
        if number >= last:
            del wanted["next"], wanted["last"]
        if number == 1:
            del wanted["prev"], wanted["first"]
        # GitHub's own links go by the repository's number, whatever name was asked for.
        url = f"{self.render.api_url}/repositories/{call.repository.id}{call.rest}"
        query = call.request.query
        return ", ".join(
            f'<{url}?{urlencode(query | {"page": page})}>; rel="{rel}"' for rel, page in wanted.items()
        )


# GitHub Apps and accounts --------------------------------------------------------------------------


def _answer_app(api: Api, request: Request) -> Response | None:
    """What is asked outside every repository; None when it is something else."""
    if request.method == "GET" and (match := re.fullmatch(r"/users/([^/]+)", request.path)):
        user = api.forge.users.get(unquote(match[1]).lower())
        return error(404, "Not Found") if user is None else reply(200, api.render.public_user(user))
    if request.path != "/app" and not request.path.startswith("/app/"):
        return None
    app = request.app
    if app is None:
        raise Rejected(401, "A JSON web token could not be decoded")
    if (request.method, request.path) == ("GET", "/app"):
        return reply(200, api.render.integration(app) | {"installations_count": len(api.apps.installations)})
    match = re.fullmatch(r"/app/installations/(\d+)(/access_tokens)?", request.path)
    if match is None or request.method != ("POST" if match[2] else "GET"):
        raise Rejected(404, "Not Found")
    found = api.apps.installation(app, int(match[1]))
    if match[2] is None:
        return reply(200, api.render.installation(found))
    body = _fields(request)
    wanted = _wanted_repositories(api, found.account, body)
    permissions = body.get("permissions") or {}
    if not isinstance(permissions, dict):
        raise Rejected(422, "Invalid request.\n\nFor 'properties/permissions', it is not an object.")
    grant = api.apps.make_token(found, wanted, permissions)
    inside = None if wanted is None else [api.render.repository(each, Role.WRITE) for each in wanted]
    return reply(201, api.render.grant(grant, inside))


def _wanted_repositories(api: Api, account: User, body: Json) -> list[Repository] | None:
    """The repositories a token is to be narrowed to; None when nothing is said, which is all of them."""
    names, numbers = body.get("repositories"), body.get("repository_ids")
    if not names and not numbers:
        return None
    known = {each.id: each for each in api.forge.repositories.values() if each.owner is account}
    found = [known.get(number) for number in numbers or ()]
    found += [
        next((each for each in known.values() if each.name.lower() == str(name).lower()), None)
        for name in names or ()
    ]
    if None in found:
        raise Rejected(
            422,
            "There is at least one repository that does not exist or is not accessible to the parent "
            "installation.",
        )
    return [each for each in found if each is not None]


def _conditional(request: Request, response: Response) -> Response:
    """Add the ETag; turn a GET of something unchanged into 304."""
    if request.method != "GET" or response.status != 200:
        return response
    secret = f"{request.token}\0{request.headers.get('accept', '')}\0".encode()
    tag = f'W/"{hashlib.sha256(secret + response.body).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=60, s-maxage=60"} | response.headers
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag.removeprefix("W/") in known:
        headers.pop("Link", None)
        return Response(status=304, headers=headers)
    return Response(status=200, body=response.body, headers=headers)


def _mutates(request: Request) -> bool:
    body = _json(request)
    return not (isinstance(body, dict) and graphql.is_query(str(body.get("query"))))


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else default


def _json(request: Request) -> Any:
    try:
        return json.loads(request.body or b"{}")
    except ValueError:
        raise Rejected(400, "Problems parsing JSON") from None


def _fields(request: Request) -> Json:
    body = _json(request)
    if not isinstance(body, dict):
        raise Rejected(400, "Body should be a JSON object")
    return body


def _text(body: Json, name: str, *, required: bool = False) -> str | None:
    """One string of a request body; null and absent are the same unless it is required."""
    value = body.get(name)
    if isinstance(value, str) or (value is None and not required):
        return value
    shown = "nil" if value is None else json.dumps(value)
    raise Rejected(422, f"Invalid request.\n\nFor 'properties/{name}', {shown} is not a string.")


def _required(body: Json, name: str) -> str:
    return _text(body, name, required=True) or ""


def _names(values: Any) -> list[str]:
    """Label names as strings or as objects with a name."""
    names: list[Any] = [value.get("name") if isinstance(value, dict) else value for value in values or ()]
    if not all(isinstance(name, str) for name in names):
        raise Rejected(422, "Invalid request.\n\nFor 'items', a label is a string or has a name.")
    return names


# The repository ------------------------------------------------------------------------------------


@_on("GET", "")
def _get_repository(api: Api, call: Call, _match: re.Match[str]) -> Response:
    return reply(200, api.render.full_repository(call.repository, call.role))


@_on("GET", r"/collaborators/(?P<login>[^/]+)/permission")
def _get_permission(api: Api, call: Call, match: re.Match[str]) -> Response:
    if call.role < Role.WRITE:
        raise Rejected(403, "Must have push access to view collaborator permission.")
    user = api.forge.users.get(unquote(match["login"]).lower())
    if user is None or user.kind != "User":
        raise Rejected(404, f"{unquote(match['login'])} is not a user")
    repository = call.repository
    return reply(200, api.render.permission(user, repository.role_of(user), repository.role_name_of(user)))


@_on("GET", r"/git/ref/heads/(?P<branch>.+)")
def _get_ref(api: Api, call: Call, match: re.Match[str]) -> Response:
    branch = unquote(match["branch"])
    sha = call.repository.sha(branch)
    if sha is None:
        raise Rejected(404, "Not Found")
    return reply(200, api.render.ref(call.repository, branch, sha))


@_on("GET", r"/branches/(?P<branch>.+)")
def _get_branch(api: Api, call: Call, match: re.Match[str]) -> Response:
    branch = unquote(match["branch"])
    sha = call.repository.sha(branch)
    if sha is None:
        raise Rejected(404, "Branch not found")
    return reply(200, api.render.branch(call.repository, branch, bare.commit(call.repository.git_dir, sha)))


# Issues --------------------------------------------------------------------------------------------


@_on("GET", "/issues")
def _list_issues(api: Api, call: Call, _match: re.Match[str]) -> Response:
    query = call.request.query
    state = query.get("state", "open")
    if state not in ("open", "closed", "all"):
        raise invalid("Issue", "state", "invalid")
    labels = [name.strip() for name in query.get("labels", "").split(",") if name.strip()]
    since = _moment(query.get("since"))
    found = [issue for issue in call.repository.issues.values() if _is_listed(issue, state, labels, since)]
    return api.page(call, _sorted(found, query), lambda issue: api.render.issue(call.repository, issue))


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise invalid("Issue", "since", "invalid") from None


def _is_listed(issue: Issue, state: str, labels: list[str], since: datetime | None) -> bool:
    if issue.deleted or issue.moved_to is not None or state not in ("all", issue.state):
        return False
    if since is not None and issue.updated_at < since:
        return False
    return all(issue.has_label(name) for name in labels)


def _sorted(issues: list[Issue], query: dict[str, str]) -> list[Issue]:
    by_update = query.get("sort") == "updated"
    return sorted(
        issues,
        key=lambda issue: (issue.updated_at if by_update else issue.created_at, issue.number),
        reverse=query.get("direction", "desc") != "asc",
    )


@_on("POST", "/issues")
def _create_issue(api: Api, call: Call, _match: re.Match[str]) -> Response:
    author = call.reader()
    if not call.repository.has_issues:
        raise Rejected(410, "Issues are disabled for this repo")
    body = _fields(call.request)
    title, text = _required(body, "title"), _text(body, "body")
    issue = api.forge.add_issue(call.repository, title=title, body=text, author=author)
    if call.role >= Role.WRITE:  # GitHub drops the labels of others without a word
        api.forge.put_labels(call.repository, issue, _names(body.get("labels")), author)
    url = f"{api.render.repository_url(call.repository)}/issues/{issue.number}"
    return reply(201, api.render.full_issue(call.repository, issue), {"Location": url})


@_on("GET", r"/issues/(?P<number>\d+)")
def _get_issue(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    return issue if isinstance(issue, Response) else reply(200, api.render.full_issue(call.repository, issue))


@_on("PATCH", r"/issues/(?P<number>\d+)")
def _edit_issue(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    user = call.reader()
    call.need(Role.READ if user is issue.author else Role.TRIAGE)
    body = _fields(call.request)
    state, labels = _text(body, "state"), body.get("labels")
    api.forge.edit_issue(issue, title=_text(body, "title"), body=_text(body, "body"), editor=user)
    if state is not None:
        api.forge.set_state(issue, state, user, _text(body, "state_reason"))
    if labels is not None and call.role >= Role.TRIAGE:
        _replace_labels(api, call, issue, _names(labels), user)
    return reply(200, api.render.full_issue(call.repository, issue))


def _replace_labels(api: Api, call: Call, issue: Issue, names: list[str], user: User) -> None:
    kept = {name.lower() for name in names}
    for label in [label for label in issue.labels if label.name.lower() not in kept]:
        api.forge.take_label(issue, label.name, user)
    api.forge.put_labels(call.repository, issue, names, user)


@_on("GET", r"/issues/(?P<number>\d+)/events")
def _list_events(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    return api.page(call, issue.events, lambda event: api.render.event(call.repository, event))


# Comments ------------------------------------------------------------------------------------------


@_on("GET", r"/issues/(?P<number>\d+)/comments")
def _list_comments(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    return api.page(call, issue.comments, lambda comment: api.render.comment(call.repository, comment))


@_on("POST", r"/issues/(?P<number>\d+)/comments")
def _create_comment(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    author = call.reader()
    if issue.locked and call.role < Role.WRITE:
        raise Rejected(403, "Unable to create comment because issue is locked.")
    text = _required(_fields(call.request), "body")
    comment = api.forge.add_comment(call.repository, issue, author, text)
    body = api.render.comment(call.repository, comment)
    return reply(201, body, {"Location": body["url"]})


@_on("GET", r"/issues/comments/(?P<id>\d+)")
def _get_comment(api: Api, call: Call, match: re.Match[str]) -> Response:
    return reply(200, api.render.comment(call.repository, _comment(call, match)))


@_on("PATCH", r"/issues/comments/(?P<id>\d+)")
def _edit_comment(api: Api, call: Call, match: re.Match[str]) -> Response:
    comment = _comment(call, match)
    call.need(Role.READ if call.request.user is comment.author else Role.WRITE)
    api.forge.edit_comment(comment, _required(_fields(call.request), "body"))
    return reply(200, api.render.comment(call.repository, comment))


@_on("DELETE", r"/issues/comments/(?P<id>\d+)")
def _delete_comment(api: Api, call: Call, match: re.Match[str]) -> Response:
    comment = _comment(call, match)
    call.need(Role.READ if call.request.user is comment.author else Role.WRITE)
    api.forge.delete_comment(call.repository, comment)
    return Response(status=204)


def _comment(call: Call, match: re.Match[str]) -> Comment:
    comment = call.repository.comments.get(int(match["id"]))
    if comment is None:
        raise Rejected(404, "Not Found")
    return comment


# Labels --------------------------------------------------------------------------------------------


@_on("GET", "/labels")
def _list_labels(api: Api, call: Call, _match: re.Match[str]) -> Response:
    labels = sorted(call.repository.labels.values(), key=lambda label: label.name.lower())
    return api.page(call, labels, lambda label: api.render.label(call.repository, label))


@_on("POST", "/labels")
def _create_label(api: Api, call: Call, _match: re.Match[str]) -> Response:
    call.need(Role.WRITE)
    body = _fields(call.request)
    color = _text(body, "color") or "ededed"
    if not re.fullmatch("[0-9A-Fa-f]{6}", color):
        raise invalid("Label", "color", "invalid")
    label = api.forge.create_label(
        call.repository, _required(body, "name"), color, _text(body, "description")
    )
    rendered = api.render.label(call.repository, label)
    return reply(201, rendered, {"Location": rendered["url"]})


@_on("GET", r"/labels/(?P<name>[^/]+)")
def _get_label(api: Api, call: Call, match: re.Match[str]) -> Response:
    label = call.repository.labels.get(unquote(match["name"]).lower())
    if label is None:
        raise Rejected(404, "Not Found")
    return reply(200, api.render.label(call.repository, label))


@_on("GET", r"/issues/(?P<number>\d+)/labels")
def _list_issue_labels(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    return api.page(call, issue.labels, lambda label: api.render.label(call.repository, label))


@_on("POST", r"/issues/(?P<number>\d+)/labels")
def _add_labels(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    user = call.need(Role.TRIAGE)
    body = _json(call.request)
    names = _names(body.get("labels") if isinstance(body, dict) else body)
    if call.role < Role.WRITE and any(name.lower() not in call.repository.labels for name in names):
        raise Rejected(403, "You do not have permission to create labels on this repository.")
    grant = call.request.grant
    slug = grant.installation.app.slug if grant else None
    api.forge.put_labels(call.repository, issue, names, user, app=slug)
    return reply(200, [api.render.label(call.repository, label) for label in issue.labels])


@_on("DELETE", r"/issues/(?P<number>\d+)/labels/(?P<name>[^/]+)")
def _remove_label(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.issue(call, match["number"])
    if isinstance(issue, Response):
        return issue
    api.forge.take_label(issue, unquote(match["name"]), call.need(Role.TRIAGE))
    return reply(200, [api.render.label(call.repository, label) for label in issue.labels])


# Pull requests -------------------------------------------------------------------------------------


@_on("GET", "/pulls")
def _list_pulls(api: Api, call: Call, _match: re.Match[str]) -> Response:
    query = call.request.query
    state = query.get("state", "open")
    if state not in ("open", "closed", "all"):
        raise invalid("PullRequest", "state", "invalid")
    pulls = [
        issue
        for issue in call.repository.issues.values()
        if _is_wanted_pull(call.repository, issue, state, query)
    ]
    return api.page(
        call, _sorted(pulls, query), lambda issue: api.render.pull(call.repository, issue, call.role)
    )


def _is_wanted_pull(repository: Repository, issue: Issue, state: str, query: dict[str, str]) -> bool:
    if issue.pull is None or state not in ("all", issue.state):
        return False
    head, base = query.get("head"), query.get("base")
    # GitHub ignores a head without "owner:".
    owner, colon, branch = (head or "").partition(":")
    if colon and (owner.lower(), branch) != (repository.owner.login.lower(), issue.pull.head):
        return False
    return base is None or base == issue.pull.base


@_on("POST", "/pulls")
def _create_pull(api: Api, call: Call, _match: re.Match[str]) -> Response:
    author = call.need(Role.WRITE, "Resource not accessible by personal access token")
    body = _fields(call.request)
    owner, colon, branch = _required(body, "head").partition(":")
    if colon and owner.lower() != call.repository.owner.login.lower():
        raise invalid("PullRequest", "head", "invalid")
    issue = api.forge.add_pull(
        call.repository,
        title=_required(body, "title"),
        body=_text(body, "body"),
        author=author,
        head=branch if colon else owner,
        base=_required(body, "base"),
        draft=body.get("draft") is True,
    )
    rendered = api.render.full_pull(call.repository, issue, call.role, bare.DiffSize())
    return reply(201, rendered, {"Location": rendered["url"]})


@_on("GET", r"/pulls/(?P<number>\d+)")
def _get_pull(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.pull(call, match["number"])
    return reply(
        200, api.render.full_pull(call.repository, issue, call.role, _diff_size(call.repository, issue))
    )


def _diff_size(repository: Repository, issue: Issue) -> bare.DiffSize:
    """Zero when the branch is gone."""
    pull = issue.pull
    head, base = (repository.sha(pull.head), repository.sha(pull.base)) if pull else (None, None)
    return bare.diff_size(repository.git_dir, base, head) if head and base else bare.DiffSize()


@_on("PATCH", r"/pulls/(?P<number>\d+)")
def _edit_pull(api: Api, call: Call, match: re.Match[str]) -> Response:
    issue = api.pull(call, match["number"])
    user = call.need(Role.READ if call.request.user is issue.author else Role.WRITE)
    body = _fields(call.request)
    api.forge.edit_issue(issue, title=_text(body, "title"), body=_text(body, "body"), editor=user)
    state = _text(body, "state")
    if state is not None:
        api.forge.set_state(issue, state, user)
    return reply(
        200, api.render.full_pull(call.repository, issue, call.role, _diff_size(call.repository, issue))
    )
