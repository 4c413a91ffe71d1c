"""What the demo server does beyond single answers: caching, paging, limits, faults, rights, git."""

from __future__ import annotations

import base64
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from coordinator.demo import sample
from coordinator.demo.server import Fault, FaultKind, GitHubServer, secondary_limit

REPO = "octo/hello"
ISSUES = f"/repos/{REPO}/issues"
START = datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[GitHubServer]:
    with GitHubServer(git_root=tmp_path / "git", clock=clock) as server:
        server.add_repo(REPO, private=False, files={"README.md": "# Hello\n"})
        server.set_permission(REPO, "writer", "write")
        for login in ("octo", "writer", "reader"):
            server.add_token(f"{login}-token", login)
        yield server


@pytest.fixture
def client(server: GitHubServer) -> Iterator[httpx.Client]:
    with connect(server, "octo-token") as client:
        yield client


def connect(server: GitHubServer, token: str | None) -> httpx.Client:
    headers = {"Authorization": f"token {token}"} if token else {}
    # Plain HTTP on loopback: loading the certificates would cost more than the test.
    return httpx.Client(base_url=server.api_url, headers=headers, trust_env=False, timeout=10, verify=False)


# Conditional requests ---------------------------------------------------------------------------------


def test_an_unchanged_list_is_304_and_costs_nothing(server, client):
    server.add_issue(REPO, title="One")
    first = client.get(ISSUES)
    used = server.rate_used("octo")
    second = client.get(ISSUES, headers={"If-None-Match": first.headers["etag"]})
    assert (second.status_code, second.content) == (304, b"")
    assert server.rate_used("octo") == used
    assert second.headers["x-ratelimit-remaining"] == first.headers["x-ratelimit-remaining"]


def test_a_changed_list_is_200_with_another_etag(server, client):
    first = client.get(ISSUES)
    server.add_issue(REPO, title="One")
    second = client.get(ISSUES, headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]


def test_the_etag_belongs_to_the_token(server, client):
    etag = client.get(ISSUES).headers["etag"]
    with connect(server, "writer-token") as other:
        assert other.get(ISSUES, headers={"If-None-Match": etag}).status_code == 200


# Lists ------------------------------------------------------------------------------------------------


def test_labels_are_matched_all_together_and_without_case(server, client):
    both = server.add_issue(REPO, title="Both", labels=["Rpi-Auto", "bug"])
    server.add_issue(REPO, title="One", labels=["rpi-auto"])
    found = client.get(ISSUES, params={"labels": "RPI-AUTO,Bug"}).json()
    assert [issue["number"] for issue in found] == [both]


def test_the_list_of_issues_holds_pull_requests(server, client):
    server.push_branch(REPO, "auto/gh-1", {"a.txt": "a\n"})
    number = server.add_pull(REPO, head="auto/gh-1", labels=["rpi-auto"])
    found = client.get(ISSUES, params={"labels": "rpi-auto"}).json()
    assert [issue["number"] for issue in found if "pull_request" in issue] == [number]


def test_pages_are_linked_by_the_repositorys_number_and_never_longer_than_a_hundred(server, client):
    for number in range(101):
        server.add_issue(REPO, title=f"Issue {number}")
    query = {"per_page": "500", "sort": "created", "direction": "asc"}
    first = client.get(ISSUES, params=query)
    assert len(first.json()) == 100
    assert "/repositories/" in first.links["next"]["url"]
    second = client.get(first.links["next"]["url"])
    assert [issue["number"] for issue in second.json()] == [101]
    assert set(first.links) == {"next", "last"}
    assert set(second.links) == {"prev", "first"}


def test_one_page_has_no_link_header(server, client):
    server.add_issue(REPO, title="One")
    assert "link" not in client.get(ISSUES).headers


def test_issues_can_be_sorted_by_update(server, client, clock):
    first, second = (server.add_issue(REPO, title=title) for title in ("One", "Two"))
    clock.now += timedelta(minutes=1)
    server.edit_issue(REPO, first, title="Changed")
    newest_first = [issue["number"] for issue in client.get(ISSUES, params={"sort": "updated"}).json()]
    assert newest_first == [first, second]
    since = (START + timedelta(seconds=30)).isoformat()
    assert [issue["number"] for issue in client.get(ISSUES, params={"since": since}).json()] == [first]


