"""Who is in which arm of an experiment, what came of it, and when there is an answer."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.config import ExperimentSettings, StopSettings, parse_settings
from adw_modules.routing import ModelRouter, Refusal, Target
from adw_modules.routing.evidence import Amount, always_valid, median_interval, wilson
from adw_modules.routing.experiments import Draw
from adw_modules.routing.trials import Fate, State, TrialRun, result_of, trials
from adw_modules.tasks.model import Outcome, TaskState

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TWO = (("a", 1), ("b", 1))


def issue(number: int, repo_id: int = 7, **fields):
    return {"task": {"repo_id": repo_id, "number": number, **fields}}


def dealt(draw: Draw, issues=range(1, 2001), repo_id: int = 7):
    return {number: draw.arm_of(issue(number, repo_id)) for number in issues}


def a_draw(share: float = 1.0, arms=TWO, name: str = "x") -> Draw:
    return Draw(experiment=name, share=share, arms=arms)


# -- who is in which arm ----------------------------------------------------------------------------------


def test_a_draw_is_the_same_for_ever():
    """Written down: another outcome would move the tasks of everybody's running experiments."""
    found = dealt(a_draw(0.5), range(1, 13))
    assert "".join(arm or "-" for arm in found.values()) == "-aab-b-baa--"


@pytest.mark.parametrize(
    ("arms", "share"),
    [(TWO, 1.0), (TWO, 0.2), ((("a", 1), ("b", 3)), 0.5), ((("a", 2), ("b", 1), ("c", 1)), 1.0)],
)
def test_arms_get_their_shares_of_issues_in_a_row(arms, share):
    found = Counter(dealt(a_draw(share, arms), range(1, 5001)).values())
    weights = sum(weight for _, weight in arms)
    expected = {name: 5000 * share * weight / weights for name, weight in arms}
    expected[None] = 5000 * (1 - share)
    chi = sum((found[arm] - count) ** 2 / count for arm, count in expected.items() if count)
    assert chi < 16.3  # of three degrees of freedom, a thousandth: the issues are fixed, so it holds or not


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_share_is_what_it_says(share):
    taking_part = sum(arm is not None for arm in dealt(a_draw(share), range(1, 20_001)).values())
    assert abs(taking_part - 20_000 * share) < 3 * (20_000 * share * (1 - share)) ** 0.5


def test_the_last_digit_of_an_issue_says_nothing_about_its_arm():
    found = Counter((number % 10, arm) for number, arm in dealt(a_draw(), range(1, 5001)).items())
    chi = sum((found[digit, arm] - 250) ** 2 / 250 for digit in range(10) for arm in "ab")
    assert chi < 43.8  # nineteen degrees of freedom, a thousandth


def test_two_experiments_deal_independently_of_each_other():
    one, other = dealt(a_draw(name="x")), dealt(a_draw(name="y"))
    found = Counter((one[number], other[number]) for number in one)
    assert sum((count - 500) ** 2 / 500 for count in found.values()) < 16.3


def test_two_repositories_are_dealt_independently_of_each_other():
    one, other = dealt(a_draw()), dealt(a_draw(), repo_id=8)
    found = Counter((one[number], other[number]) for number in one)
    assert sum((count - 500) ** 2 / 500 for count in found.values()) < 16.3


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 20), st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_retry_stays_in_its_arm_whatever_else_has_changed(repo_id, number, runs, title):
    draw, first = a_draw(0.5), issue(number, repo_id, id="gh-1", repo="old/name", runs=0)
    later = issue(number, repo_id, id="new/name/gh-1", repo="new/name", runs=runs, title=title)
    assert draw.arm_of(first) == draw.arm_of({**later, "retry_count": runs, "labels": [title]})


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_larger_share_adds_tasks_and_moves_none(share, other, number):
    small, large = sorted((share, other))
    before = a_draw(small).arm_of(issue(number))
    assert before is None or a_draw(large).arm_of(issue(number)) == before


def test_a_new_arm_moves_only_the_tasks_that_become_its_own():
    before, after = dealt(a_draw()), dealt(a_draw(arms=(*TWO, ("c", 1))))
    moved = {number for number in before if before[number] != after[number]}
    assert {after[number] for number in moved} == {"c"}
    assert 560 < len(moved) < 780  # a third of 2000


