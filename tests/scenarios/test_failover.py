"""Providers that fail: who does the task then, when they are asked again, and what is never asked twice."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner
from world import LABEL, MAINTAINER, REPO, STRANGER, WRITE, Result, World

from adw_modules.tasks.model import Task
from coordinator import cli

NEVER = datetime.min.replace(tzinfo=UTC)

# An agent of the Claude dialect that ends as a file beside it says: "429", "500" … or by doing the work.
_AGENT = """
import json, os, sys
state = {state!r}
model = sys.argv[1]
prompt = sys.stdin.read()
open({prompts!r} + "/" + model, "a").write(prompt + chr(0))
word = open(state + "/" + model).read().strip() if os.path.exists(state + "/" + model) else "ok"
say = lambda **record: print(json.dumps(record), flush=True)
usage = dict(input_tokens=10, output_tokens=5, cache_read_input_tokens=0, cache_creation_input_tokens=0)
say(type="system", subtype="init", session_id="s", model=model)
error = None if word == "ok" else int(word)
if error is None:
    open("work-" + model.replace("/", "-") + ".txt", "w").write("done")
elif error == 500:
    open("half.txt", "w").write("half of it")
say(
    type="result", subtype="success", is_error=error is not None, num_turns=1, duration_ms=5,
    duration_api_ms=4, result="done" if error is None else "API Error: " + word, total_cost_usd=0.01,
    usage=usage, modelUsage=dict([(model, dict(inputTokens=10, outputTokens=5, cacheReadInputTokens=0,
    cacheCreationInputTokens=0))]), api_error_status=error,
)
sys.exit(0 if error is None else 1)
"""


def an_agent(world: World) -> dict[str, Any]:
    for name in ("state", "prompts"):
        (world.folder / f"agent-{name}").mkdir(exist_ok=True)
    code = _AGENT.replace("{state!r}", repr(str(world.folder / "agent-state"))).replace(
        "{prompts!r}", repr(str(world.folder / "agent-prompts"))
    )
    script = world.folder / "agent.py"
    script.write_text(code)
    return {
        "command_template": [sys.executable, "-I", str(script), "{model}"],
        "agent": "claude",
    }


def set_up(
    world: World, *chain: str, providers: tuple[str, ...] = ("one", "two", "three"), **more: Any
) -> None:
    """The providers, and a default chain of "provider/model"."""
    provider, _, model = chain[0].partition("/")
    agent = an_agent(world)
    world.write_config(
        **{f"providers.{name}": agent for name in providers},
        routing={"default_provider": provider, "default_model": model, "fallbacks": list(chain[1:]), **more},
        retries={"rate_limit_delay_seconds": 3600, "base_delay_seconds": 60, "max_delay_seconds": 3600},
    )


def fails(world: World, model: str, status: int | None) -> None:
    path = world.folder / "agent-state" / model
    path.write_text("ok" if status is None else str(status))


def went(world: World, number: int) -> list[str]:
    return [f"{run.provider}/{run.model}" for run in world.runs(number)]


def prompts(world: World, model: str) -> list[str]:
    path = world.folder / "agent-prompts" / model
    return path.read_text().split("\0")[:-1] if path.exists() else []


def files_of(world: World, branch: str) -> set[str]:
    """What GitHub has of a branch."""
    repository = world.folder / "github" / f"{REPO}.git"
    command = ["git", "-C", str(repository), "ls-tree", "-r", "--name-only", branch]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_task_moves_on_in_the_same_worktree_with_a_note_and_usage_says_who_did_what(world: World) -> None:
    set_up(world, "one/m1", "two/m2")
    fails(world, "m1", 500)
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert went(world, number) == ["one/m1", "two/m2"]
    assert world.result(number) == Result(
        state="succeeded", outcomes=("failed", "succeeded"), attempts=2, pulls=1, label="done"
    )
    (told,) = prompts(world, "m2")
    assert "one / m1, until it could not go on (api error)" in told
    assert "Somebody else worked on this before you" in told
    assert "the provider's API failed (HTTP 500)" in told, "and what was recorded of it"
    assert {"half.txt", "work-m2.txt"} <= files_of(world, f"auto/gh-{number}")
    by_run = [world.store.usage_of(run.run_id).by_model for run in world.runs(number)]
    assert [list(usage) for usage in by_run] == [["m1"], ["m2"]]
    assert world.until_logged("moves on")["left"] == ["two/m2"]
    task = world.task(number)
    assert task is not None
    assert task.failed_on == ()


def test_rate_limits_at_three_providers_at_once_park_the_task_until_the_first_is_asked_again(
    world: World,
) -> None:
    """All cooling: queue until the earliest deadline, then one half-open probe; waiting is no attempt."""
    set_up(world, "one/m1", "two/m2", "three/m3")
    for model in ("m1", "m2", "m3"):
        fails(world, model, 429)
    number, other = world.issue(), world.issue()
    world.start()
    task = world.until_state(number, "blocked")
    world.until_state(other, "blocked")
    starts = world.starts(number) + world.starts(other)
    assert starts <= 6, "each of the two asks each target at most once"
    assert sorted(set(went(world, number))) == sorted(went(world, number)), "none of them twice"
    assert task.attempts == 0
    assert task.wake_at is not None
    assert "is cooling down after a rate limit" in (task.cause or "") or "failed there" in (task.cause or "")

    for model in ("m1", "m2", "m3"):
        fails(world, model, None)
    world.advance(1800)
    for _ in range(2):  # the second answer comes after a whole turn of the loop
        world.cli("resume")
    assert world.starts(number) + world.starts(other) == starts, "not before the wait is over"
    world.advance(1801)
    world.until_state(number, "succeeded")
    world.until_state(other, "succeeded")
    assert world.starts(number) + world.starts(other) == starts + 2


def test_a_wait_survives_the_daemon(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    number = world.issue()
    world.start()
    world.until_state(number, "retry_wait")
    before = world.store.circuits()["one", "m1"]
    world.stop()
    world.start()
    late = world.issue()
    world.until_state(late, "blocked")
    assert world.starts(late) == 0
    assert world.store.circuits()["one", "m1"] == before
    assert "one/m1" in world.cli("status")
    assert "rate limited" in world.cli("status")


def test_a_provider_that_is_down_for_an_hour_is_used_again_when_it_is_back(world: World) -> None:
    """All targets down for an hour, then back. A provider that fails is asked ever more seldom."""
    set_up(world, "one/m1", "two/m2")
    world.write_config(coordinator={"max_attempts": 50, "max_runs_per_issue": 50})
    for model in ("m1", "m2"):
        fails(world, model, 500)
    number = world.issue()
    world.start()
    world.until(lambda: world.starts(number) == 1, "the first run")
    for _ in range(12):
        world.until(
            lambda: (t := world.task(number)) and t.state.value in {"retry_wait", "blocked"}, "it waits"
        )
        world.advance(301)
    runs = world.starts(number)
    for model in ("m1", "m2"):
        fails(world, model, None)
    for _ in range(30):
        task = world.task(number)
        if task is not None and task.state.value == "succeeded":
            break
        world.advance(901)
        world.until(
            lambda: (t := world.task(number)) and t.state.value not in {"queued", "running"}, "it rests"
        )
    world.until_state(number, "succeeded")
    assert runs <= 16, "twice a quarter of an hour at most, once the first failures are over"


def test_refused_credentials_stop_a_provider_until_its_key_changes_and_others_do_the_work(
    world: World,
) -> None:
    set_up(world, "one/m1", "two/m2")
    fails(world, "m1", 401)
    first = world.issue()
    world.start()
    world.until_state(first, "succeeded")
    assert went(world, first) == ["one/m1", "two/m2"]
    second = world.issue()
    world.until_state(second, "succeeded")
    assert went(world, second) == ["two/m2"]
    fails(world, "m1", None)
    changed = {**an_agent(world), "env": {"KEY_NUMBER": "2"}}
    world.write_config(**{"providers.one": changed})
    world.until_logged("configuration reloaded")
    third = world.issue()
    world.until_state(third, "succeeded")
    assert went(world, third) == ["one/m1"]


def test_an_operator_takes_a_provider_out_of_use_and_back(world: World) -> None:
    set_up(world, "one/m1")
    world.start()
    world.until(lambda: world.state_dir.joinpath("daemon.json").exists(), "the daemon is up")
    said = world.cli("providers", "pause", "one")
    assert said == "No new runs of one are started until `coordinator providers resume one`."
    number = world.issue()
    task = world.until_state(number, "blocked")
    assert "one is paused" in (task.cause or "")
    assert "paused until" in world.cli("status")
    world.cli("providers", "resume", "one")
    world.until_state(number, "succeeded")


def test_the_prompt_tells_the_last_failure_also_after_the_task_was_parked_for_another_reason(
    world: World,
) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 500)
    number = world.issue()
    world.start()
    world.until_state(number, "retry_wait")
    world.cli("providers", "pause", "one")
    world.advance(3601)
    assert "one is paused" in (world.until_state(number, "blocked").cause or "")
    fails(world, "m1", None)
    world.cli("providers", "resume", "one")
    world.until_state(number, "succeeded")
    _, told = prompts(world, "m1")
    assert "the provider's API failed (HTTP 500)" in told
    assert "paused" not in told


def probe(world: World) -> str:
    """The last line of a probe of one/m1. The agent above writes no PROBE.md: it never passes as a whole."""
    command = ["providers", "probe", "one", "--model", "m1", "--config", str(world.path)]
    return CliRunner().invoke(cli.app, command).output.splitlines()[-1]


def test_a_good_probe_puts_a_provider_that_refused_the_credentials_back_into_use(world: World) -> None:
    set_up(world, "one/m1", "two/m2")
    fails(world, "m1", 401)
    first = world.issue()
    world.start()
    world.until_state(first, "succeeded")
    assert went(world, first) == ["one/m1", "two/m2"]
    fails(world, "m1", None)
    assert probe(world) == "The probe counts for the health of one: ok."
    second = world.issue()
    world.until_state(second, "succeeded")
    assert went(world, second) == ["one/m1"]


def test_a_probe_without_a_daemon_is_taken_by_the_next_one_and_keeps_runs_away(world: World) -> None:
    set_up(world, "one/m1", "two/m2")
    world.start()
    world.until(lambda: world.state_dir.joinpath("daemon.json").exists(), "the daemon is up")
    world.stop()
    fails(world, "m1", 401)
    assert probe(world) == "The request is recorded; no daemon runs, so it is taken when one starts."
    number = world.issue()
    world.start()
    world.until_state(number, "succeeded")
    assert went(world, number) == ["two/m2"]


def test_configuration_swapped_in_the_middle_of_a_failover_decides_what_comes_next(world: World) -> None:
    set_up(world, "one/m1", "two/m2")
    fails(world, "m1", 429)
    fails(world, "m2", 429)
    number = world.issue()
    world.start()
    world.until_state(number, "blocked")
    world.write_config(routing={"fallbacks": ["three/m3"]})
    world.until_state(number, "succeeded")
    assert went(world, number) == ["one/m1", "two/m2", "three/m3"]


def test_configuration_swapped_in_the_middle_of_decisions_mixes_no_two_of_them(world: World) -> None:
    """Each run goes where the configuration that it names leads, however often the file changes meanwhile."""
    set_up(world, "one/m1", "two/m2")
    world.write_config(coordinator={"max_concurrent_workers": 12})
    world.start()
    ways: list[tuple[str, str | None]] = []
    for provider, model in (("two", "m2"), ("one", "m1")):
        world.write_config(routing={"default_provider": provider, "default_model": model, "fallbacks": []})
        while provider not in {gone_to for _, gone_to in ways[-2:]}:
            both = [world.issue(), world.issue()]
            for number in both:
                world.until_state(number, "succeeded")
            ways += [(run.config_version, run.provider) for number in both for run in world.runs(number)]
    assert len({version for version, _ in ways}) == len(set(ways)) == 3, (
        "one way for each version of the file"
    )


@pytest.mark.crash
def test_a_provider_that_flaps_is_left_alone_for_longer_and_every_task_gets_done(world: World) -> None:
    set_up(world, "one/m1", "two/m2")
    world.start()
    world.until(lambda: world.state_dir.joinpath("daemon.json").exists(), "the daemon is up")

    def way_of_the_next() -> list[str]:
        number = world.issue()

        def is_done() -> bool:
            world.advance(0)  # its clock was pushed forward, and polls come by the real one
            task = world.task(number)
            return task is not None and task.state.value == "succeeded"

        world.until(is_done, "it is done")
        return went(world, number)

    def wait() -> float:
        circuit = world.store.circuits()["one", "m1"]
        assert circuit.until is not None
        return (circuit.until - circuit.updated_at).total_seconds()

    around, waits = ["one/m1", "two/m2"], []
    for failures in (3, 1, 0, 3):  # until it is shut; on trial; on trial, and it answers; until it is shut
        fails(world, "m1", 500 if failures else None)
        if failures == 0:
            assert way_of_the_next() == ["one/m1"]
            continue
        assert [way_of_the_next() for _ in range(failures)] == [around] * failures
        assert way_of_the_next() == ["two/m2"], "spared"
        waits.append(wait())
        world.advance(waits[-1] + 1)
    assert waits == [30, 60, 60], "one success does not make up for two failures"


def test_a_label_from_a_permitted_person_beats_the_rules_and_one_from_others_changes_nothing(
    world: World,
) -> None:
    set_up(world, "one/m1", "two/m2")
    world.start()
    wanted = world.server.add_issue(
        REPO, title="t", body="b", author=MAINTAINER, labels=["provider:two", LABEL], labelled_by=MAINTAINER
    )
    world.until_state(wanted, "succeeded")
    assert went(world, wanted) == ["two/m2"]
    assert "Rule: `label provider:two` (asked for by ada)" in world.comment(wanted)
    assert world.until_logged("✓ Rule matched: label provider:two → two/m2")["task"] == f"gh-{wanted}"

    sneaked = world.server.add_issue(
        REPO, title="t", body="b", author=MAINTAINER, labels=["provider:two"], labelled_by=STRANGER
    )
    world.server.add_label(REPO, sneaked, LABEL, actor=MAINTAINER)
    world.until_state(sneaked, "succeeded")
    assert went(world, sneaked) == ["one/m1"]
    assert world.until_logged("override not taken")["by"] == STRANGER


def test_a_label_that_asks_for_another_target_ends_the_wait_for_the_first_one(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    world.start()
    world.until_state(world.issue(), "retry_wait")
    number = world.issue()
    assert "cooling down" in (world.until_state(number, "blocked").cause or "")

    world.github_clock.advance(2)
    world.server.add_label(REPO, number, "provider:two", actor=MAINTAINER)
    world.server.add_label(REPO, number, "model:m2", actor=MAINTAINER)
    world.until_state(number, "succeeded")
    assert went(world, number) == ["two/m2"]


def test_a_configuration_changed_while_no_daemon_ran_wakes_what_the_last_one_parked(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    world.start()
    world.until_state(world.issue(), "retry_wait")
    number = world.issue()
    world.until_state(number, "blocked")
    world.stop()

    world.write_config(routing={"fallbacks": ["two/m2"]})
    world.start()
    world.until_state(number, "succeeded")
    assert went(world, number) == ["two/m2"]


def test_no_more_runs_start_in_a_minute_than_a_provider_may_be_asked(world: World) -> None:
    set_up(world, "one/m1")
    world.write_config(**{"providers.one": {"requests_per_minute": 2}})
    numbers = [world.issue() for _ in range(3)]
    world.start()
    *_, last = numbers
    task = world.until_state(last, "blocked")
    for number in numbers[:2]:
        world.until_state(number, "succeeded")
    assert "one has had its 2 requests of this minute" in (task.cause or "")
    assert world.starts(last) == 0
    (target,) = world.cli("route", "explain", str(last), "--json")["now"]["targets"]
    assert "one has had its 2 requests of this minute" in target["why"]
    world.stop()
    task = world.until_state(last, "blocked")
    world.start()  # it looks at all that is parked, and still knows of this minute
    world.until(lambda: (world.task(last) or task).updated_at > task.updated_at, "it was looked at")
    assert (world.until_state(last, "blocked").cause or "").startswith("no provider can take it: one/m1")
    assert world.starts(last) == 0
    world.advance(61)
    world.until_state(last, "succeeded")


def test_a_label_that_asks_for_another_target_ends_the_wait_after_a_rate_limit(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    number = world.issue()
    world.start()
    world.until_state(number, "retry_wait")
    world.github_clock.advance(2)
    world.server.add_label(REPO, number, "provider:two", actor=MAINTAINER)
    world.server.add_label(REPO, number, "model:m2", actor=MAINTAINER)
    world.until_state(number, "succeeded")
    assert went(world, number) == ["one/m1", "two/m2"]


def test_a_task_that_is_parked_again_for_longer_tells_the_new_time_with_one_edit(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    world.start()
    first = world.issue()
    world.until_state(first, "retry_wait")
    number = world.issue()
    before = world.until_state(number, "blocked")
    world.until(lambda: "Next look" in world.comment(number), "the time is told")
    assert f"{before.wake_at:%H:%M:%S}" in world.comment(number)
    edits = world.comments(number)[0].updated_at
    urgent = world.issue()
    world.server.add_label(REPO, urgent, "priority:P0", actor=MAINTAINER)
    world.until_state(urgent, "blocked")

    world.advance(3601)
    world.until(lambda: len(world.runs(urgent)) == 1, "the urgent one has tried for all")

    def parked_again() -> Task | None:
        task = world.task(number)
        later = before.wake_at + timedelta(minutes=30)
        return task if task and task.state == "blocked" and (task.wake_at or NEVER) > later else None

    after = world.until(parked_again, "it is parked for longer")
    assert after.cause == before.cause
    assert world.comments(number)[0].updated_at == edits, "not at once: it may be otherwise soon"
    world.advance(301)
    world.until(lambda: f"{after.wake_at:%H:%M:%S}" in world.comment(number), "the new time is told")


def test_a_new_fallback_or_a_resumed_provider_ends_the_wait_after_a_rate_limit(world: World) -> None:
    set_up(world, "one/m1")
    fails(world, "m1", 429)
    number = world.issue()
    world.start()
    world.until_state(number, "retry_wait")
    world.write_config(routing={"fallbacks": ["two/m2"]})
    world.until_state(number, "succeeded")
    assert went(world, number) == ["one/m1", "two/m2"]

    fails(world, "m2", 429)
    number = world.issue()
    world.until_state(number, "blocked")  # one is still cooling
    fails(world, "m2", None)
    world.cli("providers", "resume", "two")
    world.until_state(number, "succeeded")
    assert went(world, number) == ["two/m2", "two/m2"]

    world.write_config(routing={"fallbacks": []})
    world.until(lambda: len(world.events("configuration reloaded")) == 2, "the file is taken over")
    world.cli("providers", "resume", "one")
    number = world.issue()
    world.until_state(number, "retry_wait")
    fails(world, "m1", None)
    world.cli("providers", "resume", "one")
    world.until_state(number, "succeeded")
    assert went(world, number) == ["one/m1", "one/m1"]


def test_a_label_asks_for_a_workflow_with_its_target_and_prompt_and_a_later_file_can_bring_it(
    world: World,
) -> None:
    set_up(world, "one/m1")
    folder = world.path.parent / "prompts"
    folder.mkdir()
    (folder / "frugal.md").write_text("Be brief.\n{{ issue }}\n")
    world.start()
    number = world.server.add_issue(
        REPO, title="t", body="b", author=MAINTAINER, labels=["workflow:cheap", LABEL], labelled_by=MAINTAINER
    )
    assert "there is no [workflows.cheap]" in (world.until_state(number, "blocked").cause or "")
    stages = [{"name": "implement", "provider": "two", "model": "m2", "prompt": "frugal"}]
    world.write_config(**{"workflows.cheap": {"stages": stages}})
    world.until_state(number, "succeeded")
    assert went(world, number) == ["two/m2"]
    assert "Be brief." in prompts(world, "m2")[0]
    shown = world.cli("route", "explain", str(number))
    assert "Workflow cheap: stage implement, prompt template frugal" in shown
    assert "Rule: `label workflow:cheap` (asked for by ada)" in world.comment(number)


def test_a_configuration_that_an_agent_writes_into_its_worktree_changes_no_decision(world: World) -> None:
    """Agents of others went round a cooled model by editing the router's file."""
    world.start()
    first = world.issue("[[agent: write adws/config.toml]]")
    world.until_state(first, "succeeded")
    second = world.issue(WRITE)
    world.until_state(second, "succeeded")
    assert "adws/config.toml" in files_of(world, f"auto/gh-{first}")
    runs = [*world.runs(first), *world.runs(second)]
    assert len({(run.config_version, run.provider, run.model) for run in runs}) == 1
