"""`coordinator experiments` and `coordinator route replay` from outside, on a store that is filled first."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import pytest
from conftest import at_once, run

from adw_modules.routing import ModelRouter
from adw_modules.tasks.model import (
    Cost,
    IssueSnapshot,
    Outcome,
    Priority,
    RunOutcome,
    TaskRequest,
    TaskState,
    Trigger,
    Usage,
    UsageSource,
)
from adw_modules.tasks.planning import attributes
from coordinator.clock import utc_now
from coordinator.settings import SettingsSource
from coordinator.store import Settlement, Store

CONFIG = """\
[github]
repo_owner = "octo"
repo_name = "hello"
[routing]
enabled = true
[[experiments]]
name = "try"
stop = { min_samples = 5 }
arms = [
    { name = "opus", provider = "claude-cli", model = "opus" },
    { name = "haiku", provider = "claude-cli", model = "haiku" },
]
"""
NEW = """\
[routing]
enabled = true
default_model = "opus"
"""
SELECTING = """\
[routing]
enabled = true
[[routing.rules]]
target = { select = "cheapest", candidates = ["claude-cli/dear", "claude-cli/cheap"] }
[[models]]
name = "dear"
provider = "claude-cli"
cost_per_million_input = 10
cost_per_million_output = 50
[[models]]
name = "cheap"
provider = "claude-cli"
cost_per_million_input = 1
cost_per_million_output = 5
"""
TASKS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "adws").mkdir()
    (folder / "adws" / "config.toml").write_text(CONFIG)
    (folder / "new.toml").write_text(NEW)
    (folder / "selecting.toml").write_text(SELECTING)
    loaded = SettingsSource(folder / "adws" / "config.toml").current
    loaded.state_dir.mkdir(parents=True)
    with Store.open(loaded.state_dir / "coordinator.db", now=utc_now()) as store:
        router = ModelRouter(loaded.settings)
        for number in range(1, TASKS + 1):
            work(store, router, number)
    return folder


def work(store: Store, router: ModelRouter, number: int) -> None:
    """An issue by the arm it is dealt to: opus succeeds for a dollar, haiku does with every second issue."""
    now = utc_now()
    issue = IssueSnapshot(
        repo="octo/hello", repo_id=7, number=number, title="t", body="b", labels=("rpi-auto",), author="ada",
        author_id=1, state="open", url="https://example.org", created_at=now, updated_at=now,
    )  # fmt: skip
    trigger = Trigger(event_id=number, actor="ada", actor_id=1, labelled_at=now)
    request = TaskRequest(issue=issue, priority=Priority.NORMAL, trigger=trigger)
    task = store.upsert_task(request, name=f"gh-{number}", now=now).task
    decision = router.choose(attributes(task, now=now))
    claimed = store.claim(
        task.task_id,
        decision=decision.stored(),
        config_version="1",
        run_dir_of=lambda *_: "/nowhere",
        now=now,
    )
    assert claimed
    good = decision.model == "opus" or number % 2 == 0
    outcome = RunOutcome(outcome=Outcome.SUCCEEDED if good else Outcome.FAILED, detail="x")
    state = TaskState.SUCCEEDED if good else TaskState.FAILED
    cost = Cost(usd=Decimal("1.00" if decision.model == "opus" else "0.10"), priced_by="config")
    settled = Settlement(state=state, cause=None, wake_at=None, attempts=1)
    usage = Usage(source=UsageSource.UNKNOWN)
    assert store.finish(
        claimed[1], outcome=outcome, settlement=settled, usage=usage, cost=cost, now=utc_now()
    )


def test_experiments_shows_each_arm_with_its_results_and_the_answer(folder):
    found = at_once(
        {
            "table": partial(run, "experiments", cwd=folder),
            "json": partial(run, "experiments", "TRY", "--json", cwd=folder),
            "other": partial(run, "experiments", "tri", cwd=folder),
            "none": partial(run, "experiments", "--config", "new.toml", cwd=folder),
            "explain": partial(
                run, "route", "explain", "--attrs", '{"task.repo_id": 7, "task.number": 3}', cwd=folder
            ),
        }
    )
    codes = {name: each.code for name, each in found.items()}
    assert codes == {"table": 0, "json": 0, "other": 1, "none": 0, "explain": 0}
    (result,) = found["json"].json["experiments"]
    opus, haiku = result["arms"]
    assert opus["tasks"] + haiku["tasks"] == TASKS
    assert (opus["succeeded"], opus["cost"], haiku["cost"]) == (opus["tasks"], 1.0, 0.1)
    assert 0 < haiku["succeeded"] < haiku["tasks"]
    assert result["answer"]["state"] == "running"
    head, columns, *rows = found["table"].out.splitlines()
    assert head == f"try: {result['answer']['text']}"
    assert columns.split()[:4] == ["arm", "target", "tasks", "open"]
    assert rows[0].split()[:3] == ["opus", "claude-cli/opus", str(opus["tasks"])]
    assert rows[-1].startswith("  95 % intervals")
    assert found["other"].err == 'There is no experiment "tri"; did you mean try?\n'
    assert "is drawn for arm" in found["explain"].out
    assert found["none"].out == "new.toml has no [[experiments]].\n"


def test_replay_says_what_would_change_what_it_costs_and_what_it_assumes(folder):
    replay = partial(run, "route", "replay", cwd=folder)
    found = at_once(
        {
            "text": partial(replay, "--config", "new.toml"),
            "json": partial(replay, "--config", "new.toml", "--json", "--limit", str(TASKS - 1)),
            "same": replay,
            "future": partial(replay, "--config", "new.toml", "--since", "2999-01-01"),
            "span": partial(replay, "--since", "30 days"),
            "selecting": partial(replay, "--config", "selecting.toml", "--json"),
            "missing": partial(replay, "--config", "nothing.toml"),
        }
    )
    codes = {name: each.code for name, each in found.items()}
    assert codes == {"text": 0, "json": 0, "same": 0, "future": 0, "selecting": 0, "span": 2, "missing": 78}
    facts = found["json"].json
    assert (facts["decisions"], facts["not_replayable"]) == (TASKS - 1, 0)
    (change,) = facts["changes"]
    assert (change["before"], change["after"]) == ("claude-cli/haiku", "claude-cli/opus")
    assert facts["changed"] == change["count"] == facts["cost"]["of"]
    assert facts["cost"]["difference"] == pytest.approx(0.9 * change["count"])
    assert facts["success"]["difference"] > 0
    first, second, *_, last = found["text"].out.splitlines()
    assert first == f"{TASKS} decisions on {TASKS} tasks decided again with new.toml."
    assert "would go elsewhere" in second
    assert last == facts["assumed"]
    assert (
        found["same"].out.splitlines()[1]
        == f"0 would go elsewhere; {TASKS} would not, 0 of them by another rule."
    )
    assert {each["after"] for each in found["selecting"].json["changes"]} == {"claude-cli/cheap"}
    assert found["future"].out == "Nothing was decided since 2999-01-01 00:00 UTC.\n"
    assert "'30 days' is not a span such as 30d, 12h or 4w" in found["span"].err
