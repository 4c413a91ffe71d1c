"""Whatever goes wrong on the way to GitHub and back: the right exception, never data, never twice."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from github_scripted import (
    LABEL,
    REPO,
    Reply,
    ScriptedServer,
    Shop,
    github_for,
    issue,
    numbers,
    repository,
    run,
    shop,
)

from adw_modules.errors import ConfigError, GitHubRefused, GitHubUnavailable
from coordinator.demo.server import Fault, FaultKind, secondary_limit
from coordinator.github import GitHub, Permission, Unchanged

MARKER = "<!-- coordinator:gh-1 -->"
ANYTHING = "* /*"
Question = Callable[[GitHub], Awaitable[Any]]

READS: dict[str, Question] = {
    "whoami": lambda github: github.whoami(),
    "poll": lambda github: github.poll(REPO, LABEL),
    "issue": lambda github: github.issue(REPO, 1),
    "trigger": lambda github: github.trigger(REPO, 1, LABEL),
    "permission": lambda github: github.permission(REPO, "ann"),
    "default_branch": lambda github: github.default_branch(REPO),
    "find_comment": lambda github: github.find_comment(REPO, 1, MARKER),
    "find_pull": lambda github: github.find_pull(REPO, "auto/gh-1"),
}
WRITES: dict[str, Question] = {
    "create_comment": lambda github: github.create_comment(REPO, 1, "text"),
    "edit_comment": lambda github: github.edit_comment(REPO, 1, "text"),
    "create_pull": lambda github: github.create_pull(
        REPO, branch="auto/gh-1", base="main", title="T", body="B"
    ),
    "add label": lambda github: github.set_status_label(REPO, 1, "coordinator:", "coordinator:running", ()),
    "remove label": lambda github: github.set_status_label(
        REPO, 1, "coordinator:", None, ["coordinator:done"]
    ),
}


def fault(status: int, body: str | None = None, headers: dict[str, str] | None = None) -> Fault:
    return Fault(match=ANYTHING, status=status, body=body, headers=headers or {}, times=None)


UNAVAILABLE = {
    "301 to nowhere": fault(301),
    "302": fault(302),
    "204": fault(204, ""),
    "403 secondary": secondary_limit(ANYTHING, times=None),
    "403 secondary without a time": secondary_limit(ANYTHING, retry_after=None, times=None),
    "429": fault(429),
    "429 with a time": fault(429, headers={"Retry-After": "30"}),
    "500": fault(500),
    "502": fault(502, "<html>Bad gateway</html>"),
    "503 with a time": fault(503, headers={"Retry-After": "30"}),
    "HTML with status 200": Fault(match=ANYTHING, kind=FaultKind.HTML_200, times=None),
    "HTML with status 201": fault(201, "<html></html>"),
    "truncated JSON": fault(200, '[{"id": 1, "number": 1, "title": "cut o'),
    "JSON of the wrong shape": fault(200, '{"message": "hello"}'),
    "disconnect": Fault(match=ANYTHING, kind=FaultKind.DISCONNECT, times=None),
}
TIME_OUT = Fault(match=ANYTHING, kind=FaultKind.TIMEOUT, times=None)
REFUSED = {
    "401": (fault(401, '{"message": "Bad credentials"}'), 401),
    "403": (fault(403, '{"message": "Must have admin rights to Repository."}'), 403),
    "404": (fault(404), 404),
    "410": (fault(410), 410),
    "422": (fault(422, '{"message": "Validation Failed", "errors": [{"code": "custom"}]}'), 422),
    "451": (fault(451, "not JSON"), 451),
}
# Where a status is an answer and not an error.
ANSWERS: dict[tuple[str, str], Any] = {
    ("permission", "404"): Permission(permission="none", role_name="none"),
    ("edit_comment", "404"): False,
    ("edit_comment", "410"): False,
    ("remove label", "404"): None,
    ("remove label", "204"): None,  # a removal has no content to check
    ("remove label", "HTML with status 200"): None,
    ("remove label", "truncated JSON"): None,
    ("remove label", "JSON of the wrong shape"): None,
}


async def outcome(question: Question, github: GitHub) -> Any:
    try:
        return await question(github)
    except (GitHubUnavailable, GitHubRefused) as error:
        return error


def known_shop(**options: Any) -> Any:
    """A shop whose repository is resolved, so that the fault hits the question itself."""
    return shop(timeout_seconds=1, writes_per_minute=0, **options)


async def settle(world: Shop) -> None:
    world.label_issues(1)
    await world.github.poll(REPO, LABEL)


def is_right(asked: str, name: str, result: Any) -> bool:
    if (asked, name) in ANSWERS:
        return bool(result == ANSWERS[asked, name])
    if name in REFUSED:
        return isinstance(result, GitHubRefused) and result.status == REFUSED[name][1]
    if name in ("301 to nowhere", "302") and (asked in WRITES or asked == "permission"):
        return isinstance(
            result, GitHubUnavailable | GitHubRefused
        )  # asked where to, and got no answer either
    return isinstance(result, GitHubUnavailable)


@pytest.mark.parametrize("name", [*UNAVAILABLE, *REFUSED])
def test_a_fault_becomes_the_right_exception_for_every_question_and_is_never_asked_again(name: str) -> None:
    with known_shop() as world:

        async def story() -> None:
            await settle(world)
            world.server.faults.add(UNAVAILABLE[name] if name in UNAVAILABLE else REFUSED[name][0])
            for asked, question in {**READS, **WRITES}.items():
                mark = world.count()
                result = await outcome(question, world.github)
                assert is_right(asked, name, result), (asked, result)
                sent = [(request.method, request.path) for request in world.requests_since(mark)]
                assert len(sent) == len(set(sent)) > 0, (asked, sent)
                world.clock.advance(7200)  # past any limit, so that the next question is asked at all

        run(story())


def test_a_list_that_was_cut_off_is_no_listing() -> None:
    with known_shop() as world:

        async def story() -> None:
            await settle(world)
            world.label_issues(3)
            world.server.faults.add(Fault(match=ANYTHING, kind=FaultKind.TRUNCATED_JSON))
            with pytest.raises(GitHubUnavailable, match="not JSON"):
                await world.github.poll(REPO, LABEL)
            assert numbers(await world.github.poll(REPO, LABEL)) == [1, 2, 3, 4]

        run(story())


@pytest.mark.parametrize("name", [*UNAVAILABLE, *REFUSED])
def test_after_any_fault_the_poll_goes_on_from_where_it_was(name: str) -> None:
    with known_shop() as world:

        async def story() -> None:
            await settle(world)
            world.server.faults.add(UNAVAILABLE[name] if name in UNAVAILABLE else REFUSED[name][0])
            with pytest.raises((GitHubUnavailable, GitHubRefused)):
                await world.github.poll(REPO, LABEL)
            world.server.faults.clear()
            world.clock.advance(3601)
            assert await world.github.poll(REPO, LABEL) == Unchanged()
            world.label_issues(1)
            assert numbers(await world.github.poll(REPO, LABEL)) == [1, 2]

        run(story())


def test_silence_ends_after_the_time_out_and_a_write_is_not_repeated() -> None:
    with known_shop() as world:

        async def story() -> None:
            await settle(world)
            world.server.faults.add(TIME_OUT)
            mark = world.count()
            answers = [outcome(READS["poll"], world.github), outcome(WRITES["create_comment"], world.github)]
            assert all(isinstance(each, GitHubUnavailable) for each in await asyncio.gather(*answers))
            assert sorted(request.method for request in world.requests_since(mark)) == ["GET", "POST"]
            world.server.faults.clear()
            assert await world.github.poll(REPO, LABEL) == Unchanged()

        run(story())


@pytest.mark.parametrize("status", [502, 500, 0])
def test_a_comment_whose_answer_was_lost_is_found_and_exists_once(status: int) -> None:
    with known_shop() as world:
        match = f"POST /repos/{REPO}/issues/1/comments"
        world.server.faults.add(Fault(match=match, kind=FaultKind.AFTER_COMMIT, status=status))

        async def story() -> None:
            await settle(world)
            with pytest.raises(GitHubUnavailable):
                await world.github.create_comment(REPO, 1, f"{MARKER}\nhello")
            found = await world.github.find_comment(REPO, 1, MARKER)
            assert [comment.id for comment in world.server.comments(REPO, 1)] == [found]

        run(story())


def test_a_write_that_was_redirected_is_carried_out_once_under_the_new_name() -> None:
    with known_shop() as world:

        async def story() -> None:
            await settle(world)
            world.server.rename_repo(REPO, "acme/store")
            comment = await world.github.create_comment(REPO, 1, "text")
            assert [each.id for each in world.server.comments("acme/store", 1)] == [comment]

        run(story())


def test_a_redirected_write_that_leads_nowhere_is_refused_and_not_taken_for_success() -> None:
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "POST /repos/acme/shop/issues/1/comments": Reply(
            307, {"message": "Temporary Redirect"}, {"Location": "/x"}
        ),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)
        with pytest.raises(GitHubRefused) as caught:
            run(github.create_comment(REPO, 1, "text"))
        github.close()
        assert caught.value.status == 307
        assert sum(request.method == "POST" for request in server.requests) == 1


@pytest.mark.parametrize("body", [None, {}, {"id": None}, {"id": "5"}, {"id": True}, [], "text"])
def test_a_creation_without_an_id_is_not_a_success(body: Any) -> None:
    with ScriptedServer({"POST /repos/acme/shop/issues/1/comments": Reply(201, body)}) as server:
        github = github_for(server.url)
        with pytest.raises(GitHubUnavailable):
            run(github.create_comment(REPO, 1, "text"))
        github.close()


def test_a_label_that_is_not_on_the_issue_afterwards_is_not_a_success() -> None:
    with ScriptedServer({"POST /repos/acme/shop/issues/1/labels": Reply(200, [{"name": "bug"}])}) as server:
        github = github_for(server.url)
        with pytest.raises(GitHubUnavailable):
            run(github.set_status_label(REPO, 1, "coordinator:", "coordinator:running", ()))
        github.close()


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "connection refused"), ("nosuchhost.invalid", "name not known")]
)
def test_no_server_and_no_such_host_are_unavailable_in_one_short_sentence(host: str, reason: str) -> None:
    url = f"http://{host}:{_closed_port()}"
    github = github_for(url, timeout_seconds=1, writes_per_minute=0)

    async def story() -> None:
        for question in (*READS.values(), *WRITES.values()):
            result = await outcome(question, github)
            assert isinstance(result, GitHubUnavailable)
            assert str(result) == f"GitHub cannot be reached at {url}: {reason}"

    run(story())
    github.close()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (TIME_OUT, "no answer within 1 s"),
        (UNAVAILABLE["disconnect"], "the connection was cut"),
    ],
    ids=["time-out", "disconnect"],
)
def test_a_server_that_goes_silent_or_away_is_one_short_sentence(harm: Fault, reason: str) -> None:
    with known_shop() as world:
        world.server.faults.add(harm)
        result = run(outcome(READS["whoami"], world.github))
        assert isinstance(result, GitHubUnavailable)
        assert str(result) == f"GitHub cannot be reached at {world.server.api_url}: {reason}"


def test_an_answer_that_breaks_off_is_one_short_sentence() -> None:
    def half_an_answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    with _talking(half_an_answer) as port:
        url = f"http://127.0.0.1:{port}"
        assert _said_of_no_answer(url) == f"GitHub cannot be reached at {url}: the answer broke off"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_server_whose_certificate_nobody_knows_is_one_short_sentence(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def shake_hands(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client hangs up
            context.wrap_socket(connection, server_side=True).close()

    with _talking(shake_hands) as port:
        url = f"https://127.0.0.1:{port}"
        assert _said_of_no_answer(url) == (
            f"GitHub cannot be reached at {url}: its certificate is not trusted (self-signed certificate)"
        )


def _said_of_no_answer(url: str) -> str:
    github = github_for(url)
    result = run(outcome(READS["whoami"], github))
    github.close()
    assert isinstance(result, GitHubUnavailable)
    return str(result)


@contextlib.contextmanager
def _talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server for one connection; its port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(10)


@pytest.mark.parametrize("name", ["301 to nowhere", "302"])
def test_a_strange_redirect_is_told_without_the_names_of_classes(name: str) -> None:
    with known_shop() as world:
        world.server.faults.add(UNAVAILABLE[name])
        result = run(outcome(READS["whoami"], world.github))
        assert isinstance(result, GitHubUnavailable)
        assert str(result).startswith("GET /user: ")
        assert not re.search(r"Error|Exception|0x|object at", str(result))


@pytest.mark.parametrize("url", ["ftp://example.invalid", "api.github.com", ""])
def test_an_address_that_is_none_is_the_operators_to_mend(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        github_for(url)


def test_one_broken_repository_does_not_stop_another() -> None:
    with known_shop() as world:
        world.server.add_repo("acme/till", private=False)
        world.server.add_issue("acme/till", title="Works", labels=[LABEL])
        world.server.faults.add(Fault(match=f"GET /repos/{REPO}*", status=500, times=None))

        async def story() -> None:
            with pytest.raises(GitHubUnavailable):
                await world.github.poll(REPO, LABEL)
            assert numbers(await world.github.poll("acme/till", LABEL)) == [1]

        run(story())


def test_an_empty_token_is_the_operators_to_mend_and_the_token_is_in_no_message() -> None:
    with pytest.raises(ConfigError):
        GitHub(api_url="http://127.0.0.1:1", token="", now=lambda: pytest.fail("nothing to ask the time for"))
    secret = "ghp_secret_0123456789"
    with ScriptedServer({"GET /user": Reply(401, {"message": "Bad credentials"})}) as server:
        github = GitHub(api_url=server.url, token=secret, now=lambda: pytest.fail("no limit, no time"))
        with pytest.raises(GitHubRefused) as caught:
            run(github.whoami())
        github.close()
        assert server.requests[0].headers["authorization"] == f"token {secret}"
    assert secret not in str(caught.value)


def test_a_closed_connection_says_so() -> None:
    with ScriptedServer() as server:
        github = github_for(server.url)
        github.close()
        with pytest.raises(GitHubUnavailable, match="closed"):
            run(github.whoami())


def test_private_texts_are_not_logged_even_when_the_log_is_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    script = {
        "GET /repos/acme/shop": Reply(200, repository()),
        "GET /repos/acme/shop/issues/1": Reply(200, issue(1, body="a private text")),
    }
    with ScriptedServer(script) as server:
        github = github_for(server.url)
        run(github.issue(REPO, 1))
        github.close()
    assert "a private text" not in caplog.text
