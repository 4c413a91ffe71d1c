"""The pure core as a whole, driven at random: what must hold whatever runs come to and whenever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from adw_modules.routing import NoRoute, Refusal, RoutingDecision, Target
from adw_modules.tasks.lifecycle import Event, advance, allows
from adw_modules.tasks.model import FailureClass, Outcome, Run, RunOutcome, Snapshot, Task, TaskState
from adw_modules.tasks.planning import Dispatch, Limits, Park, Requeue, plan
from adw_modules.tasks.retries import UNCOUNTED, after_run
from tests.builders import NOW, a_run, a_task

MAX_ATTEMPTS = 3
MAX_RUNS = 6


@dataclass(frozen=True)
class Policy:
    base_delay_seconds: float = 60
    factor: float = 2
    max_delay_seconds: float = 3600
    fast_exit_base_delay_seconds: float = 300
    rate_limit_delay_seconds: float = 300
    auth_delay_seconds: float = 3600
    on_lost: str = "retry"
    max_lost_runs: int = 3


class CoreMachine(RuleBasedStateMachine):
    """A store of plain dictionaries around the real lifecycle, planning and retries."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.by_id: dict[int, Task] = {}
        self.live: dict[int, list[Run]] = {}
        self.counted: dict[int, int] = {}  # attempts that really failed or ended, since the last signal
        self.ended: dict[int, TaskState] = {}
        self.is_routable = True
        self.slots = 1
        self.started_last = 0
        self.free_before = 0

    @initialize(slots=st.integers(1, 3))
    def set_up(self, slots: int) -> None:
        self.slots = slots

    @rule(target=tasks)
    def label_an_issue(self) -> int:
        number = len(self.by_id) + 1
        self.by_id[number] = a_task(task_id=number, name=f"gh-{number}", issue_number=number)
        self.live[number], self.counted[number] = [], 0
        return number

    @rule(seconds=st.integers(1, 4000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(is_routable=st.booleans())
    def providers_change(self, is_routable: bool) -> None:
        self.is_routable = is_routable

    @rule(paused=st.booleans())
    def the_loop_turns(self, paused: bool) -> None:
        limits = Limits(
            max_concurrent=self.slots, max_runs_per_issue=MAX_RUNS, max_tokens_per_issue=1000, per_provider={}
        )
        snapshot = self.snapshot(paused)
        self.free_before = self.slots - len(snapshot.running)
        self.started_last = 0
        for action in plan(snapshot, limits=limits, route=self.route):
            self.do(action)

    @rule(
        number=tasks,
        outcome=st.sampled_from(Outcome),
        failure=st.sampled_from(FailureClass),
        wait=st.none() | st.integers(-10, 500),
    )
    def a_run_ends(self, number: int, outcome: Outcome, failure: FailureClass, wait: int | None) -> None:
        if not self.live[number]:
            return
        self.live[number].pop()
        result = RunOutcome(
            outcome=outcome,
            detail="it ended",
            failure_class=failure if outcome is Outcome.FAILED else None,
            retry_at=None if wait is None else self.now + timedelta(seconds=wait),
        )
        task = self.by_id[number]
        verdict = after_run(task, result, policy=Policy(), max_attempts=MAX_ATTEMPTS, now=self.now)
        self.counted[number] += outcome not in UNCOUNTED
        self.put(
            number,
            state=verdict.state,
            cause=verdict.cause,
            wake_at=verdict.wake_at,
            attempts=verdict.attempts,
            lost=verdict.lost,
        )

    @rule(number=tasks, outcome=st.sampled_from([Outcome.FAILED, Outcome.LOST, Outcome.STALLED]))
    def a_run_fails_and_its_wait_passes(self, number: int, outcome: Outcome) -> None:
        """The way to the limit, which single steps seldom walk to its end."""
        self.a_run_ends(number, outcome, FailureClass.EXIT_CODE, None)
        self.time_passes(4000)
        for _ in range(2):  # due, then dispatched
            self.the_loop_turns(paused=False)

    @rule(number=tasks)
    def the_issue_is_closed(self, number: int) -> None:
        state = self.by_id[number].state
        if state is not TaskState.RUNNING and allows(state, Event.WITHDRAWN):
            self.put(number, state=advance(state, Event.WITHDRAWN), wake_at=None)

    @rule(number=tasks)
    def a_human_asks_again(self, number: int) -> None:
        state = self.by_id[number].state
        if allows(state, Event.REQUEUED):
            self.ended.pop(number, None)
            self.counted[number] = 0
            self.put(number, state=advance(state, Event.REQUEUED), attempts=0, lost=0, wake_at=None)

    # -- what must hold -----------------------------------------------------------------------------

    @invariant()
    def at_most_one_live_run_per_task_and_only_while_it_is_running(self) -> None:
        for number, runs in self.live.items():
            assert len(runs) == (1 if self.by_id[number].state is TaskState.RUNNING else 0)

    @invariant()
    def attempts_never_exceed_the_limit_and_count_what_really_ended(self) -> None:
        for number, task in self.by_id.items():
            assert 0 <= task.attempts <= MAX_ATTEMPTS
            assert task.attempts == self.counted[number] + len(self.live[number])
            assert task.runs <= MAX_RUNS

    @invariant()
    def a_plan_never_exceeds_the_free_slots(self) -> None:
        assert self.started_last <= max(0, self.free_before)
        assert sum(len(runs) for runs in self.live.values()) <= self.slots

    @invariant()
    def an_ended_task_stays_ended_without_a_new_signal(self) -> None:
        for number, state in self.ended.items():
            assert self.by_id[number].state is state

    @invariant()
    def whatever_waits_has_a_cause_or_a_time(self) -> None:
        for task in self.by_id.values():
            if task.state is TaskState.RETRY_WAIT:
                assert task.wake_at is not None
            if task.state is TaskState.BLOCKED:
                assert task.cause

    # -- the store of this test -----------------------------------------------------------------------

    def route(self, _attrs, eligible):
        refusal = eligible(Target("a", "m"), {}) if self.is_routable else Refusal("key not set")
        if refusal:
            return NoRoute(reasons=(refusal.reason,), trace=(), until=refusal.until, is_busy=refusal.is_busy)
        return RoutingDecision(provider="a", model="m", rule=None, reason="", trace=())

    def snapshot(self, paused: bool) -> Snapshot:
        waiting = (TaskState.RETRY_WAIT, TaskState.BLOCKED)
        tasks = self.by_id.values()
        return Snapshot(
            now=self.now,
            paused=paused,
            running=tuple((t, self.live[t.task_id][0]) for t in tasks if t.state is TaskState.RUNNING),
            ready=tuple(t for t in tasks if t.state is TaskState.QUEUED),
            due=tuple(t for t in tasks if t.state in waiting and t.wake_at and t.wake_at <= self.now),
            config_version="1",
        )

    def do(self, action) -> None:
        number, state = action.task.task_id, action.task.state
        match action:
            case Dispatch():
                task = action.task
                self.put(
                    number,
                    state=advance(state, Event.DISPATCHED),
                    attempts=task.attempts + 1,
                    runs=task.runs + 1,
                    token=task.token + 1,
                )
                self.live[number].append(a_run(task_id=number, provider=action.decision.provider))
                self.started_last += 1
            case Park():
                self.put(
                    number, state=advance(state, Event.PARKED), cause=action.cause, wake_at=action.wake_at
                )
            case Requeue():
                self.put(number, state=advance(state, action.event), wake_at=None)

    def put(self, number: int, **values) -> None:
        self.by_id[number] = replace(self.by_id[number], **values)
        if self.by_id[number].state.is_terminal:
            self.ended[number] = self.by_id[number].state


CoreMachine.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_core_holds_its_promises = CoreMachine.TestCase
