"""The table itself: every legal move leads where it says, every other one is refused."""

from __future__ import annotations

import itertools

import pytest

from adw_modules.errors import IllegalTransition
from adw_modules.tasks.lifecycle import TRANSITIONS, Event, advance, allows, diagram
from adw_modules.tasks.model import TaskState

LEGAL = [(state, event, target) for state, moves in TRANSITIONS.items() for event, target in moves.items()]
ILLEGAL = [
    (state, event) for state, event in itertools.product(TaskState, Event) if event not in TRANSITIONS[state]
]


@pytest.mark.parametrize(("state", "event", "target"), LEGAL)
def test_a_legal_event_leads_where_the_table_says(state: TaskState, event: Event, target: TaskState) -> None:
    assert advance(state, event) is target
    assert allows(state, event)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_an_illegal_event_is_refused_and_names_both(state: TaskState, event: Event) -> None:
    assert not allows(state, event)
    with pytest.raises(IllegalTransition, match=f"{state.value}.*{event.value}"):
        advance(state, event)


def test_every_state_and_event_is_used() -> None:
    assert set(TRANSITIONS) == set(TaskState)
    assert {event for _, event, _ in LEGAL} == set(Event)


def test_terminal_states_are_left_only_by_a_new_signal_or_what_publishing_comes_to() -> None:
    exits = {event for state, event, _ in LEGAL if state.is_terminal}
    assert exits == {Event.REQUEUED, Event.PUBLISH_FAILED, Event.REVIEW_NEEDED, Event.REVOKED}


def test_only_a_dispatch_leads_into_running() -> None:
    assert {event for _, event, target in LEGAL if target is TaskState.RUNNING} == {Event.DISPATCHED}


def test_the_diagram_holds_every_arrow() -> None:
    text = diagram()
    for state, event, target in LEGAL:
        assert any(
            line.strip().startswith(f"{state.value} --> {target.value}:") and event.value in line
            for line in text.splitlines()
        )