# Events -----------------------------------------------------------------------------------------------


def test_labels_leave_events_that_say_who_did_it(server, client):
    number = server.add_issue(REPO, title="One", author="reader", labels=["rpi-auto"], labelled_by="writer")
    client.delete(f"{ISSUES}/{number}/labels/rpi-auto")
    events = client.get(f"{ISSUES}/{number}/events").json()
    assert [(event["event"], event["actor"]["login"]) for event in events] == [
        ("labeled", "writer"),
        ("unlabeled", "octo"),
    ]
    assert events[0]["label"]["name"] == "rpi-auto"
    assert events[0]["created_at"] == "2026-03-01T12:00:00Z"


def test_a_template_can_label_without_an_event(server):
    number = server.add_issue(REPO, title="One", labels=["rpi-auto"], label_events=False)
    assert server.issue(REPO, number).labels == ("rpi-auto",)
    assert server.events(REPO, number) == ()


def test_an_event_can_come_from_an_app_or_from_a_deleted_account(server, client):
    number = server.add_issue(REPO, title="One")
    server.add_label(REPO, number, "a", actor="writer", via_app="labeler")
    server.add_label(REPO, number, "b", actor=None)
    app, ghost = client.get(f"{ISSUES}/{number}/events").json()
    assert app["performed_via_github_app"]["slug"] == "labeler"
    assert ghost["actor"] is None


def test_closing_twice_leaves_one_event(server, client):
    number = server.add_issue(REPO, title="One")
    for _ in range(2):
        client.patch(f"{ISSUES}/{number}", json={"state": "closed", "state_reason": "not_planned"})
    assert [event.kind for event in server.events(REPO, number)] == ["closed"]
    assert server.issue(REPO, number).state_reason == "not_planned"


# Rights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "legacy", "name"),
    [
        ("admin", "admin", "admin"),
        ("maintain", "write", "maintain"),
        ("write", "write", "write"),
        ("triage", "read", "triage"),
        ("read", "read", "read"),
        ("none", "none", "none"),
    ],
)
def test_the_permission_endpoint_has_the_legacy_word_and_the_true_role(server, client, role, legacy, name):
    server.set_permission(REPO, "someone", role)
    answer = client.get(f"/repos/{REPO}/collaborators/someone/permission").json()
    assert (answer["permission"], answer["role_name"]) == (legacy, name)


def test_outsiders_can_read_public_repositories_and_nothing_of_private_ones(server, client):
    server.add_repo("octo/secret", private=True)
    ask = "/repos/{}/collaborators/reader/permission"
    assert client.get(ask.format(REPO)).json()["permission"] == "read"
    assert client.get(ask.format("octo/secret")).json()["permission"] == "none"


def test_an_app_has_no_permission_to_show(server, client):
    server.add_user("labeler[bot]", kind="Bot")
    assert client.get(f"/repos/{REPO}/collaborators/labeler%5Bbot%5D/permission").status_code == 404


def test_a_reader_can_open_an_issue_but_its_labels_are_dropped(server):
    with connect(server, "reader-token") as reader:
        made = reader.post(ISSUES, json={"title": "Mine", "labels": ["rpi-auto"]})
    assert made.status_code == 201
    assert made.json()["labels"] == []


def test_a_reader_can_write_neither_labels_nor_others_issues(server):
    number = server.add_issue(REPO, title="One")
    with connect(server, "reader-token") as reader:
        assert reader.post(f"{ISSUES}/{number}/labels", json=["bug"]).status_code == 403
        assert reader.patch(f"{ISSUES}/{number}", json={"state": "closed"}).status_code == 403
    assert server.issue(REPO, number).state == "open"


def test_a_revoked_token_is_401(server, client):
    assert client.get("/user").status_code == 200
    server.revoke_token("octo-token")
    assert client.get("/user").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"/repos/{REPO}/pulls/1/merge"),
        ("POST", f"/repos/{REPO}/pulls/1/reviews"),
        ("POST", f"/repos/{REPO}/pulls/1/reviews/7/events"),
        ("POST", f"/repos/{REPO}/merges"),
        ("POST", "/graphql"),
    ],
)
def test_merging_and_approving_are_refused_and_remembered(server, client, method, path):
    assert client.request(method, path, json={}).status_code == 405
    assert [request.path for request in server.forbidden_requests] == [path]


