"""A token is for one repository, ends, is made again in time, and is seen nowhere (rule 11)."""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from github_app import (
    KEY_ENV,
    SLUG,
    Installed,
    everything_written,
    install,
    key,
    private_pem,
    public_pem,
    use_app,
)
from world import REPO, WRITE, Clock, World

from adw_modules.config import GitHubAppSettings
from adw_modules.errors import ConfigError, GitHubRefused, GitHubUnavailable
from coordinator.demo.server import Fault, GitHubServer
from coordinator.github import PERMISSIONS, AppAccess, GitHub, Listing, Unchanged, load_app
from coordinator.logs import Redactor

OTHER = "octo/other"
TOKENS = "POST /app/installations/*/access_tokens"


class Scene:
    """A server with two private repositories, an App on them, and a client that speaks as the App."""

    def __init__(self, root: Path, *on: str, **installed: dict[str, str]) -> None:
        self.server_clock, self.clock = Clock(), Clock()
        self.server = GitHubServer(git_root=root, clock=self.server_clock).start()
        for name in (REPO, OTHER):
            self.server.add_repo(name, private=True)
        self.installed: Installed = install(self.server, *on, **installed)
        self.learned: list[str] = []
        self.github = self.client()

    def client(self, **access) -> GitHub:
        given = {
            "issuer": str(self.installed.app.id),
            "key": key(),
            "pem": private_pem(),
            "home": REPO,
        }
        return GitHub(
            api_url=self.server.api_url,
            app=AppAccess(**{**given, **access}),
            learn=lambda _name, secret: self.learned.append(secret),
            writes_per_minute=0,
            now=self.clock,
        )

    def made(self) -> list[dict]:
        """What each token was asked for with."""
        return [request.json for request in self.server.requests_matching(TOKENS)]

    def poll(self) -> Listing | Unchanged:
        return asyncio.run(self.github.poll(REPO, "rpi-auto"))

    def close(self) -> None:
        self.github.close()
        self.server.stop()


@pytest.fixture
def a_scene(tmp_path):
    made = []

    def make(*on: str, **options) -> Scene:
        made.append(Scene(tmp_path / f"git-{len(made)}", *on, **options))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(a_scene) -> Scene:
    return a_scene(REPO, OTHER)


# A token of one repository on another


