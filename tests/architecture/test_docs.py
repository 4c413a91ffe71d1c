"""The documents say what the code does: tables, words, commands, links and files are compared with it."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main

from adw_modules import errors
from adw_modules.config import Settings
from adw_modules.errors import CoordinatorError, GitHubRefused
from adw_modules.tasks.lifecycle import Event, diagram
from adw_modules.tasks.model import FailureClass, Outcome, RunOutcome, TaskState
from adw_modules.tasks.report import status_label
from adw_modules.tasks.retries import BACKOFF, after_run
from coordinator import cli
from coordinator.cli.verbs import app
from coordinator.store import StatePaths
from tests.builders import a_task

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "systemd" / "README.md"])
FOLDERS = ("adw_modules", "adws", "bench", "coordinator", "docs", "systemd", "tests", "tools")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has them
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def section(page: str, heading: str) -> str:
    found = re.search(
        rf"^## {re.escape(heading)}.*?$(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page} has no section {heading}"
    return found[1]


def rows(page: str, heading: str) -> dict[str, tuple[str, ...]]:
    """The table of a section: the word in backticks that begins a row -> the other cells."""
    lines = re.findall(r"^\| `([^`]+)`(?:, [^|]*)? \| (.*) \|$", section(page, heading), re.MULTILINE)
    return {word: tuple(cell.strip() for cell in cells.split(" | ")) for word, cells in lines}


def each_page(pages=PAGES):
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


# The life of a task


def test_the_diagram_is_the_one_the_table_draws():
    shown = re.search(
        r"<!-- diagram: begin -->\n```mermaid\n(.*?)\n```\n<!-- diagram: end -->",
        text_of("docs/lifecycle.md"),
        re.DOTALL,
    )
    assert shown is not None
    assert shown[1] == diagram()


@pytest.mark.parametrize(
    ("heading", "words"),
    [("States", TaskState), ("Events", Event), ("Outcomes", Outcome), ("Failure classes", FailureClass)],
)
def test_every_word_of_the_lifecycle_has_its_row_and_no_other_has_one(heading, words):
    assert sorted(rows("docs/lifecycle.md", heading)) == sorted(word.value for word in words)


def verdict_after(outcome: Outcome, attempts: int):
    failure_class = FailureClass.EXIT_CODE if outcome is Outcome.FAILED else None
    ended = RunOutcome(outcome=outcome, detail="it ended", failure_class=failure_class)
    task = a_task(state=TaskState.RUNNING, attempts=attempts)
    return after_run(task, ended, policy=Settings().retries, max_attempts=3, now=NOW)


@pytest.mark.parametrize("outcome", Outcome)
def test_what_follows_an_outcome_is_documented_as_it_is(outcome):
    _, then, counts, _ = rows("docs/lifecycle.md", "Outcomes")[outcome.value]
    first, last = verdict_after(outcome, 1), verdict_after(outcome, 3)
    expected = f"`{first.state}`" + (
        f"; at the limit `{last.state}`" if first.state is not last.state else ""
    )
    assert then == expected
    assert counts == ("yes" if first.attempts == 1 else "no")


def test_the_wait_of_each_failure_class_is_documented_as_it_is():
    documented = {
        word: cells[-1].split(":")[0] for word, cells in rows("docs/lifecycle.md", "Failure classes").items()
    }
    assert documented == {failure_class.value: backoff.value for failure_class, backoff in BACKOFF.items()}


def test_the_waits_and_limits_in_numbers_are_the_defaults():
    page, defaults = text_of("docs/lifecycle.md"), Settings()
    for words, value in (
        (r"`retries.base_delay_seconds` \((\d+) s\)", defaults.retries.base_delay_seconds),
        (r"`retries.factor` \((\d+)\)", defaults.retries.factor),
        (
            r"`retries.fast_exit_base_delay_seconds` \((\d+) s\)",
            defaults.retries.fast_exit_base_delay_seconds,
        ),
        (r"`retries.fast_exit_seconds` \((\d+) s\)", defaults.retries.fast_exit_seconds),
        (r"`coordinator.max_attempts` \(default\s(\d+)\)", defaults.coordinator.max_attempts),
        (r"`coordinator.max_runs_per_issue` \(default\s(\d+)\)", defaults.coordinator.max_runs_per_issue),
    ):
        found = re.search(words, page)
        assert found is not None, words
        assert float(found[1]) == value, words


def test_operators_find_every_failure_class_and_every_bad_outcome_in_what_if():
    known = set(
        re.findall(
            r"`(\w+)`",
            "\n".join(re.findall(r"^\| (.*?) \|", section("docs/operations.md", "What if"), re.MULTILINE)),
        )
    )
    harmless = {
        Outcome.SUCCEEDED,
        Outcome.FAILED,
        Outcome.CANCELLED,
        Outcome.INTERRUPTED,
        Outcome.NEVER_STARTED,
    }
    wanted = {*FailureClass, *(set(Outcome) - harmless)}
    assert {word.value for word in wanted} <= known


# Errors, logs, files, keys


def every_error(kind: type[CoordinatorError] = CoordinatorError) -> list[type[CoordinatorError]]:
    return [
        kind,
        *(
            inner
            for child in kind.__subclasses__()
            if child.__module__ == errors.__name__
            for inner in every_error(child)
        ),
    ]


def test_every_exception_is_documented_with_the_exit_code_it_has():
    documented = {name: int(cells[-1]) for name, cells in rows("docs/architecture.md", "Errors").items()}
    made = {
        kind.__name__: kind("it", status=404) if kind is GitHubRefused else kind("it")
        for kind in every_error()
    }
    assert documented == {name: cli.exit_code(error) for name, error in made.items()}


def test_every_log_line_that_operators_are_told_to_tail_for_is_written_somewhere():
    source = "\n".join(
        file.read_text()
        for package in ("coordinator", "adw_modules")
        for file in (ROOT / package).rglob("*.py")
    )
    first_cells = re.findall(
        r"^\| (`.*?) \|", section("docs/operations.md", "Lines to tail for"), re.MULTILINE
    )
    events = [
        event.removesuffix(" …")
        for cell in first_cells
        for event in re.findall(r"`([^`]+)`", cell)
        if event != "event"
    ]
    assert len(events) > 20
    assert [event for event in events if event not in source] == []


def test_every_place_in_the_state_directory_is_documented():
    page = section("docs/architecture.md", "The state directory")
    places = [value.name for name, value in vars(StatePaths(Path("/state"))).items() if name != "root"]
    assert len(places) >= 8
    assert [place for place in places if f"`{place}" not in page] == []


def test_every_status_label_is_documented():
    page = section("docs/github.md", "Labels")
    assert [state for state in TaskState if f":{status_label(state, '')}`" not in page] == []


@each_page()
def test_every_key_of_the_configuration_that_a_page_names_exists(page):
    named = re.findall(
        r"`(coordinator|retries|github)\.(?!(?:db|json|jsonl|service|py)`)(\w+)`", page.read_text()
    )
    wrong = [".".join(key) for key in named if key[1] not in type(getattr(Settings(), key[0])).model_fields]
    assert wrong == []


# Commands


def shown_commands(page: Path) -> list[str]:
    """`coordinator …` in code: spans, and lines of shell blocks."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    candidates = [line.split("#")[0].strip() for line in blocks.splitlines()] + spans
    found = (re.search(r"(?:^|/bin/|\s)coordinator ((?:[a-z]|--).*)", each) for each in candidates)
    return [match[1] for match in found if match and not re.match(r"\S+ (install|enable|daemon)", match[0])]


