"""What selections read of our own runs, on both engines."""

from datetime import timedelta
from decimal import Decimal

from store_samples import LATER, NOW, a_settlement, end, queue, some_usage, start

from adw_modules.config import parse_settings
from adw_modules.routing import SelectTarget, Target
from adw_modules.routing.memory import Experience
from adw_modules.tasks.model import Cost, ModelUsage, Outcome, RunOutcome, TaskState, Usage, UsageSource
from coordinator.selecting import resolvers_of

SONNET = Target("claude-cli", "claude-sonnet-4-5")
HOUR = timedelta(hours=1)


def ended(store, number=12, *, now=LATER, labels=("rpi-auto", "bug"), **changes):
    task = queue(store, number, labels=labels)
    _, run = start(store, task.task_id)
    store.mark_started(run.run_id, now=NOW, shim_pid=None, child_pid=None)
    run = store.runs_of(task.task_id)[-1]
    assert end(store, run, now=now, **changes)


def test_a_run_is_remembered_with_its_task_and_its_tokens(store):
    ended(store, labels=("rpi-auto", "bug", "coordinator:done"))
    assert store.experience(NOW, most=10, own_prefix="coordinator:") == [
        Experience(
            target=SONNET,
            outcome=Outcome.SUCCEEDED,
            ended_at=LATER,
            duration=LATER - NOW,
            cost=Decimal("0.10"),
            tokens=some_usage().total,
            repo="acme/widgets",
            labels=("rpi-auto", "bug"),
            length=len("The lamp flickers") + len("Please mend it."),
        )
    ]


def test_tokens_of_several_models_are_added_and_unknown_ones_stay_unknown(store):
    two = {"a": ModelUsage(input=1, output=2**40), "b": ModelUsage(input=2, reasoning=3)}
    ended(store, 1, usage=Usage(source=UsageSource.REPORTED, by_model=two))
    ended(store, 2, usage=Usage(source=UsageSource.UNKNOWN), cost=Cost(usd=None, priced_by="unknown"))
    unknown, known = store.experience(NOW, most=10)
    assert known.tokens == ModelUsage(input=3, output=2**40, reasoning=3)
    assert (unknown.tokens, unknown.cost) == (None, None)


def test_a_flat_rate_has_cost_nothing(store):
    ended(store, cost=Cost(usd=None, priced_by="subscription", source="subscription"))
    assert store.experience(NOW, most=1)[0].cost == 0


def test_only_the_newest_ended_runs_of_the_time_are_read(store):
    assert store.last_end() is None
    for number in range(1, 5):
        ended(store, number, now=NOW + number * HOUR)
    live = queue(store, 9)
    start(store, live.task_id)
    assert store.last_end() == NOW + 4 * HOUR
    found = store.experience(NOW + 2 * HOUR, most=2)
    assert [each.ended_at for each in found] == [NOW + 4 * HOUR, NOW + 3 * HOUR]


def test_a_selection_learns_of_a_run_as_soon_as_it_has_ended(store):
    settings = parse_settings('[providers.claude-cli]\ncommand_template = ["git"]\n', source="test")
    adaptive = resolvers_of(settings, store, lambda: LATER)["adaptive"]
    spec = SelectTarget(select="adaptive", options={"candidates": [str(SONNET)], "min_samples": 1})

    def seen():
        (candidate,) = adaptive(spec, {"labels": ["rpi-auto", "bug"]}, LATER).why["candidates"]
        return candidate["samples"], candidate["class"]

    assert seen() == (0, "all tasks")
    ended(store)
    assert seen() == (1, "tasks of the same labels")
    failed = RunOutcome(outcome=Outcome.FAILED, detail="no", exit_code=1)
    ended(store, 13, now=LATER + HOUR, outcome=failed, settlement=a_settlement(TaskState.FAILED))
    assert seen() == (1, "tasks of the same labels"), "the second ends after the moment that is asked about"
