"""Probing a provider: each thing that can be wrong with a program, as a program that has it."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adw_modules.health import HealthKind
from coordinator import cli, probing, shim
from coordinator.settings import SettingsSource

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MODEL = "model-a"

AGENT = """\
import json, os, pathlib, signal, subprocess, sys, time

faults = set(os.environ.get("FAULTS", "").split())
model = sys.argv[1]
if "never-starts" in faults:
    sys.exit("no login: run the login command first")

def say(**record):
    print(json.dumps(record), flush=True)

def end(code, is_error=False):
    if "silent" not in faults:
        used = {"other-model" if "other-model" in faults else model:
            {"inputTokens": 7, "outputTokens": 3, "cacheReadInputTokens": 5, "cacheCreationInputTokens": 0}}
        say(type="result", subtype="success", is_error=is_error, num_turns=1, result="done",
            api_error_status=404 if is_error else None, duration_api_ms=5,
            modelUsage={} if is_error else used)
    sys.exit(code)

if "deaf" in faults:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
else:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
prompt = sys.stdin.read()
if not prompt:
    if "waits" in faults:
        time.sleep(60)
    sys.exit("no prompt")
# Before the first word: the probe may end the program as soon as it has said one.
if "orphan" in faults:
    subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
if "silent" not in faults:
    say(type="system", subtype="init", session_id="s", model=model)
else:
    print("working", flush=True)
if model == "coordinator-no-such-model" and "any-model" not in faults:
    end(0 if "exit-0" in faults else 1, is_error=True)
word = prompt.rsplit(":", 1)[1].split()[0]
if word == "stop":
    time.sleep(60)
while "floods" in faults:
    print("x" * 100_000)
if "huge" in faults:
    with open("PROBE.md", "wb") as file:
        file.truncate(1 << 40)
elif "idle" not in faults:
    pathlib.Path("PROBE.md").write_text(word + "\\n")
if "never-ends" in faults:
    time.sleep(60)
end(0)
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A configuration whose only provider is the program above."""
    program = tmp_path / "agent.py"
    program.write_text(AGENT)
    config = tmp_path / "adws" / "config.toml"
    config.parent.mkdir()
    template = json.dumps([sys.executable, str(program), "{model}"])
    config.write_text(
        f'[llm]\nprovider = "mine"\nmodel_default = "{MODEL}"\n'
        f'[providers.mine]\nagent = "claude"\ncommand_template = {template}\npass_env = ["FAULTS"]\n'
        '[sandbox]\nmode = "off"\n'  # programs are looked at from the outside; with one: tests/security
    )
    return config


def probed(config: Path, *faults: str, timeout: float = 20) -> probing.Probe:
    return probing.probe(
        SettingsSource(config).current,
        "mine",
        model=MODEL,
        environ={"PATH": os.environ["PATH"], "FAULTS": " ".join(faults)},
        timeout=timeout,
        now=NOW,
        tell=lambda _answer: None,
    )


def seen(probe: probing.Probe) -> dict[str, bool | None]:
    return {answer.question: answer.ok for answer in probe.answers}


ALL_WELL = {
    "sandbox": None,
    "starts": True,
    "edits a file": True,
    "reports usage": True,
    "honours the model": True,
    "fails with an exit code": True,
    "ends on empty input": True,
    "ends on SIGINT": True,
    "dies with its group": True,
}


def test_a_program_that_does_everything_right_passes_every_question(project):
    probe = probed(project)
    assert seen(probe) == ALL_WELL
    assert probe.is_fine
    assert probe.health is not None
    assert (probe.health.kind, probe.health.is_probe) == (HealthKind.OK, True)


@pytest.mark.parametrize(
    ("fault", "differs"),
    [
        ("idle", {"edits a file": False}),
        ("huge", {"edits a file": False}),
        ("silent", {"reports usage": False, "honours the model": None}),
        ("other-model", {"honours the model": False}),  # although its first record names the right one
        ("exit-0", {"fails with an exit code": None}),
        (
            "exit-0 silent",
            {"reports usage": False, "honours the model": None, "fails with an exit code": False},
        ),
        ("any-model", {"fails with an exit code": None}),
        ("orphan", {"dies with its group": None}),
    ],
)
def test_each_fault_is_seen_and_nothing_else(project, fault, differs):
    assert seen(probed(project, *fault.split())) == ALL_WELL | differs


def test_a_program_that_never_starts_is_asked_nothing_more(project):
    probe = probed(project, "never-starts")
    assert seen(probe) == {"sandbox": None, "starts": False}
    assert "no login" in probe.answers[1].seen
    assert probe.health is None, "it says nothing about the provider"


def test_a_program_that_prints_without_end_is_ended_long_before_its_time(project):
    answers = seen(probed(project, "floods", timeout=600))
    assert answers["ends by itself"] is False


def test_a_program_that_waits_for_more_input_is_ended_and_told(project):
    probe = probed(project, "waits", timeout=3)
    assert seen(probe) == ALL_WELL | {"ends on empty input": False}


def test_a_program_that_never_ends_is_ended_and_told(project):
    probe = probed(project, "never-ends", timeout=3)
    wrong = {question for question, ok in seen(probe).items() if ok is False}
    assert wrong == {"ends by itself", "reports usage"}


def test_nothing_of_a_probe_is_left_running_or_lying_about(project, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {process.pid for process in shim.process_table()}
    probed(project, "orphan")
    mine = [
        process.pid
        for process in shim.process_table()
        if process.pid not in before and b"FAULTS=orphan" in environ_of(process.pid)
    ]
    assert mine == []
    assert list(tmp_path.glob("coordinator-probe-*")) == []


def environ_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


# -- the verb ---------------------------------------------------------------------------------------


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def test_the_verb_shows_the_answers_and_doctor_the_last_ones(project, monkeypatch):
    monkeypatch.setenv("FAULTS", "idle")
    done = run("providers", "probe", "mine", "--config", str(project))
    assert done.exit_code == 1
    assert "✗ edits a file" in done.output
    report = run("doctor", "--config", str(project)).output
    assert "edits a file: PROBE.md was not written" in report
    kept = SettingsSource(project).current.state_dir / "probes" / "mine.json"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_the_verb_prints_json_for_programs(project):
    done = run("providers", "probe", "mine", "--json", "--config", str(project))
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert (data["provider"], data["model"], data["fine"]) == ("mine", MODEL, True)
    assert {answer["question"] for answer in data["answers"]} == set(ALL_WELL)


def test_a_provider_nobody_configured_is_one_sentence(project):
    done = run("providers", "probe", "yours", "--config", str(project))
    assert done.exit_code == 1
    assert str(done.exception) == "There is no provider 'yours'; configured are mine."


def test_a_file_that_is_no_probe_is_no_last_probe(tmp_path):
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "mine.json").write_text('{"provider": "mine", "answers": [1]}')
    assert probing.last(tmp_path, "mine") is None
