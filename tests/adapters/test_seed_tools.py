"""tools/show-providers.py and tools/show-routing.py as programs: their text, their options, how they end."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seed_config import BASIC_SETUP, RULES

PROJECT = Path(__file__).resolve().parents[2]
TOOLS = PROJECT / "tools"
SCRIPTS = ["show-providers.py", "show-routing.py"]

CONFIG = BASIC_SETUP + RULES
WITHOUT_RULES = BASIC_SETUP

PROVIDERS_TEXT = """
======================================================================
🔌 Configured AI Providers
======================================================================

Provider Status:
  ✓ claude-cli
  ✗ openrouter           (OPENROUTER_API_KEY not set)

======================================================================
Available Providers:
  ✓ claude-cli

Current default:
  Provider: claude-cli
  Model: claude-sonnet-4-5
======================================================================
"""

ROUTING_TEXT = """
======================================================================
🧠 Model Routing Configuration
======================================================================

Router enabled: False
Default: claude-cli/claude-sonnet-4-5

Routing Rules (priority order):
  [100] critical-issues-opus
      Conditions: {'priority': 'critical'}
      Target: claude-cli/claude-opus-4
  [95] retry-use-haiku
      Conditions: {'retry_count': {'gte': 1}}
      Target: claude-cli/claude-haiku-4
  [90] high-priority-sonnet
      Conditions: {'priority': ['high', 'normal']}
      Target: claude-cli/claude-sonnet-4-5
  [70] off-hours-haiku
      Conditions: {'hour_range': [0, 8]}
      Target: claude-cli/claude-haiku-4
  [60] docs-haiku
      Conditions: {'labels': ['documentation', 'docs']}
      Target: claude-cli/claude-haiku-4

======================================================================
ROUTING DECISION TESTS
======================================================================

Scenario: Critical security issue
  Attrs: {'priority': 'critical', 'labels': ['security'], 'retry_count': 0}
  → Routed to: claude-cli / claude-opus-4

Scenario: Documentation update
  Attrs: {'priority': 'low', 'labels': ['documentation'], 'retry_count': 0}
  → Routed to: claude-cli / claude-haiku-4

Scenario: First retry of a bug fix
  Attrs: {'priority': 'normal', 'labels': ['bug'], 'retry_count': 1}
  → Routed to: claude-cli / claude-haiku-4

Scenario: Ordinary feature
  Attrs: {'priority': 'normal', 'labels': ['enhancement'], 'retry_count': 0}
  → Routed to: claude-cli / claude-sonnet-4-5

