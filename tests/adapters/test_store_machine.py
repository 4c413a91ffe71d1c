"""Any history of calls, checked after each step: what the store promises holds whatever its callers do."""

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from store_samples import NOW, a_refusal, a_request, a_settlement, end, some_usage, start

from adw_modules.errors import StoreError
from adw_modules.tasks.model import Outcome, TaskState
from coordinator.store import Store

NUMBERS = st.integers(min_value=1, max_value=3)
RESTING = st.sampled_from([state for state in TaskState if state is not TaskState.RUNNING])
OUTBOX = st.sampled_from([(), ("report",), ("pull_request", "report")])


class StoreHistory(RuleBasedStateMachine):
    """Three issues, and callers that remember stale runs and use them."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "coordinator.db"
        self.store = Store.open(self.path, now=NOW)
        self.now = NOW
        self.seen = []  # every run ever claimed, as it was then
        self.ended = {}  # run id -> the run and its usage, as they were when it ended
        self.versions = {}

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    def tick(self):
        self.now += timedelta(seconds=1)
        return self.now

    def task(self, number):
        found = self.store.find_task(None, number)
        return found[0] if found else None

    @initialize()
    def one_task(self):
        self.poll(1, 1)

    @rule(number=NUMBERS, event_id=st.integers(min_value=1, max_value=4))
    def poll(self, number, event_id):
        before = self.task(number)
        done = self.store.upsert_task(
            a_request(number, event_id=event_id), name=f"gh-{number}", now=self.tick()
        )
        if before and before.state.is_terminal and event_id <= before.trigger_event_id:
            assert done.task.state is before.state
        if before and before.state is TaskState.RUNNING:
            assert done.task.state is TaskState.RUNNING

    @rule(number=NUMBERS)
    def refuse(self, number):
        before = self.task(number)
        after = self.store.record_refusal(a_refusal(number), name=f"gh-{number}", now=self.tick()).task
        assert after.state is (before.state if before else TaskState.BLOCKED)

    @rule(number=NUMBERS)
    def claim(self, number):
        before = self.task(number)
        claimed = start(self.store, before.task_id, now=self.tick()) if before else None
        assert (claimed is not None) == (before is not None and before.state is TaskState.QUEUED)
        if claimed:
            task, run = claimed
            assert (task.attempts, task.token) == (before.attempts + 1, before.token + 1)
            self.seen.append(run)

    @rule(
        which=st.integers(min_value=0),
        state=RESTING,
        attempts=st.integers(min_value=-1, max_value=1),
        outbox=OUTBOX,
    )
    def finish(self, which, state, attempts, outbox):
        if not self.seen:
            return
        run = self.seen[which % len(self.seen)]
        live = {run.run_id for _, run in self.store.open_runs()}
        settlement = a_settlement(state, attempts=attempts, outbox=outbox)
        if attempts < 0 and run.run_id in live:
            with pytest.raises(StoreError):
                end(self.store, run, settlement, now=self.tick())
            return
        assert end(self.store, run, settlement, now=self.tick()) == (run.run_id in live)
        if run.run_id in live:
            self.remember(run.run_id)

    @rule(which=st.integers(min_value=0), stale=st.booleans())
    def progress(self, which, stale):
        if self.seen:
            run = self.seen[which % len(self.seen)]
            token = run.token - 1 if stale else run.token
            saved = self.store.save_progress(
                run.run_id, token, offset=which % 1000, usage=some_usage(which % 1000)
            )
            assert saved == (not stale and run.run_id not in self.ended)

    @rule(which=st.integers(min_value=0))
    def stop(self, which):
        if self.seen:
            run = self.seen[which % len(self.seen)]
            self.store.request_stop(run.run_id, reason="closed", outcome=Outcome.CANCELLED, now=self.tick())

    @rule(which=st.integers(min_value=0))
    def forge(self, which):
        if self.seen:
            run = self.seen[which % len(self.seen)]
            assert not end(self.store, replace(run, token=run.token + 1), a_settlement(), now=self.tick())

    @rule(number=NUMBERS, expected=RESTING, state=RESTING, start_over=st.booleans(), outbox=OUTBOX)
    def move(self, number, expected, state, start_over, outbox):
        before = self.task(number)
        if before is None:
            return
        values = {"cause": "because", "wake_at": self.now, "start_over": start_over, "outbox": outbox}
        moved = self.store.transition(
            before.task_id, expected=expected, state=state, now=self.tick(), **values
        )
        assert moved == (before.state is expected)

    @rule()
    def send(self):
        for item in self.store.due_outbox(self.now, 2):
            self.store.outbox_done(item.item_id, item.version)

    @rule()
    def restart(self):
        self.store.close()
        self.store = Store.open(self.path, now=self.now)

    def remember(self, run_id):
        (ended,) = [
            run
            for task in self.store.tasks()
            for run in self.store.runs_of(task.task_id)
            if run.run_id == run_id
        ]
        self.ended[run_id] = (ended, self.store.usage_of(run_id))

    @invariant()
    def a_task_is_running_exactly_while_it_has_its_one_live_run(self):
        live = self.store.open_runs()
        running = self.store.tasks([TaskState.RUNNING])
        assert sorted(task.task_id for task, _ in live) == sorted(task.task_id for task in running)
        assert all(task.token == run.token for task, run in live)

    @invariant()
    def the_counters_tell_the_truth(self):
        for task in self.store.tasks():
            assert task.attempts >= 0
            assert task.runs == task.token == len(self.store.runs_of(task.task_id))

    @invariant()
    def an_ended_run_never_changes(self):
        for task in self.store.tasks():
            for run in self.store.runs_of(task.task_id):
                if run.run_id in self.ended:
                    assert (run, self.store.usage_of(run.run_id)) == self.ended[run.run_id]

    @invariant()
    def news_is_never_numbered_backwards(self):
        for item in self.store.due_outbox(self.now, 100):
            assert item.version >= self.versions.get(item.item_id, 0)
            self.versions[item.item_id] = item.version


TestStoreHistory = StoreHistory.TestCase
TestStoreHistory.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    database=None,
)
