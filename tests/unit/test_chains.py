"""Chains of targets: their spellings, their order, who is asked, and that they end."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.config import RetrySettings, parse_settings
from adw_modules.errors import ConfigError
from adw_modules.routing import ModelRouter, NoRoute, Refusal, RoutingDecision, Target
from adw_modules.routing.failover import Elsewhere, elsewhere, left, not_failed_here
from adw_modules.routing.overrides import asking, wanted
from adw_modules.routing.rates import Asked, Rates, Told, Window
from adw_modules.routing.targets import spread
from adw_modules.tasks.model import FailedTarget, FailureClass, Outcome, Override, Priority, RunOutcome
from adw_modules.tasks.planning import Dispatch, Limits, Park, Supply, plan
from adw_modules.tasks.retries import after_run
from tests.builders import NOW, a_run, a_snapshot, a_task, later

PROVIDERS = "".join(f'[providers.{name}]\ncommand_template = ["true"]\n' for name in ("a", "b", "c"))
CONFIG = (
    PROVIDERS
    + """
[routing]
enabled = true
default_provider = "a"
default_model = "base"
fallbacks = ["c/last"]

[[models]]
name = "base"
provider = "a"
context_window = 1000
capabilities = ["code"]

[[models]]
name = "wide"
provider = "b"
context_window = 5000
capabilities = ["code", "vision"]

[[routing.rules]]
name = "first"
condition = "labels contains 'x'"
provider = "a"
model = "one"
fallbacks = ["b/two", { model = "wide" }]

[[routing.rules]]
name = "spread"
condition = "labels contains 'spread'"
targets = [{ provider = "a", model = "s", weight = 3 }, { provider = "b", model = "s" }]