def ask(scene: Scene, token: str, method: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(
        base_url=scene.server.api_url, headers=headers, trust_env=False, verify=False
    ) as client:
        return client.request(method, path, json={"body": "x", "title": "x"}).status_code


def test_the_token_of_one_repository_finds_nothing_in_another(scene):
    token = scene.github.secret(REPO)
    scene.server.add_repo("octo/public", private=False)

    assert ask(scene, token, "GET", f"/repos/{REPO}/issues") == 200
    assert ask(scene, token, "GET", f"/repos/{OTHER}/issues") == 404
    assert ask(scene, token, "POST", f"/repos/{OTHER}/issues") == 404
    assert ask(scene, token, "POST", "/repos/octo/public/issues") == 403


def test_each_repository_has_a_token_that_was_asked_for_it_alone_and_for_four_permissions(scene):
    assert scene.github.secret(REPO) != scene.github.secret(OTHER)
    assert [set(wish) for wish in scene.made()] == [{"repositories", "permissions"}] * 2
    assert [wish["repositories"] for wish in scene.made()] == [["hello"], ["other"]]
    assert scene.made()[0]["permissions"] == {
        "contents": "write",
        "issues": "write",
        "metadata": "read",
        "pull_requests": "write",
    }


@pytest.mark.parametrize(
    "widened",
    [
        {"repositories": []},
        {"repositories": None, "repository_selection": "all"},
        {"repositories": [{"id": 1, "full_name": REPO}, {"id": 2, "full_name": OTHER}]},
        {"repositories": [{"id": 2, "full_name": OTHER}]},
    ],
    ids=["nothing is said", "all", "two", "another"],
)
def test_a_token_that_reaches_more_than_its_repository_is_not_used(scene, widened):
    body = {
        "token": "ghs_too_wide",
        "expires_at": "2099-01-01T00:00:00Z",
        "permissions": dict(PERMISSIONS),
        **widened,
    }
    scene.server.faults.add(Fault(match=TOKENS, status=201, body=body))
    with pytest.raises(GitHubUnavailable, match="it is not used"):
        scene.github.secret(REPO)
    assert not [each for each in scene.server.requests if "too_wide" in str(each.headers)]


def test_after_a_renaming_the_token_is_asked_for_by_number(scene):
    scene.github.secret(REPO)
    scene.server.rename_repo(REPO, "octo/renamed")
    scene.clock.advance(3600)
    scene.server_clock.advance(3600)

    assert isinstance(scene.poll(), Listing)
    assert list(scene.made()[-1]) == ["repository_ids", "permissions"]


# Time


def test_a_token_is_used_until_five_minutes_before_its_end(scene):
    first = scene.github.secret(REPO)
    for clock in (scene.clock, scene.server_clock):
        clock.advance(3600 - 320)
    assert scene.github.secret(REPO) == first
    for clock in (scene.clock, scene.server_clock):
        clock.advance(40)
    assert scene.github.secret(REPO) != first
    assert len(scene.made()) == 2


def test_a_token_that_cannot_be_renewed_is_used_to_its_end(scene):
    first = scene.github.secret(REPO)
    scene.server.faults.add(Fault(match=TOKENS, status=502, times=None))
    for clock in (scene.clock, scene.server_clock):
        clock.advance(3600 - 200)
    assert scene.github.secret(REPO) == first
    for clock in (scene.clock, scene.server_clock):
        clock.advance(220)
    with pytest.raises(GitHubUnavailable, match="502"):
        scene.github.secret(REPO)


@pytest.mark.parametrize("hours", [-30.0, -0.5, 0.5, 30.0])
def test_a_clock_that_is_off_by_any_amount_still_gets_a_token_of_the_right_length(scene, hours):
    scene.clock.advance(hours * 3600)
    first = scene.github.secret(REPO)
    assert isinstance(scene.poll(), Listing)
    assert scene.github.secret(REPO) == first, "it is not renewed for each request"

    for clock in (scene.clock, scene.server_clock):
        clock.advance(3600 - 200)
    assert scene.github.secret(REPO) != first


def test_a_clock_that_is_set_back_does_not_make_a_token_last_longer(scene):
    first = scene.github.secret(REPO)
    scene.clock.advance(-7200)
    scene.github.clock_was_set_back(timedelta(seconds=-7200))
    for clock in (scene.clock, scene.server_clock):
        clock.advance(3600 - 200)
    assert scene.github.secret(REPO) != first


# Revoked, suspended, removed


def test_a_revoked_token_is_replaced_once_and_the_request_sent_again(scene):
    scene.poll()
    scene.server.end_installation_tokens(scene.installed.number)
    for clock in (scene.clock, scene.server_clock):
        clock.advance(60)

    assert isinstance(scene.poll(), Listing)
    listings = scene.server.requests_matching(f"GET /repos/{REPO}/issues")
    assert [each.status for each in listings] == [200, 401, 200]
    assert len(scene.made()) == 2


def test_a_write_that_was_refused_for_its_token_is_made_once(scene):
    number = scene.server.add_issue(REPO, title="x")
    scene.poll()
    scene.server.end_installation_tokens(scene.installed.number)
    scene.clock.advance(60)
    asyncio.run(scene.github.create_comment(REPO, number, "hello"))
    assert [comment.body for comment in scene.server.comments(REPO, number)] == ["hello"]


def test_a_token_that_is_refused_although_it_was_just_made_is_not_replaced_again_and_again(scene):
    fault = scene.server.faults.add(
        Fault(match=f"GET /repos/{REPO}", status=401, body={"message": "Bad credentials"}, times=None)
    )
    for _ in range(5):
        with pytest.raises(GitHubUnavailable, match="just made"):
            scene.poll()
    assert scene.server.faults.hits(fault) == 5
    assert len(scene.made()) == 1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("suspended", "suspended"),
        ("removed", "install it there"),
        ("other repositories", "install it there"),
        ("fewer permissions", "has to include this repository and to grant"),
    ],
)
def test_what_an_installation_lost_is_one_sentence_and_never_reads_as_an_issue_that_is_gone(
    a_scene, what, said
):
    scene = a_scene(*([OTHER] if what == "other repositories" else [REPO]))
    number = scene.installed.number
    if what == "suspended":
        scene.server.suspend_installation(number)
    if what == "removed":
        scene.server.remove_installation(number)
    if what == "fewer permissions":
        scene.server.grant_installation(number, {"metadata": "read", "issues": "write"})
    for question in (scene.github.poll(REPO, "rpi-auto"), scene.github.issue(REPO, 1)):
        with pytest.raises(GitHubRefused, match=said) as caught:
            asyncio.run(question)
        assert caught.value.status == 403
        assert "\n" not in str(caught.value)