Scenario: Low priority at night
  Attrs: {'priority': 'low', 'labels': [], 'retry_count': 0, 'hour': 3}
  → Routed to: claude-cli / claude-haiku-4
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the configuration of the first documents and a `claude` on PATH."""
    (tmp_path / "adws").mkdir()
    (tmp_path / "adws/config.toml").write_text(CONFIG)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/claude").touch(mode=0o700)
    return tmp_path


def run(script, *options, cwd, python=(sys.executable,), environ=()):
    path = f"{cwd / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [*python, str(script), *map(str, options)],
        cwd=cwd,
        env={"PATH": path, "LANG": "C.UTF-8", **dict(environ)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def show(project, name, *options, environ=()):
    return run(TOOLS / name, "--config", project / "adws/config.toml", *options, cwd=project, environ=environ)


# -- what they print ------------------------------------------------------------------------------------


def test_show_providers_prints_what_the_first_documents_show(project):
    result = show(project, "show-providers.py")
    assert (result.stdout, result.stderr, result.returncode) == (PROVIDERS_TEXT, "", 0)


@pytest.mark.parametrize("options", [[], ["--at", "12:00"], ["--at", "03:30"]])
def test_show_routing_prints_what_the_first_documents_show_at_any_hour(project, options):
    result = show(project, "show-routing.py", *options)
    assert (result.stdout, result.stderr, result.returncode) == (ROUTING_TEXT, "", 0)


def test_a_provider_becomes_available_with_its_key_and_program(project):
    missing = show(project, "show-providers.py", environ={"OPENROUTER_API_KEY": "sk-x"})
    assert "\n  ✗ openrouter           (tools/openrouter-cli.py not found)\n" in missing.stdout
    (project / "tools").mkdir()
    (project / "tools/openrouter-cli.py").touch(mode=0o600)
    unusable = show(project, "show-providers.py", environ={"OPENROUTER_API_KEY": "sk-x"})
    assert "\n  ✗ openrouter           (tools/openrouter-cli.py is not executable)\n" in unusable.stdout
    (project / "tools/openrouter-cli.py").chmod(0o700)
    usable = show(project, "show-providers.py", environ={"OPENROUTER_API_KEY": "sk-x"})
    assert "Provider Status:\n  ✓ claude-cli\n  ✓ openrouter\n" in usable.stdout
    assert "Available Providers:\n  ✓ claude-cli\n  ✓ openrouter\n" in usable.stdout
    assert "sk-x" not in missing.stdout + unusable.stdout + usable.stdout


def test_show_providers_says_so_when_none_can_be_used(project):
    (project / "bin/claude").chmod(0o600)
    text = CONFIG.replace('"claude",', '"claude-for-this-test",')
    (project / "adws/config.toml").write_text(text)
    result = show(project, "show-providers.py")
    assert "  ✗ claude-cli           (claude-for-this-test not found on PATH)\n" in result.stdout
    assert "Available Providers:\n  (none)\n" in result.stdout


def test_show_routing_shows_rules_without_conditions_and_with_text(project):
    selection = 'condition = "priority == 3"\ntarget = { select = "cheapest", provider = "openrouter" }\n'
    rules = ['condition = "priority == 0"\nmodel = "a"\n', 'provider = "openrouter"\n', selection]
    text = WITHOUT_RULES + "".join(f"[[routing.rules]]\n{rule}" for rule in rules)
    (project / "adws/config.toml").write_text(text)
    result = show(project, "show-routing.py")
    assert result.stderr == ""
    assert (
        "  [50] rule-1\n      Conditions: priority == 0\n      Target: claude-cli/a\n"
        "  [50] rule-2\n      Conditions: always\n      Target: openrouter/claude-sonnet-4-5\n"
        "  [50] rule-3\n      Conditions: priority == 3\n      Target: selected: cheapest\n"
    ) in result.stdout
    assert "→ Routed to: openrouter / claude-sonnet-4-5" in result.stdout


def test_show_routing_says_so_when_there_are_no_rules(project):
    (project / "adws/config.toml").write_text(WITHOUT_RULES)
    assert "Routing Rules (priority order):\n  (none)\n" in show(project, "show-routing.py").stdout


def test_json_has_the_facts_behind_the_text(project):
    providers = json.loads(show(project, "show-providers.py", "--json").stdout)
    assert providers == {
        "providers": [
            {"name": "claude-cli", "available": True, "reason": None, "program": str(project / "bin/claude")},
            {
                "name": "openrouter",
                "available": False,
                "reason": "OPENROUTER_API_KEY not set",
                "program": None,
            },
        ],
        "available": ["claude-cli"],
        "default": {"provider": "claude-cli", "model": "claude-sonnet-4-5"},
    }
    routing = json.loads(show(project, "show-routing.py", "--json", "--at", "12:00").stdout)
    assert routing["enabled"] is False
    assert routing["rules"][1] == {
        "name": "retry-use-haiku",
        "priority": 95,
        "conditions": {"retry_count": {"gte": 1}},
        "provider": "claude-cli",
        "model": "claude-haiku-4",
        "reason": None,
    }
    assert routing["scenarios"][1]["rule"] == "docs-haiku"
    assert routing["scenarios"][1]["trace"][-2:] == [
        {"rule": "off-hours-haiku", "matched": False, "why": "hour_range = [0, 8] (hour is 12)"},
        {"rule": "docs-haiku", "matched": True, "why": "labels = ['documentation', 'docs']"},
    ]


def test_at_sets_the_hour_but_not_for_a_scenario_with_its_own(project):
    night = json.loads(show(project, "show-routing.py", "--json", "--at", "07:59").stdout)["scenarios"]
    assert [scenario["rule"] for scenario in night][1:] == [
        "off-hours-haiku",
        "retry-use-haiku",
        "high-priority-sonnet",
        "off-hours-haiku",
    ]
    noon = json.loads(show(project, "show-routing.py", "--json", "--at", "08:00").stdout)["scenarios"]
    assert noon[1]["rule"] == "docs-haiku"
    assert noon[4]["rule"] == "off-hours-haiku"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_terminal_without_unicode_is_no_error(project, script):
    result = show(project, script, environ={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("\n" + "=" * 70 + "\n? ")


# -- how they end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_configuration_that_cannot_be_used_is_one_sentence_and_exit_78(project, script):
    (project / "adws/config.toml").write_text('[llm]\nprovidr = "claude-cli"\n')
    result = show(project, script)
    assert (result.returncode, result.stdout) == (78, "")
    assert "providr" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_configuration_is_one_sentence_and_exit_78(project, script):
    result = run(TOOLS / script, "--config", project / "none.toml", cwd=project)
    assert (result.returncode, result.stdout) == (78, "")
    assert "none.toml" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["--no-such-option"], ["--at", "25:00"], ["--at", "noon"]])
def test_an_option_that_makes_no_sense_is_exit_2(project, options):
    result = show(project, "show-routing.py", *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: show-routing.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_reader_that_goes_away_is_no_error(project, script):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, str(TOOLS / script), "--config", str(project / "adws/config.toml")]
    with os.fdopen(write_end, "wb") as closed:
        result = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


# -- how they get to the right Python -------------------------------------------------------------------


@pytest.fixture
def checkout(project):
    """A copy of the scripts beside links to the packages, as a fresh clone has them: without .venv."""
    shutil.copytree(TOOLS, project / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("adw_modules", "coordinator"):
        (project / package).symlink_to(PROJECT / package)
    return project


def bare_python():
    """The interpreter behind ours, seeing nothing but the standard library."""
    return (str(Path(sys.executable).resolve()), "-S")


def make_venv(root):
    """What `make setup` leaves, by links to the environment the tests run in."""
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", root / ".venv/pyvenv.cfg")
    (root / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")


@pytest.mark.parametrize("script", SCRIPTS)
def test_before_set_up_one_sentence_says_what_to_do(checkout, script):
    result = run(checkout / "tools" / script, cwd=checkout, python=bare_python())
    sentence = f'Coordinator is not set up here: run "make setup" once in {checkout}.\n'
    assert (result.returncode, result.stdout, result.stderr) == (69, "", sentence)


def test_after_set_up_they_start_again_with_the_project_s_python(checkout):
    make_venv(checkout)
    result = run(checkout / "tools/show-providers.py", cwd=checkout, python=bare_python())
    assert (result.returncode, result.stderr) == (0, "")
    assert "  ✓ claude-cli\n" in result.stdout
    routing = run(
        checkout / "tools/show-routing.py", "--at", "12:00", cwd=checkout.parent, python=bare_python()
    )
    assert (routing.stdout, routing.stderr) == (ROUTING_TEXT, "")


@pytest.mark.parametrize("script", ["cost-report.py", "check-openrouter-models.py"])
def test_a_python_that_has_some_of_our_packages_is_not_taken_for_the_project_s(checkout, script):
    (checkout / "tools/pydantic.py").write_text("")
    result = run(checkout / "tools" / script, "--help", cwd=checkout, python=bare_python())
    assert (result.returncode, result.stderr) == (
        69,
        f'Coordinator is not set up here: run "make setup" once in {checkout}.\n',
    )


def test_they_run_as_programs_with_nothing_activated(checkout):
    make_venv(checkout)
    (checkout / "bin/python3").symlink_to(Path(sys.executable).resolve())
    result = run("./tools/show-providers.py", cwd=checkout, python=())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("\n" + "=" * 70 + "\n🔌")


def test_an_incomplete_set_up_does_not_start_itself_for_ever(checkout):
    make_venv(checkout)
    (checkout / ".venv/lib").unlink()
    result = run(checkout / "tools/show-providers.py", cwd=checkout, python=bare_python())
    assert (result.returncode, result.stdout) == (69, "")
    assert result.stderr.startswith("Coordinator cannot start (No module named 'pydantic")
    assert result.stderr.endswith(f'run "make setup" in {checkout}.\n')


@pytest.mark.parametrize("script", [*SCRIPTS, "_bootstrap.py"])
def test_an_old_python_can_read_them_far_enough_to_say_what_to_do(script):
    tree = ast.parse((TOOLS / script).read_text(), feature_version=(3, 6))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert "__future__" not in [node.module for node in imports]
    # Evaluated at definition in old versions, so `X | None` would be a traceback there.
    unions = [
        node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
    ]
    assert unions == []