def options_of(command) -> set[str]:
    """Those of a verb; of a group of verbs, those of all of them."""
    own = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    verbs = getattr(command, "commands", {}).values()
    return own.union({"--help"}, *(options_of(verb) for verb in verbs))


@each_page()
def test_every_command_on_a_page_exists_with_its_options(page):
    wrong = []
    for command in shown_commands(page):
        verb, *rest = command.split()
        known = options_of(COMMANDS[verb]) if verb in COMMANDS else None
        if known is None and verb not in ("-f", "--help", "--version", "starts"):
            wrong.append(command)
        wrong += [
            command for word in rest if known and word.startswith("-") and word.split("=")[0] not in known
        ]
    assert wrong == []


def test_the_readme_shows_commands():
    assert len(shown_commands(ROOT / "README.md")) > 8


@pytest.mark.skipif(not (ROOT / "docs" / "cli.md").exists(), reason="there is no docs/cli.md")
@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_is_documented_with_all_its_options(verb):
    page = text_of("docs/cli.md")
    assert re.search(rf"coordinator {verb}\b", page)
    missing = [
        option for option in options_of(COMMANDS[verb]) if option.startswith("--") and option not in page
    ]
    assert missing == []


@each_page()
def test_every_make_target_on_a_page_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)", page.read_text()) + re.findall(
        r"^make ([a-z-]+)", page.read_text(), re.MULTILINE
    )
    assert set(named) <= targets