def test_many_that_wait_for_a_refused_token_are_one_request_and_later_it_is_asked_again(scene):
    scene.server.suspend_installation(scene.installed.number)
    for _ in range(10):
        with pytest.raises(GitHubRefused):
            scene.poll()
    assert len(scene.made()) == 1

    scene.server.suspend_installation(scene.installed.number, suspended=False)
    scene.clock.advance(11)
    assert isinstance(scene.poll(), Listing)


def test_an_app_that_was_installed_anew_is_found_under_its_new_number(scene):
    scene.poll()
    scene.server.remove_installation(scene.installed.number)
    scene.server.install_app(SLUG, "octo")
    for clock in (scene.clock, scene.server_clock):
        clock.advance(60)
    assert isinstance(scene.poll(), Listing)


# Concurrency, ETags, limits


def test_twenty_requests_at_once_are_one_request_for_a_token(scene):
    with ThreadPoolExecutor(20) as threads:
        found = set(threads.map(lambda _: scene.github.secret(REPO), range(20)))
    assert len(found) == 1
    assert len(scene.made()) == 1


def test_an_etag_is_sent_only_with_the_token_it_came_to(scene):
    scene.poll()
    assert isinstance(scene.poll(), Unchanged)
    for clock in (scene.clock, scene.server_clock):
        clock.advance(3600)
    assert isinstance(scene.poll(), Listing)
    sent = ["if-none-match" in e.headers for e in scene.server.requests_matching(f"GET /repos/{REPO}/issues")]
    assert sent == [False, True, False]


def test_an_installation_that_has_spent_its_quota_holds_up_no_other(a_scene):
    scene = a_scene(REPO)
    scene.server.add_repo("elsewhere/thing", private=True)
    scene.server.install_app(SLUG, "elsewhere")
    limit = Fault(
        match=f"GET /repos/{REPO}/issues",
        status=403,
        headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4102444800"},
        body={"message": "API rate limit exceeded"},
    )
    scene.server.faults.add(limit)
    with pytest.raises(GitHubUnavailable, match="rate limit"):
        scene.poll()
    before = len(scene.server.requests)
    with pytest.raises(GitHubUnavailable, match="no request before"):
        scene.poll()
    assert len(scene.server.requests) == before

    assert isinstance(asyncio.run(scene.github.poll("elsewhere/thing", "rpi-auto")), Listing)
    assert f"installation {scene.installed.number}" in scene.github.ledger.reason


# Who we are


