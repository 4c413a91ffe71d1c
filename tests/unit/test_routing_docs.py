"""docs/routing.md says what is so: a TOML block is a configuration, a Python block runs on the last one."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from adw_modules.config import parse_settings
from adw_modules.providers import ProviderManager
from adw_modules.routing import ModelRouter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "routing.md"
FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    """Each Python block with the configuration above it and the line it begins on."""
    page = PAGE.read_text(encoding="utf-8")
    config = ""
    for fence in FENCE.finditer(page):
        line = page.count("\n", 0, fence.start()) + 1
        if fence["kind"] == "toml":
            config = fence["body"]
        elif fence["kind"] == "python":
            yield pytest.param(config, fence["body"], line, id=f"line-{line}")


@pytest.mark.parametrize(("config", "code", "line"), [*examples()])
def test_an_example_prints_what_the_page_shows(config, code, line):
    settings = parse_settings(config, source=f"{PAGE.name}:{line}")
    names = {"config": settings, "ModelRouter": ModelRouter, "ProviderManager": ProviderManager, "Path": Path}
    test = doctest.DocTestParser().get_doctest(code, names, f"line {line}", PAGE.name, line)
    assert test.examples, "a Python block without >>> shows nothing"
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert results.failed == 0, "".join(report)


def test_every_configuration_on_the_page_is_used_by_an_example():
    kinds = [fence["kind"] for fence in FENCE.finditer(PAGE.read_text(encoding="utf-8"))]
    assert kinds.count("toml") >= 6
    for position, kind in enumerate(kinds):
        if kind == "toml":
            assert kinds[position + 1] == "python", f"block {position + 1}"


def test_the_grammar_on_the_page_is_the_grammar_of_the_parser():
    import adw_modules.routing.expressions as parser

    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    rules = [line.strip() for line in parser.__doc__.splitlines() if line.startswith("    ")]
    assert len(rules) == 6
    for rule in rules:
        assert " ".join(rule.split()) in page