def test_the_service_is_not_restarted_for_the_exit_code_of_a_bad_configuration():
    unit = text_of("systemd/coordinator.service")
    assert f"RestartPreventExitStatus={cli.EXIT_OK} {cli.EXIT_CONFIG}\n" in unit
    assert "KillMode=process\n" in unit
    verb, option, _ = re.search(r"^ExecStart=\S+/coordinator (.*)$", unit, re.MULTILINE)[1].split()
    assert option in options_of(COMMANDS[verb])


# Pages


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page()
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        file = (page.parent / target).resolve() if target else page
        is_there = file.exists()
        if not is_there or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@each_page()
def test_no_page_names_a_file_that_does_not_exist(page):
    pattern = rf"`(?:\./)?((?:{'|'.join(FOLDERS)})/[\w./-]+)`"
    missing = [name for name in re.findall(pattern, page.read_text()) if not (ROOT / name).exists()]
    assert missing == []


def test_the_tests_that_pages_name_exist():
    """Above all those of the failures of others, in docs/routing.md."""
    named = {
        (name, test)
        for page in PAGES
        for name, test in re.findall(r"`(?:tests/)?(\w+/test_\w+\.py)::(test_\w+)`", page.read_text())
    }
    texts = {name: text_of(f"tests/{name}") for name, _ in named}
    assert len(named) > 30
    assert [f"{name}::{test}" for name, test in sorted(named) if f"def {test}(" not in texts[name]] == []


def test_each_property_of_routing_is_proven_by_named_tests():
    proven = re.findall(
        r"^\| (.+?) \| (.+) \|$", section("docs/routing.md", "What is proven where"), re.MULTILINE
    )
    assert len(proven) > 15
    assert [what for what, tests in proven[1:] if "::test_" not in tests] == []


def test_every_decision_is_in_the_index_under_a_number_of_its_own():
    folder = ROOT / "docs" / "decisions"
    records = {file.name for file in folder.glob("[0-9]*.md")}
    index = re.findall(
        r"^\| \[(\d{4})\]\((\1-[\w-]+\.md)\) \|", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert {name for _, name in index} == records
    numbers = [name[:4] for name in sorted(records)]
    assert numbers == [f"{number:04}" for number in range(1, len(records) + 1)]


def test_the_changelog_has_the_current_version():
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\]", text_of("CHANGELOG.md"), re.MULTILINE)


def test_the_first_pages_stay_short():
    assert len(text_of("README.md").splitlines()) <= 95
    assert len(text_of("AGENTS.md").splitlines()) < 100


def test_the_agent_programs_that_are_run_for_real_have_the_versions_that_npm_installs():
    pinned = json.loads((ROOT / "tests" / "npm" / "package.json").read_text())["devDependencies"]
    rows = re.findall(
        r"^\|[^|]+\| `([^`]+)` (\d\S*) \|", (ROOT / "docs" / "agents.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == {name: version for name, version in pinned.items() if name != "emulate"}
