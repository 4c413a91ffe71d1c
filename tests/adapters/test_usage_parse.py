"""`coordinator usage parse` on recorded streams and on other files; what a run wrote beside its output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adw_modules.agents import DIALECTS
from adw_modules.config import Settings, parse_settings
from adw_modules.errors import CoordinatorError
from adw_modules.providers import ProviderManager
from adw_modules.tasks.model import ModelUsage, UsageSource
from coordinator import cli
from coordinator.environment import worker_environment
from coordinator.output import RunOutput, side_chunks
from tests.seed_config import BASIC_SETUP

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
COUNTS = ("input", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "output", "reasoning")
KEYS = {"agent", *COUNTS, "source", "models", "cost_usd"}


def parse(*arguments: object, stdin: bytes = b""):
    done = CliRunner().invoke(cli.app, ["usage", "parse", *map(str, arguments)], input=stdin)
    code = cli.exit_code(done.exception) if isinstance(done.exception, CoordinatorError) else done.exit_code
    said = str(done.exception) if isinstance(done.exception, CoordinatorError) else done.stderr.strip()
    return code, done.stdout, said


def parsed(*arguments: object, stdin: bytes = b"") -> dict:
    code, out, said = parse(*arguments, "--json", stdin=stdin)
    assert (code, said) == (0, "")
    return json.loads(out)


# --- the verb ---------------------------------------------------------------------------------------------


def test_the_tokens_of_a_recorded_stream_as_json():
    found = parsed("--agent", "claude", SAMPLES / "claude" / "success.jsonl")
    counts = dict(zip(COUNTS, (2400, 1600, 600, 600, 0, 300, 0), strict=True))
    models = {"claude-opus-5-5": counts}
    assert found == {
        "agent": "claude",
        **counts,
        "source": "reported",
        "models": models,
        "cost_usd": "0.01892",
    }


def test_the_same_as_a_table_and_from_standard_input():
    stream = (SAMPLES / "opencode" / "success.jsonl").read_bytes()
    code, out, _ = parse("--agent", "opencode", "-", stdin=stream)
    assert code == 0
    assert out.splitlines() == [
        "model    input  cache read  cache write  output  reasoning",
        "unknown  2,400       1,600            0     300        100",
        "source: derived",
    ]


def test_a_side_file_tells_what_the_output_does_not():
    stream, side = SAMPLES / "copilot" / "success.jsonl", SAMPLES / "copilot" / "success.session-events.jsonl"
    without = parsed("--agent", "copilot", stream)
    assert without.keys() == KEYS
    assert (without["source"], without["input"], without["models"]) == ("unknown", None, {})
    found = parsed("--agent", "copilot", stream, "--side-file", side)
    assert [found[key] for key in ("source", "input", "cache_read", "output")] == [
        "reported",
        2400,
        1600,
        300,
    ]


@pytest.mark.parametrize("agent", sorted(DIALECTS))
def test_every_dialect_can_be_asked_for_and_an_empty_stream_is_unknown(agent):
    assert parsed("--agent", agent, os.devnull)["source"] == "unknown"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--agent", "codexx", "x"), 2, "There is no agent dialect 'codexx': use one of aider, "),
        (("--agent", "opencode", "x", "--side-file", "y"), 2, "leave --side-file out"),
        (("--agent", "claude", "nowhere.jsonl"), 1, "There is no file nowhere.jsonl."),
        (("--agent", "claude", SAMPLES), 1, "is a folder"),
        (("--agent", "claude", "a\0b"), 1, "cannot be read: "),
        (("--agent", "claude", "/bin/sh"), 1, "is not the output of an agent: it is no text."),
        (("--agent", "aider", os.devnull, "--side-file", "nowhere"), 1, "There is no file nowhere."),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_the_documented_exit_code(arguments, code, words):
    found, out, said = parse(*arguments)
    assert (found, out) == (code, "")
    assert words in said
    assert "\n" not in said


def test_a_stream_with_damaged_bytes_in_it_is_counted_all_the_same():
    stream = b"\xff\0noise\n" + (SAMPLES / "claude" / "success.jsonl").read_bytes()
    assert parsed("--agent", "claude", "-", stdin=stream)["input"] == 2400


# --- the same in the daemon -------------------------------------------------------------------------------


def settings_with(agent: str, key: str) -> Settings:
    table = f'[providers.{agent}]\nagent = "{agent}"\napi_key_env = "{key}"\n'
    return parse_settings(BASIC_SETUP + table, source="config.toml")


def test_what_an_earlier_daemon_has_recorded_is_known_from_what_came_since(tmp_path: Path):
    source = tmp_path / "output.log"
    source.write_bytes(b"one\ntwo\nthree\n")
    dialect = DIALECTS["claude"]
    run = RunOutput(source=source, log=tmp_path / "task.jsonl", parser=dialect.parser(), saved_offset=6)
    assert run.read() is not None
    assert (run.offset, run.is_known) == (6, True)
    assert run.read() is not None
    assert (run.offset, run.is_known) == (14, False)
    assert run.read() is None
    run.close()
    assert (tmp_path / "task.jsonl").read_bytes() == b"o\nthree\n"


def ended_run(folder: Path, agent: str, stream: bytes = b"") -> RunOutput:
    (folder / "output.log").write_bytes(stream)
    dialect = DIALECTS[agent]
    run = RunOutput(
        source=folder / "output.log",
        log=folder / "task.log",
        parser=dialect.parser(),
        saved_offset=0,
        side_file=dialect.side_file,
        model="asked-for",
    )
    while run.read() is not None:
        pass
    run.close()
    return run


def a_session(folder: Path, *outputs: int) -> Path:
    sessions = folder / "agent-config" / "projects" / "-trees-gh-1"
    sessions.mkdir(parents=True)
    calls = [
        {"type": "assistant", "message": {"id": f"m{n}", "model": "claude-x", "usage": {"output_tokens": n}}}
        for n in outputs
    ]
    file = sessions / "5e55.jsonl"
    file.write_text("\n".join(map(json.dumps, calls)))  # its last line was cut off behind the brace
    return file


def test_a_provider_of_the_aider_dialect_gets_its_command_environment_and_event_log(tmp_path):
    settings = settings_with("aider", "OPENAI_API_KEY")
    provider = settings.providers["aider"]
    command = (
        ProviderManager(settings)
        .get_provider("aider")
        .build_command(tmp_path / "prompt.md", "openai/x", tmp_path / "output.jsonl")
    )
    assert command[:5] == ["aider", "--model", "openai/x", "--message-file", f"{tmp_path}/prompt.md"]
    log = Path(command[command.index("--analytics-log") + 1])
    env = worker_environment(provider, {}, DIALECTS["aider"], marker="m", run_dir=tmp_path, attempt=1)
    assert env["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert provider.stop_signal == "SIGTERM"

    log.write_bytes((SAMPLES / "aider" / "success.analytics.jsonl").read_bytes())
    run = ended_run(tmp_path, "aider", (SAMPLES / "aider" / "success.txt").read_bytes())
    assert run.summary().usage.source is UsageSource.ESTIMATED
    usage = run.final_summary().usage
    assert (usage.source, usage.total) == (UsageSource.DERIVED, ModelUsage(input=2000, output=150))


def test_copilots_journal_is_found_in_the_folder_that_the_run_had_for_itself(tmp_path):
    settings = settings_with("copilot", "KEY")
    env = worker_environment(
        settings.providers["copilot"],
        {"KEY": "x"},
        DIALECTS["copilot"],
        marker="m",
        run_dir=tmp_path,
        attempt=1,
    )
    journal = Path(env["COPILOT_HOME"]) / "session-state" / "96183dbe" / "events.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes((SAMPLES / "copilot" / "success.session-events.jsonl").read_bytes())
    assert ended_run(tmp_path, "copilot").final_summary().usage.total.output == 300


def test_a_killed_claude_run_is_counted_from_its_session_files(tmp_path):
    file = a_session(tmp_path, 150, 100)
    (file.parent / "gone.jsonl").symlink_to("nowhere")
    (file.parent / "zzz.jsonl").write_text("not json at all")
    usage = ended_run(tmp_path, "claude").final_summary().usage
    assert (usage.source, usage.by_model) == (UsageSource.UNKNOWN, {})  # a file that cannot be read: none is
    (file.parent / "gone.jsonl").unlink()
    usage = ended_run(tmp_path, "claude").final_summary().usage
    assert (usage.source, usage.by_model) == (UsageSource.DERIVED, {"claude-x": ModelUsage(output=250)})


def test_side_files_beyond_all_measure_are_not_read_by_half(tmp_path):
    size = a_session(tmp_path, 150).stat().st_size
    pattern = "agent-config/**/*.jsonl"
    assert sum(map(len, side_chunks(tmp_path, pattern, most=size))) == size + 1
    with pytest.raises(OSError, match="Too much to read"):
        list(side_chunks(tmp_path, pattern, most=size - 1))


def test_tokens_of_a_model_without_a_name_are_the_models_that_was_asked_for(tmp_path):
    run = ended_run(tmp_path, "opencode", (SAMPLES / "opencode" / "success.jsonl").read_bytes())
    assert list(run.summary().usage.by_model) == ["asked-for"]
    assert run.final_summary() == run.summary()
