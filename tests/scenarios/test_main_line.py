"""From the label to the draft pull request, and the ends that are none of both success and failure."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from world import BOT, LABEL, REPO, TOKEN, WRITE, Result, World, program, scripted_agent

from coordinator.environment import ALLOWED

PRICED = {
    "name": "claude-sonnet-4-5",
    "provider": "claude-cli",
    "cost_per_million_input": 3,
    "cost_per_million_output": 15,
    "cost_per_million_cache_read": 0.3,
    "cost_per_million_cache_write": 3.75,
}


def test_a_labelled_issue_becomes_a_draft_pull_request(a_world) -> None:
    world: World = a_world(models=[PRICED])
    number = world.issue(WRITE, title="Write a guide")
    world.start()
    task = world.until_state(number, "succeeded")

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    (pull,) = world.pulls(number)
    assert pull.draft
    assert pull.base == "main"
    assert pull.author == BOT
    assert (pull.body or "").startswith(f"Fixes #{number}\n")
    assert task.pr_number == pull.number
    assert task.pr_url in world.comment(number)
    assert set(world.server.issue(REPO, number).labels) == {LABEL, "coordinator:done"}
    world.until_quiet()
    assert not world.server.forbidden_requests


def test_the_run_is_priced_logged_and_leaves_no_worktree(a_world) -> None:
    world: World = a_world(models=[PRICED])
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.stop()

    (run,) = world.runs(number)
    usage, cost = world.store.usage_of(run.run_id), world.store.cost_of(run.run_id)
    assert usage.source == "reported"
    assert usage.total.output > 0
    assert cost is not None
    assert cost.usd is not None
    assert cost.usd > 0
    assert f"${cost.usd:.4f}" in world.comment(number)
    logs = world.state_dir / "logs"
    stream = (logs / f"gh-{number}.jsonl").read_text().splitlines()
    assert json.loads(stream[-1])["type"] == "result"
    (calls,) = (logs / "api").glob("api-calls-????-??-??.jsonl")
    (call,) = map(json.loads, calls.read_text().splitlines())
    assert call["task_id"] == f"gh-{number}"
    assert not (world.state_dir / "trees" / f"gh-{number}").exists()


def test_one_comment_is_edited_from_start_to_end(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")

    posted = world.server.requests_matching(f"POST /repos/{REPO}/issues/{number}/comments")
    edited = world.server.requests_matching(f"PATCH /repos/{REPO}/issues/comments/*")
    assert [request.status for request in posted] == [201]
    assert edited
    assert {request.status for request in edited} == {200}
    assert "Done" in world.comment(number)


def test_an_agent_that_changes_nothing_ends_as_no_changes_without_a_pull_request(world: World) -> None:
    number = world.issue("[[agent: no-op]]")
    world.start()
    world.until_state(number, "failed")
    world.until_polls(3)

    assert world.result(number) == Result(state="failed", outcomes=("no_changes",), label="failed")
    assert "no_changes" in world.comment(number)
    assert world.server.branch_sha(REPO, f"auto/gh-{number}") is None


def test_an_output_cut_in_the_middle_of_a_line_is_a_counted_failure_with_its_tokens_kept(a_world) -> None:
    world: World = a_world(coordinator={"max_attempts": 1})
    number = world.issue(WRITE, "[[agent: half-line]]")
    world.start()
    world.until_state(number, "failed")

    assert world.result(number) == Result(state="failed", outcomes=("failed",), label="failed")
    (run,) = world.runs(number)
    usage = world.store.usage_of(run.run_id)
    assert run.failure_class == "no_result"
    assert usage.source == "derived"
    assert usage.total.total > 0


def test_a_failure_is_tried_again_and_the_retry_goes_on_from_its_work(world: World) -> None:
    number = world.issue(WRITE, "[[agent: fail-once]]", "[[agent: write docs/second.md]]")
    world.start()
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(
        state="succeeded", outcomes=("failed", "succeeded"), attempts=2, pulls=1, label="done"
    )


def test_the_recorded_claude_stream_is_counted_exactly(a_world) -> None:
    sample = Path(__file__).parents[1] / "samples" / "claude" / "success.jsonl"
    replay = f"open('HELLO.md', 'w').write('hi'); print(open({str(sample)!r}).read(), end='')"
    world: World = a_world(**{"providers.claude-cli": program(replay, dialect="claude")})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")

    (run,) = world.runs(number)
    total = world.store.usage_of(run.run_id).total
    assert (total.input, total.cache_read, total.cache_write, total.output) == (2400, 1600, 600, 300)
    assert "4,600 / 300" in world.comment(number)


def test_what_an_agent_writes_beside_its_output_is_counted_when_it_has_ended(a_world) -> None:
    samples = Path(__file__).parents[1] / "samples" / "aider"
    log = samples / "success.analytics.jsonl"
    replay = f"""