def test_an_arm_that_goes_moves_only_its_own_tasks_and_a_weight_moves_only_towards_itself():
    three = dealt(a_draw(arms=(*TWO, ("c", 1))))
    two, heavier = dealt(a_draw()), dealt(a_draw(arms=(("a", 1), ("b", 2), ("c", 1))))
    assert {three[number] for number in three if three[number] != two[number]} == {"c"}
    assert {heavier[number] for number in three if three[number] != heavier[number]} == {"b"}


@pytest.mark.parametrize(
    "attrs", [{}, {"task": None}, {"task": {}}, {"task": {"repo_id": 7}}, {"task": "gh-1"}]
)
def test_who_is_no_issue_takes_part_in_nothing(attrs):
    assert a_draw().arm_of(attrs) is None


def test_a_task_without_a_number_is_dealt_by_its_id():
    assert {a_draw().arm_of({"task": {"id": f"gh-{number}"}}) for number in range(20)} == {"a", "b"}


# -- as targets of the chain ------------------------------------------------------------------------------

CONFIG = """
[routing]
enabled = true
default_model = "base"
[[routing.rules]]
name = "bugs"
conditions = { labels = ["bug"] }
model = "sonnet"
[[experiments]]
name = "x"
conditions = { labels = ["bug"] }
arms = [
    { name = "a", provider = "claude-cli", model = "opus", fallbacks = ["claude-cli/spare"] },
    { name = "b", provider = "claude-cli", model = "haiku" },
]
"""
ROUTER = ModelRouter(parse_settings(CONFIG, source="x"))
IN_A = next(n for n in range(99) if a_draw().arm_of(issue(n)) == "a")
IN_B = next(n for n in range(99) if a_draw().arm_of(issue(n)) == "b")


def decide(number: int, *refused: str, router: ModelRouter = ROUTER, **attrs):
    def eligible(target: Target, _attrs):
        return Refusal("cooling") if target.model in refused else None

    return router.decide({"labels": ["bug"], **issue(number), **attrs}, eligible)


def drawn(decision):
    return decision.stored().trace.get("experiments")


def test_an_arm_has_a_line_of_its_own_in_the_trace():
    decision = decide(IN_B)
    assert (decision.rule, decision.model) == ("experiment x: b", "haiku")
    assert decision.log_line == "✓ Rule matched: experiment x: b → claude-cli/haiku"
    assert [(tried.rule, tried.matched) for tried in decision.trace] == [
        ("experiment x: a", False),
        ("experiment x: b", True),
    ]
    assert decision.trace[0].why.endswith("(it is in arm b)")
    assert drawn(decision) == [{"experiment": "x", "arm": "b", "assigned": True}]


def test_an_arm_that_cannot_be_used_leads_to_the_normal_rules_and_is_recorded_as_not_assigned():
    decision = decide(IN_B, "haiku")
    assert (decision.rule, decision.model) == ("bugs", "sonnet")
    assert drawn(decision) == [{"experiment": "x", "arm": "b", "assigned": False}]
    assert "haiku is not eligible: cooling" in decision.trace[1].why


def test_a_target_that_failed_in_an_arm_is_followed_by_the_arms_own_fallbacks():
    decision = decide(IN_A, "opus", retry_count=1)
    assert (decision.rule, decision.model) == ("experiment x: a", "spare")
    assert drawn(decision) == [{"experiment": "x", "arm": "a", "assigned": False}]
    assert decide(IN_A, "opus", "spare", retry_count=1).model == "sonnet"


def test_a_task_that_does_not_meet_the_condition_is_in_no_arm():
    decision = ROUTER.decide({"labels": ["docs"], **issue(IN_A)})
    assert (decision.rule, drawn(decision)) == (None, None)


def test_of_two_experiments_the_first_of_the_file_counts_and_the_other_changes_nothing_in_it():
    second = CONFIG + CONFIG[CONFIG.index("[[experiments]]") :].replace('"x"', '"y"').replace("opus", "other")
    both = ModelRouter(parse_settings(second, source="x"))
    for number in range(50):
        assert decide(number, router=both).rule == decide(number).rule


def test_experiments_rest_while_routing_is_disabled():
    router = ModelRouter(parse_settings(CONFIG.replace("enabled = true", "enabled = false"), source="x"))
    assert decide(IN_A, router=router).rule is None