# Moves ------------------------------------------------------------------------------------------------


def test_a_renamed_repository_leads_on_with_the_query_kept(server, client):
    number = server.add_issue(REPO, title="One", labels=["rpi-auto"])
    server.rename_repo(REPO, "octo/renamed")
    answer = client.get(ISSUES, params={"labels": "rpi-auto"})
    assert answer.status_code == 301
    assert re.fullmatch(r".*/repositories/\d+/issues\?labels=rpi-auto", answer.headers["location"])
    assert [issue["number"] for issue in client.get(answer.headers["location"]).json()] == [number]
    assert client.post(ISSUES, json={"title": "x"}).status_code == 307


def test_a_transferred_issue_leads_to_its_new_place(server, client):
    server.add_repo("octo/other")
    old = server.add_issue(REPO, title="Moving")
    new = server.transfer_issue(REPO, old, "octo/other")
    answer = client.get(f"{ISSUES}/{old}", follow_redirects=True)
    assert answer.history[0].status_code == 301
    assert answer.json()["html_url"].endswith(f"/octo/other/issues/{new}")
    assert client.get(ISSUES).json() == []


# Limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 429])
def test_the_primary_limit_holds_until_its_reset(server, client, clock, status):
    server.set_rate_limit("octo", remaining=1, reset_in=60, status=status)
    assert client.get(ISSUES).status_code == 200
    refused = client.get(ISSUES)
    assert refused.status_code == status
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.headers["x-ratelimit-reset"] == str(int((START + timedelta(seconds=60)).timestamp()))
    clock.now += timedelta(seconds=61)
    assert client.get(ISSUES).status_code == 200


def test_asking_for_the_limit_is_free(server, client):
    before = client.get("/rate_limit").json()["rate"]
    assert client.get("/rate_limit").json()["rate"] == before


def test_each_account_has_its_own_limit(server, client):
    server.set_rate_limit("octo", remaining=0)
    with connect(server, "writer-token") as writer:
        assert writer.get(ISSUES).status_code == 200
    assert client.get(ISSUES).status_code == 403


@pytest.mark.parametrize("retry_after", [7, None])
def test_the_secondary_limit_may_or_may_not_say_how_long(server, client, retry_after):
    server.faults.add(secondary_limit("GET *", retry_after=retry_after))
    answer = client.get(ISSUES)
    assert answer.status_code == 403
    assert "secondary rate limit" in answer.json()["message"]
    assert answer.headers.get("retry-after") == (str(retry_after) if retry_after else None)
    assert int(answer.headers["x-ratelimit-remaining"]) > 0


# Faults -----------------------------------------------------------------------------------------------


def test_a_fault_hits_as_often_as_ordered_and_only_what_it_matches(server, client):
    fault = server.faults.add(Fault(match=f"GET {ISSUES}", status=502, times=2, skip=1))
    statuses = [client.get(ISSUES).status_code for _ in range(4)]
    assert statuses == [200, 502, 502, 200]
    assert client.get("/user").status_code == 200
    assert server.faults.hits(fault) == 2


def test_a_fault_can_be_meant_for_one_page(server, client):
    server.faults.add(Fault(match=f"GET {ISSUES}", query={"page": "2"}, status=500))
    assert client.get(ISSUES, params={"page": "1"}).status_code == 200
    assert client.get(ISSUES, params={"page": "2"}).status_code == 500


def test_truncated_json_has_status_200_and_cannot_be_read(server, client):
    server.add_issue(REPO, title="One")
    etag = client.get(ISSUES).headers["etag"]
    server.faults.add(Fault(match="GET *", kind=FaultKind.TRUNCATED_JSON))
    answer = client.get(ISSUES, headers={"If-None-Match": etag})
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"(?i)expecting|unterminated"):
        answer.json()


def test_html_with_status_200(server, client):
    server.faults.add(Fault(match="GET *", kind="html_200"))
    answer = client.get(ISSUES)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html"


def test_a_disconnect_happens_before_the_work_is_done(server, client):
    server.faults.add(Fault(match="POST *", kind=FaultKind.DISCONNECT))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(ISSUES, json={"title": "Lost"})
    assert client.get(ISSUES).json() == []