import shutil, sys
open("HELLO.md", "w").write("hi")
shutil.copy({str(log)!r}, sys.argv[1])
print(open({str(samples / "success.txt")!r}).read())
"""
    aider = program(replay, dialect="aider")
    aider["command_template"].append("{output_file}")
    world: World = a_world(**{"providers.claude-cli": aider})
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")

    (run,) = world.runs(number)
    usage = world.store.usage_of(run.run_id)
    assert (usage.source, usage.total.input, usage.total.output) == ("derived", 2000, 150)


def test_no_token_reaches_the_worker(a_world) -> None:
    dump = "import json, os; json.dump(dict(os.environ), open('env.json', 'w'))"
    world: World = a_world(
        **{"providers.claude-cli": program(dump, env={"OWN": "yes"}, pass_env=["HANDED_ON"])}
    )
    world.environ |= {
        "GITHUB_TOKEN": "another-token",
        "GH_TOKEN": "a-third",
        "HANDED_ON": "yes",
        "KEPT_BACK": "no",
    }
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")

    shown = subprocess.run(
        ["git", "-C", world.server.git_url(REPO), "show", f"auto/gh-{number}:env.json"],
        capture_output=True,
        check=True,
    )
    env = json.loads(shown.stdout)
    assert env["OWN"] == env["HANDED_ON"] == "yes"
    allowed = {*ALLOWED, "OWN", "HANDED_ON", "COORDINATOR_RUN_MARKER", "COORDINATOR_ATTEMPT"}
    assert set(env) <= allowed
    assert not {TOKEN, "another-token", "a-third"} & set(env.values())


def test_a_finished_issue_runs_again_on_its_branch_when_it_is_labelled_again(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    first = world.server.branch_sha(REPO, f"auto/gh-{number}")
    world.server.edit_issue(REPO, number, body="[[agent: write docs/more.md]]")
    world.relabel(number)
    world.until(lambda: len(world.runs(number)) == 2, "the second run")
    world.until_state(number, "succeeded")

    assert world.result(number) == Result(
        state="succeeded", outcomes=("succeeded", "succeeded"), pulls=1, label="done"
    )
    second = world.server.branch_sha(REPO, f"auto/gh-{number}")
    log = ["git", "-C", world.server.git_url(REPO), "log", "--format=%H", f"{second}~1", "-1"]
    assert subprocess.run(log, capture_output=True, check=True, text=True).stdout.strip() == first


def test_closing_and_reopening_a_finished_issue_does_not_run_it_again(world: World) -> None:
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    world.github_clock.advance(2)
    world.server.close_issue(REPO, number)
    world.until_polls(2)
    world.server.reopen_issue(REPO, number)
    world.until_polls(4)

    assert world.result(number) == Result(state="succeeded", outcomes=("succeeded",), pulls=1, label="done")
    world.relabel(number)
    world.until(lambda: len(world.runs(number)) == 2, "the run after the label was applied again")


def test_a_run_on_a_subscription_shows_tokens_and_no_money_anywhere(a_world) -> None:
    provider = scripted_agent() | {"billing": "subscription"}
    world: World = a_world(models=[PRICED], **{"providers.claude-cli": provider})
    number = world.issue(WRITE)
    world.start()
    world.until_state(number, "succeeded")
    finished = world.until_logged("worker finished")
    world.until_quiet()
    world.stop()

    (run,) = world.runs(number)
    cost = world.store.cost_of(run.run_id)
    assert cost is not None
    assert (cost.usd, cost.source, cost.priced_by) == (None, "subscription", "subscription")
    assert finished["cost"] == "subscription"
    (pull,) = world.pulls(number)
    for text in (world.comment(number), pull.body or ""):
        assert "subscription" in text
        assert "$" not in text
    (calls,) = (world.state_dir / "logs" / "api").glob("api-calls-????-??-??.jsonl")
    (call,) = map(json.loads, calls.read_text().splitlines())
    assert (call["billing"], call["cost_usd"], call["price_source"]) == ("subscription", None, "subscription")
    assert call["output_tokens"] > 0