@given(st.integers(1, 10**6), st.sets(st.sampled_from(["opus", "haiku", "spare", "sonnet"])))
@settings(max_examples=50, deadline=None)
def test_the_same_task_has_the_same_decision(number, refused):
    one, other = decide(number, *refused), decide(number, *refused)
    assert (one.rule, one.model, drawn(one)) == (other.rule, other.model, drawn(other))


# -- what came of it --------------------------------------------------------------------------------------

EXPERIMENT = ExperimentSettings.model_validate(
    {
        "name": "x",
        "arms": [{"name": n, "provider": "p", "model": n} for n in ("a", "b")],
        "stop": {"min_samples": 10},
    }
)


def a_run(task_id: int, arm: str | None = "a", **changes) -> TrialRun:
    values = {
        "task_id": task_id,
        "state": TaskState.SUCCEEDED,
        "is_parked": True,
        "attempt": 1,
        "arm": arm,
        "outcome": Outcome.SUCCEEDED,
        "began": NOW,
        "ended": NOW + timedelta(minutes=1),
        "cost": Decimal("0.5"),
    }
    return TrialRun(**(values | changes))


def test_a_task_counts_for_the_arm_of_its_first_run_with_all_its_runs():
    failed = {"outcome": Outcome.FAILED, "state": TaskState.SUCCEEDED}
    (trial,) = trials([a_run(1, **failed), a_run(1, None, attempt=2), a_run(1, "b", attempt=3)])
    assert (trial.arm, trial.fate, trial.again) == ("a", Fate.SUCCEEDED, 2)
    assert (trial.cost, trial.seconds) == (Decimal("1.5"), 180)


def test_runs_before_the_arm_count_nowhere_and_a_task_that_came_in_at_a_retry_does_not_at_all():
    assert [trial.again for trial in trials([a_run(1, None), a_run(1)])] == [0]
    assert trials([a_run(1, None), a_run(1, attempt=2)]) == []


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.INTERRUPTED, Outcome.RATE_LIMITED])
def test_a_run_that_could_not_work_is_no_rework(outcome):
    (trial,) = trials([a_run(1, outcome=outcome), a_run(1)])
    assert trial.again == 0


def test_a_cost_that_is_not_known_makes_the_tasks_cost_unknown():
    (trial,) = trials([a_run(1, cost=None), a_run(1)])
    assert trial.cost is None
    (arm, _) = result_of(EXPERIMENT, [a_run(1, cost=None), a_run(2)]).arms
    assert (arm.cost, arm.unknown_costs) == (0.5, 1)


@pytest.mark.parametrize(
    ("state", "is_parked", "fate"),
    [
        (TaskState.SUCCEEDED, True, Fate.SUCCEEDED),
        (TaskState.FAILED, True, Fate.FAILED),
        (TaskState.BLOCKED, True, Fate.FAILED),
        (TaskState.BLOCKED, False, Fate.OPEN),
        (TaskState.RUNNING, True, Fate.OPEN),
        (TaskState.RETRY_WAIT, False, Fate.OPEN),
        (TaskState.CANCELLED, True, Fate.CANCELLED),
    ],
)
def test_what_became_of_a_task(state, is_parked, fate):
    (trial,) = trials([a_run(1, state=state, is_parked=is_parked)])
    assert trial.fate is fate


def test_an_arm_that_is_no_longer_configured_is_shown_and_not_compared():
    found = result_of(EXPERIMENT, [a_run(n, "gone") for n in range(50)])
    assert [(arm.arm, arm.target, arm.tasks) for arm in found.arms] == [
        ("a", "p/a", 0),
        ("b", "p/b", 0),
        ("gone", None, 50),
    ]
    assert found.answer.text == "running: arm a needs 10 more"


def runs_of(arm: str, succeeded: int, of: int, start: int):
    return [
        a_run(start + n, arm, state=TaskState.SUCCEEDED if n < succeeded else TaskState.FAILED)
        for n in range(of)
    ]