def test_only_the_apps_own_comments_count_as_ours(scene):
    number = scene.server.add_issue(REPO, title="x")
    scene.server.add_comment(REPO, number, "<!-- mark --> a quote", author="octo")
    scene.server.add_comment(REPO, number, "<!-- mark --> by a look-alike", author=f"{SLUG}-bot")
    assert asyncio.run(scene.github.find_comment(REPO, number, "<!-- mark -->")) is None

    ours = asyncio.run(scene.github.create_comment(REPO, number, "<!-- mark --> ours"))
    assert asyncio.run(scene.github.find_comment(REPO, number, "<!-- mark -->")) == ours
    assert asyncio.run(scene.github.whoami()).user_id == scene.installed.app.bot_id


def test_the_signature_of_another_key_is_refused_with_a_sentence(scene):
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    github = scene.client(key=stranger)
    with pytest.raises(GitHubRefused, match=r"does not take the signature of the App .*private key"):
        asyncio.run(github.poll(REPO, "rpi-auto"))
    github.close()


# The key


def encrypted() -> str:
    return key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")).decode()


def elliptic() -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


UNUSABLE = {
    "encrypted": (encrypted, "is encrypted with a passphrase: take it off"),
    "another kind of key": (elliptic, "is not an RSA key of 2048 bits or more"),
    "the public half": (public_pem, "is not a private key in PEM form"),
    "half a key": (lambda: private_pem()[:700], "is not a private key in PEM form"),
    "something else": (lambda: "hello", "is not a private key in PEM form"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_key_that_cannot_be_used_is_one_sentence_without_the_key(tmp_path, name):
    content, sentence = UNUSABLE[name]
    settings = GitHubAppSettings(app_id=1, private_key_env=KEY_ENV)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_app(settings, {KEY_ENV: content()}, root=tmp_path)
    assert len(caught.value.problems) == 1
    assert "MII" not in str(caught.value)


def test_a_key_in_one_line_is_as_good_as_the_file(tmp_path):
    file = tmp_path / "app.pem"
    file.write_text(private_pem())
    file.chmod(0o600)
    in_line = {KEY_ENV: private_pem().replace("\n", "\\n")}
    for settings in (
        GitHubAppSettings(app_id=1, private_key_env=KEY_ENV),
        GitHubAppSettings(client_id="Iv23liABCDEF01234567", private_key_file="app.pem"),
    ):
        access = load_app(settings, in_line, root=tmp_path)
        assert access is not None
        assert access.key.private_numbers() == key().private_numbers()
        assert "MII" not in repr(access)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path, mode):
    file = tmp_path / "app.pem"
    file.write_text(private_pem())
    file.chmod(mode)
    settings = GitHubAppSettings(app_id=1, private_key_file=str(file))
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        load_app(settings, {}, root=tmp_path)
    assert load_app(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, root=tmp_path) is not None


@pytest.mark.parametrize("place", ["missing", "folder", "fifo"])
def test_a_key_file_that_is_none_is_refused_at_once(tmp_path, place):
    import os

    path = tmp_path / "app.pem"
    if place == "folder":
        path.mkdir()
    if place == "fifo":
        os.mkfifo(path)
    settings = GitHubAppSettings(app_id=1, private_key_file="app.pem")
    with pytest.raises(ConfigError, match=r"no such file|is not a key file"):
        load_app(settings, {}, root=tmp_path)


@pytest.mark.parametrize(
    ("settings", "environ", "sentence"),
    [
        ({"private_key_env": KEY_ENV}, {KEY_ENV: "hello"}, "is not a private key in PEM form"),
        ({"private_key_env": KEY_ENV}, {}, f"names {KEY_ENV}, which is not set"),
        ({"private_key_file": "nowhere.pem"}, {}, "cannot be read: no such file"),
    ],
    ids=["wrong", "not set", "no file"],
)
def test_the_daemon_ends_with_one_sentence_and_78_when_it_has_no_usable_key(
    a_world, settings, environ, sentence
):
    world: World = a_world()
    world.config["github"].pop("token_env")
    world.config["github.app"] = {"app_id": 7, **settings}
    world.environ |= environ
    world.write_config()
    world.start_process()
    assert world.process is not None
    code = world.process.wait(timeout=15)
    world.process = None
    said = (world.folder / "daemon.stderr").read_text()
    assert code == 78
    assert said.count("\n") == 1
    assert sentence in said


# The whole way


def test_an_issue_becomes_a_pull_request_with_the_apps_tokens_and_no_token_is_left_anywhere(a_world):
    world: World = a_world()
    world.server.add_repo(OTHER, private=True)
    installed = install(world.server)
    use_app(world, installed)
    number = world.issue(WRITE, "[[agent: slow 1]]")
    world.server.set_token_lifetime(3600)
    world.start()
    world.until_working(number)
    world.server.end_installation_tokens(installed.number)  # in the middle of the run
    world.clock.advance(3600)  # and over by our clock: the push needs another
    world.until_state(number, "succeeded")

    assert [pull.author for pull in world.server.pulls(REPO)] == [installed.app.bot]
    assert {comment.author for comment in world.server.comments(REPO, number)} == {installed.app.bot}
    pushes = world.server.requests_matching("POST /git/*/git-receive-pack")
    assert [push.status for push in pushes] == [200]

    tokens = [
        each.headers["authorization"].split()[1]
        for each in world.server.requests
        if "authorization" in each.headers
    ]
    secrets = {token for token in tokens if token.startswith("ghs_")}
    assert len(secrets) >= 2
    written = everything_written(world.state_dir) + world.log_stream.getvalue()
    mirror = world.state_dir / "repos" / f"{REPO}.git"
    configured = subprocess.run(
        ["git", "config", "--list", "--show-origin"], cwd=mirror, capture_output=True, text=True, check=True
    ).stdout
    for secret in secrets:
        assert secret not in written
        assert secret not in configured
    assert "ghs_" not in written
    assert "eC1hY2Nlc3MtdG9rZW4" not in written + configured  # x-access-token, as git's header spells it
    assert not [each for each in world.server.requests if "ghs_" in each.path + str(each.query)]


def test_doctor_says_which_app_it_is_and_what_it_lacks(a_world):
    world: World = a_world(repositories=[{"owner": "octo", "name": "other"}])
    world.server.add_repo(OTHER, private=True)
    installed = install(world.server, REPO, permissions={"metadata": "read", "issues": "write"})
    use_app(world, installed)
    findings = doctor(world)

    assert any(f"the GitHub App {SLUG}" in each for each in findings)
    (mine,) = [each for each in findings if each.startswith(f"{REPO}: ")]
    assert "contents: write, pull_requests: write" in mine
    (other,) = [each for each in findings if OTHER in each]
    assert "has no access to octo/other" in other
    world.server.grant_installation(installed.number, dict(PERMISSIONS))
    assert any(f"{REPO}: a token for it alone may write" in each for each in doctor(world))


def doctor(world: World) -> list[str]:
    from coordinator.cli.doctor import _github
    from coordinator.settings import SettingsSource

    loaded = SettingsSource(world.path, world.environ).current
    return [finding.text for finding in _github(loaded, world.environ)]


def test_a_token_and_an_app_at_once_are_refused(a_world):
    world: World = a_world()
    world.config["github.app"] = {"app_id": 7, "private_key_env": KEY_ENV}
    world.write_config()
    with pytest.raises(ConfigError, match="either with a token or as an App"):
        doctor(world)


# What the log knows


def test_the_redactor_knows_each_new_token_and_forgets_long_dead_ones():
    redactor = Redactor(["the-key-of-a-provider"])
    for number in range(100):
        redactor.learn_passing("octo/hello", f"ghs_token_number_{number:03}")
    shown = redactor.text("ghs_token_number_099 ghs_token_number_098 the-key-of-a-provider")
    assert shown == "[redacted] [redacted] [redacted]"
    assert len(redactor._secrets) < 60
