"""`coordinator models`, `coordinator catalog …`, tools/check-openrouter-models.py, as operators use them."""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator import cli
from coordinator.store import StatePaths
from tests.openrouter_server import Fail, OpenRouterServer

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = """
[github]
repo_owner = "octo"
repo_name = "hello"

[providers.openrouter]
agent = "generic"
command_template = ["tools/openrouter-cli.py"]

[providers.claude-cli]
command_template = ["claude"]

[[models]]
name = "openai/gpt-5"
provider = "openrouter"
cost_per_million_input = 7
cost_per_million_output = 8

[[models]]
name = "claude-sonnet-4-5"
provider = "claude-cli"
context_window = 200000
capabilities = ["code", "tools", "vision"]
"""


@pytest.fixture(scope="module")
def one_server():
    with OpenRouterServer() as server:
        yield server


@pytest.fixture
def server(one_server):
    catalogue = copy.deepcopy(one_server.catalogue)
    one_server.billed.clear()
    yield one_server
    one_server.catalogue = catalogue
    one_server.pages.clear()


@pytest.fixture
def config(tmp_path, server, monkeypatch):
    monkeypatch.setenv("OPENROUTER_BASE_URL", server.url)
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    path = tmp_path / "adws" / "config.toml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def run(config, *arguments, code=0):
    done = CliRunner().invoke(cli.app, [*arguments, "--config", str(config)])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.output


def names(config, *arguments):
    return [model["model"] for model in run(config, "models", "--json", *arguments)["models"]]


def test_a_sync_needs_no_daemon_and_leaves_the_state_as_one_would(config):
    assert run(config, "catalog", "sync") == "37 models; this is the first sync.\n"
    assert run(config, "catalog", "sync") == "37 models, unchanged since the last sync.\n"
    root = StatePaths(config.parents[1] / ".coordinator").root
    assert (root / "coordinator.db").stat().st_mode & 0o777 == 0o600


def test_a_failed_sync_is_exit_code_1_with_one_sentence_and_keeps_what_there_is(config, server):
    server.pages["GET", "/models"] = Fail(status=503, message="down")
    told = run(config, "catalog", "sync", code=1)
    assert told == "OpenRouter answered /models with 503: down; there is none yet.\n"
    del server.pages["GET", "/models"]
    run(config, "catalog", "sync")
    server.pages["GET", "/models"] = {"data": []}
    assert run(config, "catalog", "sync", code=1).endswith("; the last catalogue stays, 37 models.\n")


def test_the_difference_is_that_of_the_last_sync_or_since_a_day(config, server):
    run(config, "catalog", "sync")
    assert run(config, "catalog", "diff") == "The last sync with a new list has changed nothing.\n"
    server.catalogue["data"][4]["pricing"]["prompt"] = "0.000009"
    run(config, "catalog", "sync")
    for arguments in ([], ["--since", "2020-01-01"]):
        assert "price         openai/gpt-5  $1.25 in, $10 out, $0.125 cache read → $9 in" in run(
            config, "catalog", "diff", *arguments
        )
    (change,) = run(config, "catalog", "diff", "--json")["changes"]
    assert (change["kind"], change["model"]) == ("price", "openai/gpt-5")
    assert run(config, "catalog", "diff", "--json", "--since", "2999-01-01")["changes"] == []
    assert "is not a day such as" in run(config, "catalog", "diff", "--since", "monday", code=2)


def test_models_are_filtered_and_a_configured_price_wins(config):
    run(config, "catalog", "sync")
    assert names(config, "--capability", "tools", "--family", "claude-4.5", "--max-price", "5") == [
        "anthropic/claude-haiku-4.5"
    ]
    assert names(config, "--provider", "z-ai", "--min-context", "1000000") == ["z-ai/glm-5.2"]
    assert len(names(config, "--provider", "openrouter")) == 32
    rows = {row["model"]: row for row in run(config, "models", "--all", "--json")["models"]}
    assert len(rows) == 37
    assert rows["openai/gpt-6-sol:batch"]["excluded"] == "batch: answers hours later"
    assert (rows["openai/gpt-5"]["price_source"], rows["openai/gpt-5"]["price"]["input"]) == ("config", "7")
    assert rows["openrouter/auto"]["price"]["input"] is None
    assert rows["xiaomi/mimo-v2.5"]["context"] == 32000


def test_models_of_another_provider_are_those_that_are_configured(config):
    (row,) = run(config, "models", "--json", "--provider", "claude-cli")["models"]
    assert (row["model"], row["capabilities"]) == ("claude-sonnet-4-5", ["tools", "multimodal_image"])


def test_the_list_says_where_it_comes_from(config, server, monkeypatch):
    asked = run(config, "models", "--family", "claude-4.5")
    assert "3 models; asked of OpenRouter just now; `coordinator catalog sync` keeps them." in asked
    run(config, "catalog", "sync")
    server.pages["GET", "/models"] = Fail(status=503)
    assert "3 models; catalogue synced at 20" in run(config, "models", "--family", "claude-4.5")


def test_the_bootstrap_list_is_for_when_nothing_else_is_there(config, server):
    server.pages["GET", "/models"] = Fail(status=503)
    found = run(config, "models")
    assert "3 models; the bootstrap list: no catalogue is stored, and OpenRouter does not answer." in found
    assert "openai/gpt-4o-mini" in found


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--family", "gpt-9"], 2, "There is no family 'gpt-9'"),
        (["--capability", "tolls"], 2, "There is no capability 'tolls'"),
        (["--max-price", "cheap"], 2, "'cheap' is not an amount such as 2.50."),
        (["--max-price", "-1"], 2, "'-1' is not an amount"),
    ],
)
def test_a_wrong_filter_is_one_sentence(config, arguments, code, sentence):
    done = CliRunner().invoke(cli.app, ["models", *arguments, "--config", str(config)])
    told = done.output
    assert done.exit_code == code
    assert sentence in told


