"""A task of the provider openrouter, configured as the seed has it, from its label to the pull request."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from world import World

from tests.openrouter_server import Call, OpenRouterServer, Say, Tokens

PROJECT = Path(__file__).resolve().parents[2]
MODEL = "anthropic/claude-3.5-haiku"
PROVIDER = {
    "enabled": True,
    "requires_api_key": True,
    "api_key_env": "OPENROUTER_API_KEY",
    "command_template": [
        *("tools/openrouter-cli.py", "-p", "{prompt_file}", "--model", "{model}"),
        *("--output-file", "{output_file}", "--output-format", "stream-json"),
    ],
    "pass_env": ["OPENROUTER_BASE_URL"],
}


def test_an_issue_is_worked_on_by_a_model_of_openrouter_and_becomes_a_pull_request(a_world) -> None:
    write = Call("write_file", {"path": "docs/hello.md", "content": "Hello from afar.\n"})
    with OpenRouterServer() as openrouter:
        openrouter.script(
            Say(text="I write.", tool_calls=[write, Call("run_command", {"command": "git status --short"})]),
            Say(text="The page is written.", tokens=Tokens(prompt=800, cached=500), cost=Decimal("0.0042")),
            model=MODEL,
        )
        world: World = a_world(
            providers__openrouter=PROVIDER,
            sandbox={"mode": "bubblewrap"},
            llm={"provider": "openrouter", "model_default": MODEL},
            openrouter={"app_name": "Told by the daemon's own file"},
        )
        (world.folder / "tools").symlink_to(PROJECT / "tools")
        world.environ |= openrouter.environ
        number = world.issue(title="Say hello")
        world.start()
        world.until_state(number, "succeeded")

        (pull,) = world.pulls(number)
        assert pull.draft
        (run,) = world.runs(number)
        usage = world.store.usage_of(run.run_id)
        assert (usage.source, list(usage.by_model)) == ("reported", [MODEL])
        assert usage.total.total == sum(
            bill.tokens.prompt + bill.tokens.completion for bill in openrouter.billed
        )
        assert usage.total.cache_read == 500
        assert usage.reported_cost_usd == openrouter.total_cost
        cost = world.store.cost_of(run.run_id)
        assert (cost.usd, cost.source) == (openrouter.total_cost, "reported")
        ran, status = (message["content"] for message in openrouter.chats[-1].body["messages"][-2:])
        assert ran == "Created docs/hello.md (17 bytes)."
        assert "docs/" in status
        assert "Say hello" in openrouter.chats[0].body["messages"][1]["content"]
        assert openrouter.chats[0].headers["x-openrouter-title"] == "Told by the daemon's own file"