def test_a_timeout_ends_when_it_is_released(server, client):
    server.faults.add(Fault(match="GET *", kind=FaultKind.TIMEOUT))
    with pytest.raises(httpx.ReadTimeout):
        client.get(ISSUES, timeout=0.05)
    server.release()
    assert client.get(ISSUES).status_code == 200


@pytest.mark.parametrize("status", [502, 0])
def test_after_commit_does_the_work_and_hides_it(server, client, status):
    number = server.add_issue(REPO, title="One")
    server.faults.add(Fault(match="POST *", kind=FaultKind.AFTER_COMMIT, status=status))
    path = f"{ISSUES}/{number}/comments"
    if status:
        assert client.post(path, json={"body": "hi"}).status_code == status
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(path, json={"body": "hi"})
    assert [comment.body for comment in server.comments(REPO, number)] == ["hi"]
    assert server.requests[-1].status == status


# Watching ---------------------------------------------------------------------------------------------


def test_requests_are_recorded_with_who_asked_what_and_when(server, client):
    before = time.monotonic()
    client.get(ISSUES, params={"labels": "rpi-auto"}, headers={"X-Mine": "yes"})
    (request,) = server.requests_matching("GET /repos/*/issues")
    assert (request.login, request.status, request.query) == ("octo", 200, {"labels": "rpi-auto"})
    assert request.headers["x-mine"] == "yes"
    assert before <= request.at <= time.monotonic()
    server.clear_requests()
    assert server.requests == ()


def test_waiting_ends_with_the_request_that_is_waited_for(server):
    with connect(server, "octo-token") as client:
        thread = threading.Thread(target=client.get, args=("/user",))
        thread.start()
        assert server.wait_for(lambda: bool(server.requests_matching("GET /user")), 5)
        thread.join()


def test_waiting_in_vain_says_so(server):
    assert server.wait_for(lambda: False, 0.01) is False


def test_answers_carry_githubs_date_and_a_number_of_their_own(server, client):
    one, two = client.get("/user").headers, client.get("/user").headers
    assert one["date"] == "Sun, 01 Mar 2026 12:00:00 GMT"
    assert one["x-github-request-id"] != two["x-github-request-id"]


def test_many_threads_write_without_losing_anything(server):
    number = server.add_issue(REPO, title="One")

    def write(name: str) -> None:
        with connect(server, "octo-token") as client:
            for count in range(10):
                client.post(
                    f"{ISSUES}/{number}/comments", json={"body": f"{name} {count}"}
                ).raise_for_status()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    comments = server.comments(REPO, number)
    assert len({comment.id for comment in comments}) == len({comment.body for comment in comments}) == 40


def test_a_stopped_server_answers_no_more_and_can_be_stopped_again(server, client):
    assert client.get("/user").status_code == 200
    server.stop()
    server.stop()
    with pytest.raises(httpx.TransportError):
        client.get("/user")


def test_a_bug_in_the_server_is_raised_when_it_stops(tmp_path):
    server = GitHubServer(git_root=tmp_path).start()
    server.faults.add(Fault(match="GET *", kind="no such kind"))
    with connect(server, None) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/user")
    with pytest.raises(ValueError, match="no such kind"):
        server.stop()


# Git --------------------------------------------------------------------------------------------------


