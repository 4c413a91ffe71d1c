"""docs/cli.md names every verb, option and exit code there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from coordinator import cli

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
VERBS = get_command(cli.app).commands


def section(verb: str) -> str:
    """The part under the heading that names the verb."""
    found = [part for part in DOCS.split("\n## ") if verb in part.partition("\n")[0].split(", ")]
    assert len(found) == 1, f"{verb} has no section"
    return found[0]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_documented(verb: str) -> None:
    text = section(verb)
    options = {name for parameter in VERBS[verb].params for name in parameter.opts if name.startswith("--")}
    assert {name for name in options - {"--help"} if name not in text} == set()


def test_every_exit_code_is_documented() -> None:
    codes = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert codes == {0, 1, 2, 70, 75, 78, 130}
    assert {code for code in codes if f"| {code} |" not in section("Exit codes")} == set()
