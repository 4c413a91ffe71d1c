"""`coordinator providers probe` of each real agent CLI: every question, with what is known of the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_clis import environment, installed, write_config
from stub_llm import StubLLM

from adw_modules.agents import DIALECTS
from coordinator import probing
from coordinator.clock import utc_now
from coordinator.settings import SettingsSource

pytestmark = pytest.mark.agents

ALL_WELL = {
    "sandbox": True,
    "starts": True,
    "edits a file": True,
    "reports usage": True,
    "honours the model": True,
    "fails with an exit code": True,
    "ends on empty input": True,
    "dies with its group": True,
}
# None: it works, with something to look at.
DIFFERS: dict[str, dict[str, bool | None]] = {
    "claude": {},
    "codex": {"honours the model": None},  # names no model
    "gemini": {},
    "qwen": {},
    "opencode": {"honours the model": None, "reports usage": None},  # names none; its numbers are added up
    "copilot": {},
}


@pytest.mark.parametrize("name", DIFFERS)
def test_a_probe_answers_every_question_about_the_program(name: str, stub: StubLLM, tmp_path: Path) -> None:
    cli = installed(name)
    url = stub.url(run="job")
    probe = probing.probe(
        SettingsSource(write_config(tmp_path, cli, url, sandbox="bubblewrap")).current,
        name,
        model=cli.model,
        environ=environment(cli, tmp_path / "home"),
        timeout=60,
        now=utc_now(),
        tell=lambda _answer: None,
    )

    answers = {answer.question: answer.ok for answer in probe.answers}
    # A signal that comes when the work is done is no answer, and the stub is as fast as that.
    late = [answer.question for answer in probe.answers if answer.seen.startswith("it was done before")]
    stopping = f"ends on {DIALECTS[name].stop_signal}"
    answers.pop("network", None)  # what it asks for besides its model: telemetry, updates
    expected = ALL_WELL | {stopping: True} | DIFFERS[name] | dict.fromkeys(late)
    if late:
        del expected["dies with its group"]
    assert answers == expected
    assert probe.is_fine
    assert cli.billed_as in stub.billed_by_model("job")
    assert probing.NO_SUCH_MODEL not in stub.billed_by_model("job")