[[routing.rules]]
name = "sees"
condition = "labels contains 'picture'"
target = "a/base"
fallbacks = ["b/wide"]
requires = ["vision"]
"""
)
LIMITS = Limits(max_concurrent=3, max_runs_per_issue=15, max_tokens_per_issue=10**9, per_provider={})


@pytest.fixture
def router() -> ModelRouter:
    return ModelRouter(parse_settings(CONFIG, source="x"))


def refusing(**reasons: Refusal):
    by_text = {name.replace("__", "/"): refusal for name, refusal in reasons.items()}
    return lambda target, _attrs: by_text.get(str(target))


def target_of(decision) -> str:
    assert isinstance(decision, RoutingDecision), decision.reason
    return f"{decision.provider}/{decision.model}"


def test_a_chain_is_the_rules_own_target_then_its_fallbacks_then_the_defaults(router) -> None:
    decision = router.decide({"labels": ["x"]})
    assert target_of(decision) == "a/one"
    assert [(each.target, each.eligible) for each in decision.targets] == [
        ("a/one", True),
        ("b/two", None),
        ("b/wide", None),
        ("a/base", None),
        ("c/last", None),
    ]


def test_a_target_that_cannot_be_used_gives_way_to_the_next_and_the_trace_says_until_when(router) -> None:
    decision = router.decide({"labels": ["x"]}, refusing(a__one=Refusal("cooling", later(60))))
    assert (target_of(decision), decision.rule) == ("b/two", "first")
    first, second = decision.targets[:2]
    assert (first.eligible, first.why, first.until) == (False, "cooling", later(60))
    assert (second.eligible, second.why) == (True, None)
    assert decision.stored().trace["targets"][0].until == later(60)


def test_after_all_rules_and_the_default_come_the_fallbacks_of_the_defaults(router) -> None:
    assert target_of(router.decide({}, refusing(a__base=Refusal("no")))) == "c/last"


def test_nobody_eligible_names_the_earliest_end_of_a_wait(router) -> None:
    found = router.decide({}, refusing(a__base=Refusal("1", later(90)), c__last=Refusal("2", later(30))))
    assert isinstance(found, NoRoute)
    assert (found.until, found.is_busy) == (later(30), False)


def test_a_model_without_what_the_rule_requires_is_passed_over_for_that_rule_only(router) -> None:
    decision = router.decide({"labels": ["picture"]})
    assert target_of(decision) == "b/wide"
    assert decision.targets[0].why == "[[models]] does not say that it has vision"
    assert target_of(router.decide({"labels": ["picture"]}, refusing(b__wide=Refusal("no")))) == "a/base"


def test_a_task_that_needs_more_context_than_a_model_has_goes_on_in_the_chain(router) -> None:
    decision = router.decide({"context_needed": 2000})
    assert target_of(decision) == "c/last"
    assert decision.targets[0].why == "its context of 1,000 tokens is too small for 2,000"


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ('target = "nothing"', 'a target is written "provider/model"'),
        ('target = { select = "dearest" }', "there is no selection 'dearest'"),
        ('target = { modle = "m" }', "did you mean model?"),
        ('provider = "a"\ntarget = "a/m"', "keep one of them"),
        ('target = "a/m"\nfallbacks = ["b/m", "a/m"]', "a/m stands in its chain of targets twice"),
        ('model = "base"\nfallbacks = ["a/base"]', "a/base stands in its chain of targets twice"),
        ('target = "aa/m"', 'names "aa", which no [providers] table has; did you mean "a"?'),
        ('fallbacks = ["bb/m"]', 'names "bb"'),
        ('targets = [{ select = "cheapest" }]', "cannot be a selection: tasks are spread"),
        ("targets = [{ weight = 2 }]", "needs a provider, a model, or both"),
        ('targets = [{ model = "m", weight = 0 }]', "weight must be a whole number of 1 or more"),
    ],
)
def test_a_bad_target_is_refused_when_the_file_is_read(rule, sentence) -> None:
    text = f'{PROVIDERS}[routing]\ndefault_provider = "a"\n[[routing.rules]]\nname = "r"\n{rule}\n'
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="x")
    assert sentence in str(caught.value)


# -- the weighted spread --------------------------------------------------------------------------------


def test_a_spread_is_the_same_for_a_task_for_ever_and_the_others_are_its_fallbacks(router) -> None:
    attrs = {"labels": ["spread"], "task": {"id": "gh-12"}}
    first, again = router.decide(attrs), router.decide({**attrs, "retry_count": 2, "hour": 3})
    assert target_of(first) == target_of(again)
    other = ({"a/s", "b/s"} - {target_of(first)}).pop()
    blocked = refusing(**{target_of(first).replace("/", "__"): Refusal("no")})
    assert target_of(router.decide(attrs, blocked)) == other


def test_a_spread_gives_each_target_the_share_of_its_weight() -> None:
    weighted = [(Target("p", "a"), 3), (Target("p", "b"), 1)]
    drawn = Counter(spread(f"gh-{n}", weighted)[0].model for n in range(4000))
    assert 2850 < drawn["a"] < 3150  # 3000 expected, standard deviation 27


def test_a_target_that_is_added_moves_only_tasks_to_itself() -> None:
    two = [(Target("p", "a"), 1), (Target("p", "b"), 1)]
    for n in range(500):
        before, after = spread(f"gh-{n}", two)[0], spread(f"gh-{n}", [*two, (Target("p", "c"), 1)])[0]
        assert after in {before, Target("p", "c")}


# -- properties -----------------------------------------------------------------------------------------

_TARGETS = st.sampled_from([Target(p, m) for p in "abc" for m in "xyz"])
_CHAINS = st.lists(_TARGETS, min_size=1, max_size=5, unique=True)


def made(chains: list[list[Target]]) -> ModelRouter:
    rules = [
        {"name": f"r{n}", "target": str(chain[0]), "fallbacks": [str(target) for target in chain[1:]]}
        for n, chain in enumerate(chains)
    ]
    return ModelRouter({"routing": {"enabled": True, "default_model": "d", "rules": rules}})


@given(st.lists(_CHAINS, max_size=4), st.sets(_TARGETS), st.dictionaries(st.text(max_size=5), st.integers()))
def test_the_same_snapshot_gives_the_same_decision(chains, refused, attrs) -> None:
    def eligible(target, _attrs):
        return Refusal("no") if target in refused else None

    router = made(chains)
    assert (
        router.decide(attrs, eligible)
        == router.decide(attrs, eligible)
        == made(chains).decide(attrs, eligible)
    )


@given(st.lists(_CHAINS, min_size=1, max_size=4), st.sets(_TARGETS), st.data())
def test_a_target_that_is_not_eligible_changes_nothing_wherever_it_is_added(chains, refused, data) -> None:
    extra = Target("z", "never")

    def eligible(target, _attrs):
        return Refusal("no") if target in refused | {extra} else None

    before = made(chains).decide({}, eligible)
    row = data.draw(st.integers(0, len(chains) - 1))
    place = data.draw(st.integers(0, len(chains[row])))
    more = [list(chain) for chain in chains]
    more[row].insert(place, extra)
    after = made(more).decide({}, eligible)
    assert type(before) is type(after)
    if isinstance(before, RoutingDecision):
        assert (before.provider, before.model, before.rule) == (after.provider, after.model, after.rule)


@given(st.lists(_CHAINS, min_size=1, max_size=3))
def test_no_chain_asks_a_target_twice(chains) -> None:
    asked: list[Target] = []

    def eligible(target, _attrs):
        asked.append(target)
        return Refusal("no")

    assert isinstance(made(chains).decide({}, eligible), NoRoute)
    assert len(asked) == len(set(asked))


# -- failover -------------------------------------------------------------------------------------------


def ended(outcome: Outcome, failure_class: FailureClass | None = None) -> RunOutcome:
    return RunOutcome(outcome=outcome, failure_class=failure_class, detail="it ended")


@pytest.mark.parametrize(
    ("outcome", "status", "where"),
    [
        (ended(Outcome.RATE_LIMITED), 429, Elsewhere.ANYWHERE),
        (ended(Outcome.AUTH_FAILED), 401, Elsewhere.ANYWHERE),
        (ended(Outcome.STALLED), None, Elsewhere.ANYWHERE),
        (ended(Outcome.FAILED, FailureClass.API_ERROR), 500, Elsewhere.ANYWHERE),
        (ended(Outcome.FAILED, FailureClass.API_ERROR), 404, Elsewhere.ANYWHERE),
        (ended(Outcome.FAILED, FailureClass.SPAWN), None, Elsewhere.ANYWHERE),
        (ended(Outcome.FAILED, FailureClass.PROMPT_TOO_LONG), 413, Elsewhere.LARGER),
        (ended(Outcome.FAILED, FailureClass.API_ERROR), 400, Elsewhere.NOWHERE),
        (ended(Outcome.FAILED, FailureClass.API_ERROR), 422, Elsewhere.NOWHERE),
        (ended(Outcome.FAILED, FailureClass.EXIT_CODE), None, Elsewhere.NOWHERE),
        (ended(Outcome.FAILED, FailureClass.POISON), None, Elsewhere.NOWHERE),
        (ended(Outcome.NO_CHANGES), None, Elsewhere.NOWHERE),
        (ended(Outcome.LOST), None, Elsewhere.NOWHERE),
        (ended(Outcome.OVER_BUDGET), None, Elsewhere.NOWHERE),
    ],
)
def test_only_what_is_about_the_target_is_tried_elsewhere(outcome, status, where) -> None:
    """A 4xx that blames the request is refused by everybody who gets the same request."""
    assert elsewhere(outcome, status) is where


def entry(target: str, eligible: bool | None = None, until: str | None = None):
    return {"target": target, "eligible": eligible, "why": None, "until": until}


def a_failure(target: str, *, until: float = 60, needs: int | None = None) -> FailedTarget:
    provider, model = target.split("/")
    return FailedTarget(
        provider=provider, model=model, why="api_error", until=later(until), needs_context=needs
    )


def test_the_target_that_has_just_failed_and_all_before_it_are_no_place_to_go() -> None:
    chain = [
        entry("a/m", True),
        entry("b/m"),
        entry("c/m", False),
        entry("d/m", False, "2026-01-01T00:00:00"),
    ]
    found = left(Elsewhere.ANYWHERE, Target("a", "m"), chain, [a_failure("b/m")], lambda _t: None)
    assert [str(target) for target in found] == ["d/m"]


def test_a_prompt_that_was_too_long_goes_only_where_the_context_is_known_to_be_larger() -> None:
    windows = {Target("a", "m"): 100, Target("b", "m"): 100, Target("d", "m"): 200}
    chain = [entry("a/m", True), entry("b/m"), entry("c/m"), entry("d/m")]
    found = left(Elsewhere.LARGER, Target("a", "m"), chain, [], windows.get)
    assert [str(target) for target in found] == ["d/m"]
    check = not_failed_here([a_failure("a/m", needs=101)], windows.get, later(9_999_999))
    assert [bool(check(Target(p, "m"), {})) for p in "abcd"] == [True, True, True, False]


def test_a_failed_target_comes_back_when_its_own_back_off_is_over() -> None:
    check = not_failed_here([a_failure("a/m", until=60)], lambda _t: None, NOW)
    refused = check(Target("a", "m"), {})
    assert refused is not None
    assert refused.until == later(60)
    assert (
        not_failed_here([a_failure("a/m", until=60)], lambda _t: None, later(60))(Target("a", "m"), {})
        is None
    )


def test_moving_on_waits_for_nothing_but_counts_what_counts() -> None:
    task = a_task(attempts=1)
    failed = ended(Outcome.FAILED, FailureClass.API_ERROR)
    verdict = after_run(task, failed, policy=RetrySettings(), max_attempts=3, now=NOW, moves_on=True)
    assert (verdict.state.value, verdict.wake_at, verdict.attempts) == ("retry_wait", NOW, 1)
    last = after_run(
        a_task(attempts=3), failed, policy=RetrySettings(), max_attempts=3, now=NOW, moves_on=True
    )
    assert last.state.value == "failed", "attempts times targets is no more than attempts"


@given(st.lists(_TARGETS, min_size=1, max_size=9, unique=True), st.data())
def test_a_task_that_everything_rate_limits_moves_on_at_most_once_to_each_target(chain, data) -> None:
    """Fallback loops: rate limits use up no attempt, so only the visited targets bound the moves."""
    stored = [entry(str(target)) for target in chain]
    current, visited, moves = chain[0], [], 0
    while found := left(Elsewhere.ANYWHERE, current, stored, visited, lambda _t: None):
        visited.append(a_failure(str(current)))
        current = data.draw(st.sampled_from(found))
        moves += 1
        assert moves < len(chain)


# -- plans: parking, reserve, rates ---------------------------------------------------------------------


def test_a_parked_task_wakes_with_the_first_target_and_uses_no_attempt(router) -> None:
    supply = Supply(
        checks=[lambda _task: refusing(a__base=Refusal("r", later(500)), c__last=Refusal("r", later(200)))]
    )
    (action,) = plan(a_snapshot(ready=(a_task(),)), limits=LIMITS, route=router.decide, supply=supply)
    assert isinstance(action, Park)
    assert action.wake_at == later(200)


def test_reserved_workers_are_left_free_for_urgent_tasks_only() -> None:
    limits = Limits(
        max_concurrent=3,
        max_runs_per_issue=15,
        max_tokens_per_issue=10**9,
        per_provider={},
        reserved_high_priority=1,
    )
    normal = tuple(a_task(task_id=n, name=f"gh-{n}") for n in range(1, 5))
    urgent = a_task(task_id=9, name="gh-9", priority=Priority.CRITICAL)
    route = ModelRouter({}).decide
    started = [a.task.task_id for a in plan(a_snapshot(ready=normal), limits=limits, route=route)]
    assert started == [1, 2]
    running = tuple((task, a_run(run_id=task.task_id, task_id=task.task_id)) for task in normal[:2])
    snapshot = a_snapshot(ready=(urgent, *normal[2:]), running=running)
    assert [a.task.task_id for a in plan(snapshot, limits=limits, route=route)] == [9]


def test_requests_and_tokens_of_a_minute_bound_what_starts_until_the_minute_has_passed() -> None:
    window = Window()
    window.note(NOW, requests=1, tokens=600)
    window.note(later(20), requests=1, tokens=600)
    assert window.refusal("p", Rates(requests=3, tokens=2000), later(30)) is None
    by_requests = window.refusal("p", Rates(requests=2), later(30))
    by_tokens = window.refusal("p", Rates(tokens=600), later(30))
    assert by_requests is not None
    assert by_requests.until == later(60)
    assert by_tokens is not None
    assert by_tokens.until == later(80), "half of it is still as much as is allowed"
    assert window.refusal("p", Rates(requests=2, tokens=600), later(81)) is None


def test_what_a_provider_says_is_left_bounds_what_starts_of_that_model_until_its_time() -> None:
    limits = Limits(max_concurrent=5, max_runs_per_issue=9, max_tokens_per_issue=10**9, per_provider={})
    window = Window(told={"claude-sonnet-4-5": Told(remaining=2, resets_at=later(90))})
    tasks = tuple(a_task(task_id=n, name=f"gh-{n}") for n in range(1, 5))
    supply = Supply(windows={"claude-cli": window})

    def planned(now):
        snapshot = a_snapshot(ready=tasks, now=now)
        return plan(snapshot, limits=limits, route=ModelRouter({}).decide, supply=supply)

    *started, parked, _ = planned(NOW)
    assert [type(action) for action in started] == [Dispatch, Dispatch]
    assert isinstance(parked, Park)
    assert parked.wake_at == later(90)
    assert "takes no more requests for claude-sonnet-4-5" in parked.cause
    window.start("claude-sonnet-4-5", NOW)
    assert [type(action) for action in planned(NOW)][:2] == [Dispatch, Park]
    assert all(isinstance(action, Dispatch) for action in planned(later(90)))
    assert window.used_up("claude-cli", "another", NOW) is None


def test_the_minute_before_a_start_is_made_from_the_runs_that_are_recorded() -> None:
    def run(claimed, ended, tokens):
        ends = None if ended is None else later(ended)
        return Asked(provider="p", claimed_at=later(claimed), ended_at=ends, tokens=tokens)

    window = Window.of([run(-240, None, 4000), run(-30, -10, 600), run(-90, -70, 9000)], NOW)
    found = window.refusal("p", Rates(tokens=1600), NOW)
    assert found is not None, "a quarter of the long one, all of the short one, nothing of the old one"
    assert window.refusal("p", Rates(tokens=1700), NOW) is None
    assert window.refusal("p", Rates(requests=1), NOW).until == later(30)
    assert window.refusal("p", Rates(requests=2), NOW) is None
    assert window.refusal("p", Rates(tokens=1), later(60)) is None


@given(
    st.lists(st.tuples(_TARGETS, st.integers(1, 50)), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
def test_nobody_starves_whatever_cools_for_a_while(cooling, priorities) -> None:
    """Each task is started in the end: waits end, and parked tasks come back when they do."""
    until = {target: later(seconds) for target, seconds in cooling}
    router = made([list(dict.fromkeys(target for target, _ in cooling))])
    waiting = dict.fromkeys(range(len(priorities)), NOW)
    now = NOW
    for _ in range(200):
        ready = tuple(
            a_task(task_id=n, name=f"gh-{n}", priority=Priority(priorities[n]))
            for n in sorted(waiting, key=lambda n: (priorities[n], n))
            if waiting[n] <= now
        )
        supply = Supply(
            checks=[
                lambda _task, now=now: (
                    lambda target, _attrs: (
                        Refusal("cools", until[target])
                        if until.get(target, NOW) > now
                        else Refusal("never", later(70))
                        if target not in until
                        else None
                    )
                )
            ]
        )
        for action in plan(
            a_snapshot(ready=ready, now=now), limits=LIMITS, route=router.decide, supply=supply
        ):
            if isinstance(action, Dispatch):
                del waiting[action.task.task_id]
            elif isinstance(action, Park):
                assert action.wake_at is not None
                assert action.wake_at > now
                waiting[action.task.task_id] = action.wake_at
        if not waiting:
            return
        now += timedelta(seconds=1)
    raise AssertionError(f"still waiting: {waiting}")


# -- overrides ------------------------------------------------------------------------------------------

PREFIXES = {"provider": "provider:", "model": "model:"}


def asked(**values):
    return {"override": {"labels": ["provider:B"], "by": ["ada"], "refused": [], **values}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"provider": "B"}, "b/wide"),
        ({"provider": "c"}, "c/last"),
        ({"model": "WIDE"}, "b/wide"),
        ({"provider": "a", "model": "odd"}, "a/odd"),
    ],
)
def test_a_label_beats_the_rules_and_what_it_leaves_out_is_completed(router, override, expected) -> None:
    decision = router.decide(
        {"labels": ["x"], **asked(**override)} if "c" not in override.values() else asked(**override)
    )
    assert isinstance(decision, RoutingDecision)
    if override == {"provider": "B"}:
        expected = "b/two"  # where the task would have come to
    assert target_of(decision) == expected
    assert (decision.rule, decision.reason) == ("label provider:B", "asked for by ada")
    assert decision.stored().trace["attrs"]["override"]["by"] == ["ada"]


def test_who_asks_for_a_target_waits_for_it_and_gets_no_other(router) -> None:
    found = router.decide(asked(provider="b"), refusing(b__wide=Refusal("cooling", later(60))))
    assert isinstance(found, NoRoute)
    assert found.until == later(60)


WORKFLOWS = """
[workflows.quick]
stages = [{ name = "only", provider = "b", model = "wide", prompt = "short" }]