@pytest.mark.parametrize(
    ("a", "b", "stop", "state", "text"),
    [
        ((9, 9), (0, 50), {}, State.RUNNING, "running: arm a needs 1 more"),
        ((50, 50), (10, 50), {}, State.BETTER, "stop: a succeeds more often"),
        ((10, 50), (50, 50), {}, State.BETTER, "stop: b succeeds more often"),
        ((30, 40), (26, 40), {}, State.RUNNING, "running: no difference is certain yet"),
        ((90, 100), (90, 100), {"margin": 0.2}, State.RUNNING, "running: no difference is certain yet"),
        ((90, 100), (90, 100), {"margin": 0.5}, State.NO_DIFFERENCE, "stop: no difference within 50 points"),
        ((30, 40), (26, 40), {"max_samples": 40}, State.UNDECIDED, "stop: undecided after 40 tasks"),
    ],
)  # fmt: skip
def test_when_there_is_an_answer(a, b, stop, state, text):
    experiment = EXPERIMENT.model_copy(update={"stop": StopSettings(min_samples=10, **stop)})
    found = result_of(experiment, [*runs_of("a", *a, 0), *runs_of("b", *b, 1000)])
    assert found.answer.state is state
    assert found.answer.text.startswith(text)


# -- intervals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "confidence"), [(1, 0.9), (20, 0.95), (500, 0.99)])
def test_without_a_success_the_interval_for_every_look_ends_where_the_formula_says(n, confidence):
    ends = 1 - ((1 - confidence) / (n + 1)) ** (1 / n)  # (n + 1) (1 - p)^n = 1 - confidence
    assert always_valid(0, n, confidence).high == pytest.approx(ends)
    assert always_valid(n, n, confidence).low == pytest.approx(1 - ends)


def test_each_arm_has_its_part_of_the_error():
    (arm, _) = result_of(EXPERIMENT, runs_of("a", 30, 40, 0)).arms
    assert arm.safe == always_valid(30, 40, 0.975)
    assert arm.success == wilson(30, 40, 0.95)


def test_wilson_is_as_published():
    found = wilson(81, 263, 0.95)  # Newcombe 1998, example 2
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert (wilson(0, 10, 0.95).low, wilson(10, 10, 0.95).high) == (0.0, 1.0)


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=80, deadline=None)
def test_the_interval_for_every_look_is_around_the_rate_and_wider_than_the_one_for_a_single_look(
    s, f, confidence
):
    if not s + f:
        return
    always, once = always_valid(s, s + f, confidence), wilson(s, s + f, confidence)
    assert 0 <= always.low <= s / (s + f) <= always.high <= 1
    assert always.width >= once.width * 0.95


def test_who_looks_after_every_task_is_seldom_wrong():
    """All 2^14 orders of results of a fair coin: how many ever put one half outside, exactly."""
    outside = {
        (s, n)
        for n in range(1, 15)
        for s in range(n + 1)
        if not always_valid(s, n, 0.9).low < 0.5 or not always_valid(s, n, 0.9).high > 0.5
    }
    inside: dict[int, int] = {0: 1}
    for n in range(1, 15):
        following: Counter[int] = Counter()
        for s, ways in inside.items():
            for heads in (0, 1):
                if (s + heads, n) not in outside:
                    following[s + heads] += ways
        inside = following
    wrong = 1 - sum(inside.values()) / 2**14
    assert 0 < wrong <= 0.1


@pytest.mark.parametrize("n", [1, 5, 6, 10, 25, 100, 999, 1000, 2000])
def test_the_interval_of_the_median_covers_it_as_often_as_it_says(n):
    found = median_interval([float(value) for value in range(n)], 0.95)
    if n < 6:
        assert found is None
        return
    below = int(found.low)
    assert found.high == n - 1 - below
    outside = 2 * sum(comb(n, k) for k in range(below + 1)) / 2**n
    assert outside <= 0.05
    if n < 1000:
        assert 2 * sum(comb(n, k) for k in range(below + 2)) / 2**n > 0.05  # no wider than it must be


def test_one_enormous_cost_does_not_move_the_interval_of_the_median():
    usual = [1.0 + n / 100 for n in range(30)]
    assert median_interval([*usual, 2.0], 0.95) == median_interval([*usual, 1e9], 0.95)


def test_of_one_amount_nothing_can_be_said():
    assert Amount.of([1.0]) is None
    assert Amount.of([1.0, 3.0]).mean == 2.0