def git(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    identity = ["-c", "user.name=T", "-c", "user.email=t@localhost", "-c", "credential.helper="]
    environ = {"PATH": "/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(
        ["git", *identity, *args], cwd=cwd, capture_output=True, text=True, check=False, env=environ
    )


def with_token(token: str) -> tuple[str, str]:
    secret = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return "-c", f"http.extraHeader=Authorization: Basic {secret}"


@pytest.fixture
def work(server: GitHubServer, tmp_path: Path) -> Path:
    """A clone over HTTP with a commit on a branch."""
    assert git("clone", "-q", server.git_http_url(REPO), "work", cwd=tmp_path).returncode == 0
    tree = tmp_path / "work"
    assert (tree / "README.md").read_text() == "# Hello\n"
    (tree / "new.txt").write_text("new\n" * 3)
    for command in (("checkout", "-q", "-b", "auto/gh-1"), ("add", "."), ("commit", "-q", "-m", "New")):
        assert git(*command, cwd=tree).returncode == 0
    return tree


def test_a_push_over_http_needs_a_token_that_may_write(server, work):
    push = ("push", "-q", "origin", "auto/gh-1")
    assert git(*push, cwd=work).returncode != 0
    assert git(*with_token("no-such-token"), *push, cwd=work).returncode != 0
    refused = git(*with_token("reader-token"), *push, cwd=work)
    assert "403" in refused.stderr
    assert server.branch_sha(REPO, "auto/gh-1") is None
    allowed = git(*with_token("writer-token"), *push, cwd=work)
    assert allowed.returncode == 0, allowed.stderr
    assert server.branch_sha(REPO, "auto/gh-1") == git("rev-parse", "HEAD", cwd=work).stdout.strip()


def test_a_pushed_branch_can_become_a_draft_pull_request_that_counts_its_changes(server, client, work):
    assert git(*with_token("writer-token"), "push", "-q", "origin", "auto/gh-1", cwd=work).returncode == 0
    wanted = {"title": "T", "head": "auto/gh-1", "base": "main", "draft": True, "body": "Fixes #1"}
    made = client.post(f"/repos/{REPO}/pulls", json=wanted)
    assert made.status_code == 201
    assert made.json()["head"]["sha"] == server.branch_sha(REPO, "auto/gh-1")
    full = client.get(made.json()["url"]).json()
    assert (full["commits"], full["changed_files"], full["additions"]) == (1, 1, 3)
    (pull,) = server.pulls(REPO)
    assert (pull.draft, pull.head, pull.base) == (True, "auto/gh-1", "main")
    again = client.post(f"/repos/{REPO}/pulls", json=wanted)
    assert "already exists" in again.json()["errors"][0]["message"]


def test_a_forced_push_is_taken(server, work):
    push = (*with_token("writer-token"), "push", "-q", "--force", "origin", "auto/gh-1")
    assert git(*push, cwd=work).returncode == 0
    assert git("commit", "-q", "--amend", "-m", "Other", cwd=work).returncode == 0
    assert git(*push, cwd=work).returncode == 0
    assert server.branch_sha(REPO, "auto/gh-1") == git("rev-parse", "HEAD", cwd=work).stdout.strip()


def test_a_big_push_comes_in_chunks_and_arrives(server, work):
    (work / "big.txt").write_text("\n".join(str(number * 7919) for number in range(400_000)))
    assert git("add", ".", cwd=work).returncode == 0
    assert git("commit", "-q", "-m", "Big", cwd=work).returncode == 0
    pushed = git(
        *with_token("writer-token"), "-c", "core.compression=0", "push", "-q", "origin", "HEAD", cwd=work
    )
    assert pushed.returncode == 0, pushed.stderr
    chunked = [r for r in server.requests_matching("POST /git/*") if "transfer-encoding" in r.headers]
    assert chunked


def test_a_private_repository_is_not_there_for_others(server, tmp_path):
    server.add_repo("octo/secret", private=True)
    url = server.git_http_url("octo/secret")
    assert git("ls-remote", url, cwd=tmp_path).returncode != 0
    assert git(*with_token("reader-token"), "ls-remote", url, cwd=tmp_path).returncode != 0
    assert git(*with_token("octo-token"), "ls-remote", url, cwd=tmp_path).returncode == 0


def test_equal_files_make_equal_commits(server):
    server.add_repo("octo/a", files={"x.txt": "x\n"})
    server.add_repo("octo/b", files={"x.txt": "x\n"})
    assert server.branch_sha("octo/a", "main") == server.branch_sha("octo/b", "main")


# The sample -------------------------------------------------------------------------------------------


def test_the_sample_has_six_issues_labelled_by_somebody_who_may(server):
    numbers = sample.populate(server)
    assert len(numbers) == 6
    with connect(server, sample.TOKEN) as client:
        found = client.get(f"/repos/{sample.REPOSITORY}/issues", params={"labels": "rpi-auto"}).json()
        assert {issue["number"] for issue in found} == set(numbers.values())
        ask = f"/repos/{sample.REPOSITORY}/collaborators/{sample.MAINTAINER}/permission"
        assert client.get(ask).json()["permission"] == "write"
    last = server.events(sample.REPOSITORY, numbers["critical"])[-1]
    assert (last.kind, last.label, last.actor) == ("labeled", "rpi-auto", sample.MAINTAINER)