[workflows.seed]
stages = [{ name = "plan", model = "one" }, { name = "implement", model = "wide" }, { name = "review" }]

[workflows.unclear]
stages = [{ name = "plan" }, { name = "build" }]
"""


@pytest.mark.parametrize(
    ("override", "target", "stage", "prompt"),
    [
        ({"workflow": "QUICK"}, "b/wide", "only", "short"),
        ({"workflow": "seed"}, "b/wide", "implement", "implement"),
        ({"workflow": "quick", "model": "base"}, "a/base", "only", "short"),
        ({"workflow": "quick", "provider": "c"}, "c/wide", "only", "short"),
        ({"workflow": "seed", "provider": "a"}, "a/wide", "implement", "implement"),
    ],
)
def test_a_label_asks_for_the_stage_of_a_workflow_that_a_run_does(override, target, stage, prompt) -> None:
    decision = ModelRouter(parse_settings(CONFIG + WORKFLOWS, source="x")).decide(asked(**override))
    assert target_of(decision) == target
    kept = decision.stored().trace["workflow"]
    assert (kept["stage"], kept["prompt"]) == (stage, prompt)


@pytest.mark.parametrize(("name", "why"), [("quik", "did you mean quick?"), ("unclear", "has 2 stages")])
def test_a_workflow_that_no_run_can_follow_is_waited_for(name, why) -> None:
    found = ModelRouter(parse_settings(CONFIG + WORKFLOWS, source="x")).decide(asked(workflow=name))
    assert isinstance(found, NoRoute)
    assert why in found.reason
    assert (found.until, found.is_busy) == (None, False)


def test_only_labels_that_are_there_and_were_put_there_by_permitted_people_count() -> None:
    overrides = [
        Override(label="provider:b", by="mallory", permitted=False),
        Override(label="model:wide", by="ada", permitted=True),
        Override(label="model:gone", by="ada", permitted=True),
    ]
    found = wanted(overrides, ["bug", "provider:b", "model:wide"], PREFIXES)
    assert found == {
        "model": "wide",
        "labels": ["model:wide"],
        "by": ["ada"],
        "refused": ["provider:b (by mallory)"],
    }
    assert wanted(overrides[2:], ["bug"], PREFIXES) is None
    assert asking(["Provider:b", "provider:", "mymodel:x"], PREFIXES) == ["Provider:b"]
    assert asking(["provider:b"], {"provider": "", "model": ""}) == []


def test_what_one_step_starts_counts_as_requests_of_this_minute_before_it_has_started() -> None:
    limits = Limits(
        max_concurrent=5,
        max_runs_per_issue=9,
        max_tokens_per_issue=10**9,
        per_provider={},
        rates={"claude-cli": Rates(requests=2)},
    )
    route = ModelRouter({}).decide
    tasks = tuple(a_task(task_id=n, name=f"gh-{n}") for n in range(1, 5))
    actions = plan(a_snapshot(ready=tasks), limits=limits, route=route)
    assert [type(action) for action in actions] == [Dispatch, Dispatch, Park, Park]
    assert [action.wake_at for action in actions if isinstance(action, Park)] == [later(60)] * 2

    window = Window()
    window.note(later(-30), requests=1)
    supply = Supply(windows={"claude-cli": window})
    actions = plan(a_snapshot(ready=tasks[:3]), limits=limits, route=route, supply=supply)
    assert [type(action) for action in actions] == [Dispatch, Park, Park]
    assert [action.wake_at for action in actions if isinstance(action, Park)] == [later(30)] * 2
