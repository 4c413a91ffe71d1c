"""Circuit breakers, with a test for each failure that users of other routers report."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adw_modules.config import RetrySettings
from adw_modules.health import HealthEvent, HealthKind
from adw_modules.routing import Target
from adw_modules.routing.circuits import (
    FAILURES,
    LONGEST_COOLING,
    Circuit,
    Live,
    State,
    Status,
    after,
    moved,
    paused,
    refusal,
    renewed,
    resumed,
    status,
)
from tests.builders import NOW, later

A, B = Target("p", "a"), Target("p", "b")
POLICY = RetrySettings()
FAILING = [kind for kind in HealthKind if kind is not HealthKind.OK]


def event(
    kind: HealthKind = HealthKind.SERVER_ERROR,
    *,
    target: Target = A,
    until: datetime | None = None,
    whole: bool = True,
) -> HealthEvent:
    return HealthEvent(
        provider=target.provider,
        model=target.model,
        kind=kind,
        status=None,
        until=until,
        detail=kind.value,
        is_whole_run=whole,
    )


class Book:
    """The circuits of a test, and its time."""

    def __init__(self) -> None:
        self.circuits: dict[tuple[str, str], Circuit] = {}
        self.now = NOW
        self.live: list[Live] = []

    def take(self, *events: HealthEvent, fingerprint: str = "f1") -> Book:
        for each in events:
            self.put(after(self.circuits, each, now=self.now, policy=POLICY, fingerprint=fingerprint))
        return self

    def put(self, changed: list[Circuit]) -> None:
        self.circuits |= {each.key: each for each in changed}

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def until(self, target: Target = A) -> datetime | None:
        refused = refusal(self.circuits, target, live=self.live, now=self.now)
        return refused.until if refused else None

    def may(self, target: Target = A) -> bool:
        return refusal(self.circuits, target, live=self.live, now=self.now) is None

    def start(self, target: Target = A) -> None:
        assert self.may(target)
        self.live.append(Live(target.provider, target.model, self.now))

    def status(self) -> Status:
        return status(self.circuits, "p", ["a", "b"], now=self.now)


@pytest.fixture
def book() -> Book:
    return Book()


# -- what others got wrong ------------------------------------------------------------------------------


def test_a_later_and_shorter_rate_limit_does_not_shorten_the_wait(book: Book) -> None:
    book.take(
        event(HealthKind.RATE_LIMITED, until=later(3600)), event(HealthKind.RATE_LIMITED, until=later(60))
    )
    assert book.until() == later(3600)


def test_a_later_and_longer_rate_limit_lengthens_the_wait(book: Book) -> None:
    book.take(
        event(HealthKind.RATE_LIMITED, until=later(60)), event(HealthKind.RATE_LIMITED, until=later(3600))
    )
    assert book.until() == later(3600)


def test_a_success_of_an_older_run_does_not_end_a_wait(book: Book) -> None:
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)), event(HealthKind.OK))
    assert book.until() == later(60)


def test_the_second_equal_failure_counts_as_much_as_the_first(book: Book) -> None:
    same = event(HealthKind.SERVER_ERROR)
    book.take(same, same)
    assert book.circuits["p", "a"].failures == 2
    assert book.may()


def test_twenty_five_server_errors_in_a_row_leave_the_rotation_with_the_third(book: Book) -> None:
    for number in range(1, 26):
        book.take(event(HealthKind.SERVER_ERROR))
        assert book.may() is (number < FAILURES)
    assert book.until() is not None


def test_answers_in_the_middle_of_runs_that_all_fail_do_not_keep_a_target_in_the_rotation(book: Book) -> None:
    for _ in range(FAILURES):
        book.take(event(HealthKind.OK, whole=False), event(HealthKind.SERVER_ERROR))
    assert not book.may()


def test_a_cooled_target_is_not_served_again_before_its_time(book: Book) -> None:
    book.take(event(HealthKind.RATE_LIMITED, until=later(600)))
    for _ in range(59):
        book.wait(10)
        assert not book.may()
    book.wait(10)
    assert book.may()


def test_when_the_wait_is_over_one_run_tries_and_the_others_wait_for_it(book: Book) -> None:
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)))
    book.wait(60)
    book.start()
    refused = refusal(book.circuits, A, live=book.live, now=book.now)
    assert refused is not None
    assert (refused.is_busy, refused.until) == (True, None)
    book.take(event(HealthKind.OK, whole=False))
    assert book.may(), "its first answer lets the others in"


def test_a_run_from_before_the_wait_is_not_taken_for_the_one_that_tries(book: Book) -> None:
    book.start()
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)))
    book.wait(60)
    assert book.may()


def test_after_an_answer_the_next_failure_closes_the_door_at_once(book: Book) -> None:
    book.take(*[event()] * FAILURES)
    book.wait(31)
    book.take(event(HealthKind.OK, whole=False))
    assert book.may()
    book.take(event())
    assert not book.may()


def test_a_provider_that_flaps_is_left_alone_for_longer_each_time(book: Book) -> None:
    waits = []
    book.take(*[event()] * FAILURES)
    for _ in range(5):
        until = book.until()
        assert until is not None
        waits.append((until - book.now).total_seconds())
        book.now = until
        book.take(event(HealthKind.OK, whole=False), event())
    assert waits == [30, 60, 120, 240, 480]


def test_many_failures_of_one_outage_lengthen_the_wait_only_once(book: Book) -> None:
    book.take(*[event(HealthKind.RATE_LIMITED)] * 10)
    assert book.until() == later(POLICY.rate_limit_delay_seconds)


# -- accounts -------------------------------------------------------------------------------------------


def test_refused_credentials_stop_all_models_until_configuration_or_key_change(book: Book) -> None:
    book.take(event(HealthKind.AUTH_FAILED), fingerprint="old key")
    book.wait(1_000_000)
    assert not book.may(A)
    assert not book.may(B)
    assert (book.until(), book.status()) == (None, Status.DOWN)
    book.put(renewed(book.circuits, {"p": "old key"}, now=book.now))
    assert not book.may(A), "nothing has changed"
    book.put(renewed(book.circuits, {"p": "new key"}, now=book.now))
    book.start(A)
    assert not book.may(B), "one run finds out for all models"
    book.take(event(HealthKind.OK))
    assert book.may(B)


def test_a_new_key_that_is_refused_as_well_stops_the_provider_again(book: Book) -> None:
    book.take(event(HealthKind.AUTH_FAILED), fingerprint="one")
    book.put(renewed(book.circuits, {"p": "two"}, now=book.now))
    book.take(event(HealthKind.AUTH_FAILED), fingerprint="two")
    assert not book.may()
    assert renewed(book.circuits, {"p": "two"}, now=book.now) == []


def test_a_pause_holds_until_resume_and_resume_forgets_everything(book: Book) -> None:
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)))
    book.put(paused(book.circuits, "p", now=NOW))
    book.wait(3600)
    book.take(event(HealthKind.OK))
    assert (book.may(B), book.status()) == (False, Status.DOWN)
    book.put(resumed(book.circuits, "p", now=book.now))
    assert book.may(A)
    assert book.may(B)
    assert book.status() is Status.UP


def test_one_model_that_cools_degrades_its_provider_and_all_of_them_cool_it(book: Book) -> None:
    assert book.status() is Status.UP
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)))
    assert (book.status(), book.may(B)) == (Status.DEGRADED, True)
    book.take(event(HealthKind.RATE_LIMITED, target=B, until=later(60)))
    assert book.status() is Status.COOLING
    assert book.circuits["p", "a"].state(book.now) is State.COOLING


def test_a_clock_that_is_set_back_lengthens_no_wait(book: Book) -> None:
    book.take(event(HealthKind.RATE_LIMITED, until=later(60)))
    book.put(moved(book.circuits, timedelta(hours=-1)))
    book.wait(-3600)
    assert book.until() == later(60 - 3600)


# -- whatever happens -----------------------------------------------------------------------------------

_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(list(HealthKind)),
        st.sampled_from([A, B]),
        st.none() | st.integers(1, 7200),
        st.integers(0, 900),
        st.booleans(),
    ),
    max_size=30,
)


@given(_EVENTS)
def test_no_event_ever_shortens_a_wait_and_none_lasts_for_ever_by_itself(events) -> None:
    book = Book()
    for kind, target, wait, passes, whole in events:
        before = dict(book.circuits)
        until = None if wait is None else book.now + timedelta(seconds=wait)
        book.take(event(kind, target=target, until=until, whole=whole))
        for key, old in before.items():
            new = book.circuits[key]
            if old.is_shut(book.now):
                assert new.is_shut(book.now)
                assert new.until is None or (old.until is not None and new.until >= old.until)
        book.wait(passes)
    stopped = any(each.is_open and each.until is None for each in book.circuits.values())
    book.wait(7200 + 2 * LONGEST_COOLING.total_seconds())
    assert book.may(A) is not stopped


@given(_EVENTS, st.integers(1, 5))
def test_half_open_lets_exactly_one_run_in(events, wanting) -> None:
    book = Book()
    for kind, target, wait, passes, whole in events:
        until = None if wait is None else book.now + timedelta(seconds=wait)
        book.take(event(kind, target=target, until=until, whole=whole))
        book.wait(passes)
    is_half_open = any(
        each.is_half_open(book.now) for key, each in book.circuits.items() if key in {("p", ""), ("p", "a")}
    )
    started = 0
    for _ in range(wanting):
        if book.may():
            book.start()
            started += 1
    if is_half_open:
        assert started <= 1


def a_probe(kind: HealthKind, target: Target = A) -> HealthEvent:
    return replace(event(kind, target=target), is_probe=True)


@pytest.mark.parametrize(
    ("before", "asked_again"),
    [
        (HealthKind.AUTH_FAILED, True),
        (HealthKind.QUOTA_EXHAUSTED, True),
        (HealthKind.RATE_LIMITED, False),  # the provider has said how long
    ],
)
def test_a_good_probe_ends_a_refusal_of_the_account_and_shortens_no_other_wait(before, asked_again):
    known = {each.key: each for each in after({}, event(before), now=NOW, policy=POLICY)}
    for good, ends in ((event(HealthKind.OK), False), (a_probe(HealthKind.OK), asked_again)):
        found = known | {each.key: each for each in after(known, good, now=NOW, policy=POLICY)}
        assert (refusal(found, A, live=(), now=NOW) is None) is ends


def test_a_good_probe_ends_no_pause():
    known = {each.key: each for each in paused({}, "p", now=NOW)}
    assert after(known, a_probe(HealthKind.OK), now=NOW, policy=POLICY) == []