def test_an_address_that_cannot_be_one_is_a_wrong_configuration(config, monkeypatch):
    monkeypatch.setenv("OPENROUTER_BASE_URL", "nowhere")
    done = CliRunner().invoke(cli.app, ["catalog", "sync", "--config", str(config)])
    assert cli.exit_code(done.exception) == 78


def test_rankings_are_ours_and_those_of_the_last_research(config, server, monkeypatch):
    assert "none is set" in run(config, "catalog", "research", code=1)
    monkeypatch.setenv("OPENROUTER_API_KEY", server.key)
    refused = run(config, "catalog", "research", code=1)
    assert refused.count("OpenRouter answered /datasets/rankings-daily with 404: Not Found (14 times)") == 1
    row = {"model_permaslug": "a/b", "total_tokens": "5"}
    server.pages["GET", "/datasets/rankings-daily"] = {"data": [row]}
    assert "14 answers, 0 new models: none." in run(config, "catalog", "research")
    told = run(config, "catalog", "rankings")
    assert told.startswith("No run has ended in the last 90 days.")
    assert "rankings:programming: a/b" in told
    assert "benchmarks: OpenRouter answered /benchmarks with 404: Not Found" in told
    facts = run(config, "catalog", "rankings", "--json")
    assert facts["research"]["rankings:science"]["data"] == [{"model": "a/b", "tokens": "5"}]


# --- the tool for monitors ------------------------------------------------------------------------


def check(config, *arguments, **environ):
    done = subprocess.run(
        [
            sys.executable,
            str(PROJECT / "tools" / "check-openrouter-models.py"),
            *arguments,
            "--config",
            str(config),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )
    assert "Traceback" not in done.stderr
    return done


def serve_endpoints(server, model_id, *statuses):
    rows = [{"status": status, "uptime_last_30m": 99.5} for status in statuses]
    server.pages["GET", f"/models/{model_id}/endpoints"] = {"data": {"id": model_id, "endpoints": rows}}


def test_a_monitor_sees_each_model_with_endpoints_and_ping(config, server):
    for model_id in ("openai/gpt-5", "anthropic/claude-haiku-4.5"):
        serve_endpoints(server, model_id, 0, -5)
    serve_endpoints(server, "z-ai/glm-4.6", -2)
    server.script(Fail.rate_limited(), model="z-ai/glm-4.6")
    named = "openai/gpt-5,~anthropic/claude-haiku-latest,z-ai/glm-4.6"
    done = check(config, "--models", named, OPENROUTER_API_KEY=server.key)
    good, alias, bad, total = done.stdout.splitlines()[-4:]
    assert done.returncode == 1
    assert good.startswith("✓ openai/gpt-5 ")
    assert "1/2 endpoints, uptime 99.5 %" in good
    assert "ping " in good
    assert alias.startswith("✓ ~anthropic/claude-haiku-latest")
    assert bad.startswith("✗ z-ai/glm-4.6")
    assert "no endpoint is up" in bad
    assert "429: Rate limit exceeded" in bad
    assert total == "3 models: 2 fine, 1 failed."


def test_a_monitor_is_told_by_exit_code_0_that_all_is_well(config, server):
    serve_endpoints(server, "openai/gpt-5", 0)
    done = check(config, "--models", "openai/gpt-5", OPENROUTER_API_KEY=server.key)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def tool(config, monkeypatch):
    """The tool without the second that a process of its own takes: its answer, or its exit code."""
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    spec = importlib.util.spec_from_file_location(
        "check_openrouter", PROJECT / "tools/check-openrouter-models.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run_it(*arguments):
        monkeypatch.setattr(sys, "argv", ["tool", *arguments, "--config", str(config)])
        return module.main()

    return run_it


def test_without_completions_it_needs_no_key_and_costs_nothing(tool, server):
    serve_endpoints(server, "openai/gpt-5", 0)
    report = json.loads(tool("--models", "openai/gpt-5", "--no-ping", "--json"))
    assert (report["ok"], report["key"], report["models"][0]["well"]) == (True, None, 1)
    assert not server.billed


def test_the_top_models_begin_with_those_of_the_configuration(tool):
    report = json.loads(tool("--top", "2", "--no-ping", "--json"))
    assert [model["model"] for model in report["models"]] == ["openai/gpt-5", "minimax/minimax-m3"]


@pytest.mark.parametrize(
    ("key", "url", "code", "sentence"),
    [
        ("", None, 2, "No key: export OPENROUTER_API_KEY"),
        ("sk-wrong", None, 2, "The key is refused"),
        ("sk-any", "http://127.0.0.1:9/api/v1", 3, "OpenRouter cannot be reached at http://127.0.0.1:9"),
    ],
)
def test_a_monitor_is_told_when_nothing_can_be_checked(
    tool, server, monkeypatch, capsys, key, url, code, sentence
):
    monkeypatch.setenv("OPENROUTER_API_KEY", key)
    monkeypatch.setenv("OPENROUTER_BASE_URL", url or server.url)
    with pytest.raises(SystemExit) as ended:
        tool()
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (code, "")
    assert told.err.startswith(sentence)
