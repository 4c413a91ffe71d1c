"""GitHub's JSON for the objects of the forge. Shapes only: no decisions, no HTTP.

Checked field by field against GitHub's published OpenAPI description in `tests/adapters/`.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from coordinator.demo import bare
from coordinator.demo.apps import App, Grant, Installation
from coordinator.demo.forge import Comment, Event, Issue, Label, Pull, Repository, Role, User

Json = dict[str, Any]

_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}


def moment(value: datetime) -> str:
    """GitHub's spelling of an instant."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment_or_none(value: datetime | None) -> str | None:
    return None if value is None else moment(value)


def _node_id(prefix: str, number: int | str) -> str:
    return f"{prefix}_{base64.urlsafe_b64encode(str(number).encode()).decode().rstrip('=')}"


class Renderer:
    """Turns objects into JSON whose links lead back to `api_url`."""

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url

    def repository_url(self, repository: Repository) -> str:
        return f"{self.api_url}/repos/{repository.full_name}"

    # Accounts -------------------------------------------------------------------------------------

    def user(self, user: User) -> Json:
        url = f"{self.api_url}/users/{user.login}"
        return {
            "login": user.login,
            "id": user.id,
            "node_id": _node_id("U", user.id),
            "avatar_url": f"{self.api_url}/avatars/u/{user.id}?v=4",
            "gravatar_id": "",
            "url": url,
            "html_url": f"{self.api_url}/{user.login}",
            **{key: url + tail for key, tail in _USER_LINKS.items()},
            "type": user.kind,
            "user_view_type": "public",
            "site_admin": False,
        }

    def _user_or_none(self, user: User | None) -> Json | None:
        return None if user is None else self.user(user)

    def own_user(self, user: User) -> Json:
        """GET /user: the account of the token, with what only its owner sees."""
        unknown = dict.fromkeys(("name", "company", "blog", "location", "email", "hireable", "bio"))
        counts = dict.fromkeys(
            ("public_repos", "public_gists", "followers", "following", "private_gists", "total_private_repos",
             "owned_private_repos", "disk_usage", "collaborators"), 0
        )  # fmt: skip
        since = {"created_at": moment(user.created_at), "updated_at": moment(user.created_at)}
        base = self.user(user) | {"user_view_type": "private"}
        return base | unknown | counts | since | {"two_factor_authentication": True}

    def public_user(self, user: User) -> Json:
        """GET /users/{login}: what everybody sees of an account."""
        private = ("private_gists", "total_private_repos", "owned_private_repos", "disk_usage",
                   "collaborators", "two_factor_authentication")  # fmt: skip
        seen = {name: value for name, value in self.own_user(user).items() if name not in private}
        return seen | {"user_view_type": "public"}

    # GitHub Apps ----------------------------------------------------------------------------------

    def integration(self, app: App) -> Json:
        """GET /app."""
        page = f"{self.api_url}/apps/{app.slug}"
        return {
            "id": app.id,
            "slug": app.slug,
            "client_id": app.client_id,
            "node_id": _node_id("A", app.id),
            "owner": self.user(app.owner),
            "name": app.slug,
            "description": "",
            "external_url": page,
            "html_url": page,
            "created_at": moment(app.created_at),
            "updated_at": moment(app.created_at),
            "permissions": app.permissions,
            "events": ["issues"],
        }

    def installation(self, found: Installation) -> Json:
        """Where an App is installed, for the App itself."""
        url = f"{self.api_url}/app/installations/{found.id}"
        return {
            "id": found.id,
            "account": self.user(found.account),
            "repository_selection": "all" if found.repositories is None else "selected",
            "access_tokens_url": f"{url}/access_tokens",
            "repositories_url": f"{self.api_url}/installation/repositories",
            "html_url": f"{self.api_url}/settings/installations/{found.id}",
            "app_id": found.app.id,
            "client_id": found.app.client_id,
            "target_id": found.account.id,
            "target_type": found.account.kind,
            "permissions": found.permissions,
            "events": ["issues"],
            "created_at": moment(found.created_at),
            "updated_at": moment(found.created_at),
            "single_file_name": None,
            "has_multiple_single_files": False,
            "single_file_paths": [],
            "app_slug": found.app.slug,
            "suspended_by": self._user_or_none(found.account if found.suspended_at else None),
            "suspended_at": _moment_or_none(found.suspended_at),
        }

    def grant(self, grant: Grant, repositories: list[Json] | None) -> Json:
        """A new installation token."""
        body: Json = {
            "token": grant.token,
            "expires_at": moment(grant.expires_at),
            "permissions": grant.permissions,
            "repository_selection": "all" if repositories is None else "selected",
        }
        return body if repositories is None else body | {"repositories": repositories}

    def permission(self, user: User, role: Role, name: str) -> Json:
        flags = _permission_flags(role)
        person = self.user(user) | {"permissions": flags, "role_name": "" if role is Role.NONE else name}
        return {"permission": role.legacy, "user": person, "role_name": name}

    # Repositories ---------------------------------------------------------------------------------

    def repository(self, repository: Repository, role: Role) -> Json:
        """The form used inside a pull request."""
        url = self.repository_url(repository)
        return {
            "id": repository.id,
            "node_id": _node_id("R", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "private": repository.private,
            "owner": self.user(repository.owner),
            "html_url": f"{self.api_url}/{repository.full_name}",
            "description": None,
            "fork": False,
            "url": url,
            **{key: url + tail for key, tail in _REPOSITORY_LINKS.items()},
            **self._repository_facts(repository),
            "permissions": _permission_flags(role),
        }

    def full_repository(self, repository: Repository, role: Role) -> Json:
        """GET /repos/{owner}/{repo}."""
        return self.repository(repository, role) | {"network_count": 0, "subscribers_count": 0}

    def _repository_facts(self, repository: Repository) -> Json:
        git_url = f"{self.api_url}/git/{repository.full_name}.git"
        since = moment(repository.created_at)
        count = repository.open_count()
        return {
            "git_url": git_url,
            "ssh_url": git_url,
            "clone_url": git_url,
            "svn_url": f"{self.api_url}/{repository.full_name}",
            "mirror_url": None,
            "homepage": None,
            "language": "Python",
            "license": None,
            "forks": 0,
            "forks_count": 0,
            "stargazers_count": 0,
            "watchers": 0,
            "watchers_count": 0,
            "size": 1,
            "default_branch": repository.default_branch,
            "open_issues": count,
            "open_issues_count": count,
            "has_issues": repository.has_issues,
            "has_projects": False,
            "has_wiki": False,
            "has_pages": False,
            "has_downloads": False,
            "has_discussions": False,
            "archived": repository.archived,
            "disabled": False,
            "visibility": "private" if repository.private else "public",
            "allow_forking": True,
            "is_template": False,
            "topics": [],
            "pushed_at": since,
            "created_at": since,
            "updated_at": since,
        }

    def label(self, repository: Repository, label: Label) -> Json:
        return {
            "id": label.id,
            "node_id": _node_id("LA", label.id),
            "url": f"{self.repository_url(repository)}/labels/{label.name.replace(' ', '%20')}",
            "name": label.name,
            "color": label.color,
            "default": label.default,
            "description": label.description,
        }

    # Issues ---------------------------------------------------------------------------------------

    def issue(self, repository: Repository, issue: Issue) -> Json:
        """An issue, or a pull request as the issues list shows it."""
        url = f"{self.repository_url(repository)}/issues/{issue.number}"
        body: Json = {
            "url": url,
            "repository_url": self.repository_url(repository),
            "labels_url": f"{url}/labels{{/name}}",
            "comments_url": f"{url}/comments",
            "events_url": f"{url}/events",
            "html_url": self._page(repository, issue),
            "id": issue.id,
            "node_id": _node_id("PR" if issue.pull else "I", issue.id),
            "number": issue.number,
            "title": issue.title,
            "user": self.user(issue.author),
            "labels": [self.label(repository, label) for label in issue.labels],
            "state": issue.state,
            "locked": issue.locked,
            "active_lock_reason": None,
            "assignee": None,
            "assignees": [],
            "milestone": None,
            "comments": len(issue.comments),
            "created_at": moment(issue.created_at),
            "updated_at": moment(issue.updated_at),
            "closed_at": _moment_or_none(issue.closed_at),
            "author_association": self._association(repository, issue.author),
            "type": None,
            "body": issue.body,
            "reactions": self._reactions(url),
            "timeline_url": f"{url}/timeline",
            "performed_via_github_app": None,
            "state_reason": issue.state_reason,
        }
        if issue.pull is not None:
            body |= {"draft": issue.pull.draft, "pull_request": self._pull_links(repository, issue)}
        return body

    def full_issue(self, repository: Repository, issue: Issue) -> Json:
        """GET of one issue: as in the list, and who closed it."""
        return self.issue(repository, issue) | {"closed_by": self._user_or_none(issue.closed_by)}

    def comment(self, repository: Repository, comment: Comment) -> Json:
        url = f"{self.repository_url(repository)}/issues/comments/{comment.id}"
        page = self._page(repository, repository.issues[comment.number])
        return {
            "url": url,
            "html_url": f"{page}#issuecomment-{comment.id}",
            "issue_url": f"{self.repository_url(repository)}/issues/{comment.number}",
            "id": comment.id,
            "node_id": _node_id("IC", comment.id),
            "user": self.user(comment.author),
            "created_at": moment(comment.created_at),
            "updated_at": moment(comment.updated_at),
            "body": comment.body,
            "author_association": self._association(repository, comment.author),
            "reactions": self._reactions(url),
            "performed_via_github_app": self._app(comment.app, comment.created_at),
        }

    def event(self, repository: Repository, event: Event) -> Json:
        body: Json = {
            "id": event.id,
            "node_id": _node_id("EV", event.id),
            "url": f"{self.repository_url(repository)}/issues/events/{event.id}",
            "actor": self._user_or_none(event.actor),
            "event": event.kind,
            "commit_id": None,
            "commit_url": None,
            "created_at": moment(event.created_at),
            "performed_via_github_app": self._app(event.app, event.created_at),
        }
        if event.label is not None:
            body["label"] = {"name": event.label.name, "color": event.label.color}
        if event.intent is not None:
            body["intent"] = {"rationale": event.intent, "confidence": "high"}
        if event.rename is not None:
            body["rename"] = {"from": event.rename[0], "to": event.rename[1]}
        if event.kind == "closed":
            body["state_reason"] = event.state_reason
        return body

    def _app(self, slug: str | None, since: datetime) -> Json | None:
        if slug is None:
            return None
        return {
            "id": 1,
            "slug": slug,
            "client_id": "Iv1.demo",
            "node_id": _node_id("A", slug),
            "owner": self.user(User(id=2, login=slug, kind="Organization", created_at=since)),
            "name": slug,
            "description": "",
            "external_url": f"{self.api_url}/apps/{slug}",
            "html_url": f"{self.api_url}/apps/{slug}",
            "created_at": moment(since),
            "updated_at": moment(since),
            "permissions": {"issues": "write", "metadata": "read"},
            "events": [],
        }

    def _page(self, repository: Repository, issue: Issue) -> str:
        return f"{self.api_url}/{repository.full_name}/{'pull' if issue.pull else 'issues'}/{issue.number}"

    @staticmethod
    def _association(repository: Repository, user: User) -> str:
        if user.login == repository.owner.login:
            return "OWNER"
        return "COLLABORATOR" if repository.roles.get(user.id, Role.NONE) > Role.NONE else "NONE"

    @staticmethod
    def _reactions(url: str) -> Json:
        kinds = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")
        return {"url": f"{url}/reactions", "total_count": 0, **dict.fromkeys(kinds, 0)}

    # Pull requests --------------------------------------------------------------------------------

    def pull(self, repository: Repository, issue: Issue, role: Role) -> Json:
        """A pull request as lists show it."""
        assert issue.pull is not None  # noqa: S101  routes look it up among pull requests
        url = f"{self.repository_url(repository)}/pulls/{issue.number}"
        issue_url = f"{self.repository_url(repository)}/issues/{issue.number}"
        page = self._page(repository, issue)
        head, base = self._head(repository, issue.pull, role), self._base(repository, issue.pull, role)
        links = {
            "comments_url": f"{issue_url}/comments",
            "commits_url": f"{url}/commits",
            "review_comment_url": f"{self.repository_url(repository)}/pulls/comments{{/number}}",
            "review_comments_url": f"{url}/comments",
            "statuses_url": f"{self.repository_url(repository)}/statuses/{head['sha']}",
        }
        return {
            "url": url,
            "id": issue.id,
            "node_id": _node_id("PR", issue.id),
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "issue_url": issue_url,
            **links,
            "number": issue.number,
            "state": issue.state,
            "locked": issue.locked,
            "title": issue.title,
            "user": self.user(issue.author),
            "body": issue.body,
            "labels": [self.label(repository, label) for label in issue.labels],
            "milestone": None,
            "active_lock_reason": None,
            "created_at": moment(issue.created_at),
            "updated_at": moment(issue.updated_at),
            "closed_at": _moment_or_none(issue.closed_at),
            "merged_at": None,
            "merge_commit_sha": None,
            "assignee": None,
            "assignees": [],
            "requested_reviewers": [],
            "requested_teams": [],
            "head": head,
            "base": base,
            "_links": {
                "self": {"href": url},
                "html": {"href": page},
                "issue": {"href": issue_url},
                **{key.removesuffix("_url"): {"href": value} for key, value in links.items()},
            },
            "author_association": self._association(repository, issue.author),
            "auto_merge": None,
            "draft": issue.pull.draft,
        }

    def full_pull(self, repository: Repository, issue: Issue, role: Role, size: bare.DiffSize) -> Json:
        """One pull request; `size` is zero right after creation, as GitHub counts in the background."""
        assert issue.pull is not None  # noqa: S101  routes look it up among pull requests
        return self.pull(repository, issue, role) | {
            "merged": False,
            "mergeable": None,
            "rebaseable": None,
            "mergeable_state": "draft" if issue.pull.draft else "unknown",
            "merged_by": None,
            "comments": len(issue.comments),
            "review_comments": 0,
            "maintainer_can_modify": False,
            "commits": issue.pull.commits,
            "additions": size.additions,
            "deletions": size.deletions,
            "changed_files": size.files,
        }

    def _pull_links(self, repository: Repository, issue: Issue) -> Json:
        page = self._page(repository, issue)
        return {
            "url": f"{self.repository_url(repository)}/pulls/{issue.number}",
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "merged_at": None,
        }

    def _head(self, repository: Repository, pull: Pull, role: Role) -> Json:
        return self._side(repository, pull.head, repository.sha(pull.head) or pull.head_sha, role)

    def _base(self, repository: Repository, pull: Pull, role: Role) -> Json:
        return self._side(repository, pull.base, repository.sha(pull.base) or pull.base_sha, role)

    def _side(self, repository: Repository, branch: str, sha: str, role: Role) -> Json:
        return {
            "label": f"{repository.owner.login}:{branch}",
            "ref": branch,
            "sha": sha,
            "user": self.user(repository.owner),
            "repo": self.repository(repository, role),
        }

    # Git ------------------------------------------------------------------------------------------

    def ref(self, repository: Repository, branch: str, sha: str) -> Json:
        url = self.repository_url(repository)
        return {
            "ref": f"refs/heads/{branch}",
            "node_id": _node_id("REF", f"{repository.id}:refs/heads/{branch}"),
            "url": f"{url}/git/refs/heads/{branch}",
            "object": {"sha": sha, "type": "commit", "url": f"{url}/git/commits/{sha}"},
        }

    def branch(self, repository: Repository, branch: str, commit: bare.Commit) -> Json:
        url = f"{self.repository_url(repository)}/branches/{branch}"
        page = f"{self.api_url}/{repository.full_name}/tree/{branch}"
        return {
            "name": branch,
            "commit": self._commit(repository, commit),
            "_links": {"self": url, "html": page},
            "protected": False,
            "protection": {
                "enabled": False,
                "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []},
            },
            "protection_url": f"{url}/protection",
        }

    def _commit(self, repository: Repository, commit: bare.Commit) -> Json:
        url = self.repository_url(repository)
        page = f"{self.api_url}/{repository.full_name}/commit"
        return {
            "sha": commit.sha,
            "node_id": _node_id("C", commit.sha),
            "commit": {
                "author": {
                    "name": commit.author_name,
                    "email": commit.author_email,
                    "date": commit.authored_at,
                },
                "committer": {
                    "name": commit.committer_name,
                    "email": commit.committer_email,
                    "date": commit.committed_at,
                },
                "message": commit.message,
                "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
                "url": f"{url}/git/commits/{commit.sha}",
                "comment_count": 0,
                "verification": {
                    "verified": False,
                    "reason": "unsigned",
                    "signature": None,
                    "payload": None,
                    "verified_at": None,
                },
            },
            "url": f"{url}/commits/{commit.sha}",
            "html_url": f"{page}/{commit.sha}",
            "comments_url": f"{url}/commits/{commit.sha}/comments",
            "author": None,
            "committer": None,
            "parents": [
                {"sha": sha, "url": f"{url}/commits/{sha}", "html_url": f"{page}/{sha}"}
                for sha in commit.parents
            ],
        }


def _permission_flags(role: Role) -> dict[str, bool]:
    return {
        "admin": role >= Role.ADMIN,
        "maintain": role >= Role.MAINTAIN,
        "push": role >= Role.WRITE,
        "triage": role >= Role.TRIAGE,
        "pull": role >= Role.READ,
    }
