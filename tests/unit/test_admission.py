"""The pure half of admission: every combination of account and standing, edits by time, comments by time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adw_modules.security import admission
from adw_modules.security.admission import (
    GHOST,
    Actor,
    Comment,
    Edit,
    IssueText,
    KeptComment,
    Policy,
    Standing,
    fingerprint,
)
from tests.builders import NOW, later

PERSON = Actor(login="ada", user_id=1, kind="User")
BOT = Actor(login="renovate[bot]", user_id=2, kind="Bot")
POLICY = Policy(roles=frozenset({"triage"}), bots=frozenset({1, 2}))
MALLORY = Actor(login="mallory", user_id=9, kind="User")


@pytest.mark.parametrize(
    ("standing", "admitted"),
    [
        (Standing(actor=PERSON, permission="admin"), True),
        (Standing(actor=PERSON, permission="write", role="maintain"), True),
        (Standing(actor=PERSON, permission="read", role="TRIAGE"), True),
        (Standing(actor=PERSON, permission="read", role="read"), False),
        (Standing(actor=PERSON, permission="none"), False),
        (Standing(actor=PERSON, permission=""), False),
        (Standing(actor=PERSON, permission="superb", role="superb"), False),
        (Standing(actor=PERSON, permission="write", problem="GitHub answers 403"), False),
        (Standing(actor=GHOST, permission="admin"), False),
        (Standing(actor=BOT), True),
        (Standing(actor=Actor(login="renovate[bot]", user_id=3, kind="Bot"), permission="admin"), False),
        (Standing(actor=Actor(login="ada", user_id=1, kind="User", by_app=True), permission="admin"), False),
        (Standing(actor=Actor(login="o", user_id=2, kind="Organization"), permission="admin"), False),
        (Standing(actor=Actor(login="m", user_id=2, kind="Mannequin"), permission="admin"), False),
        (Standing(actor=Actor(login="", user_id=2, kind="Bot")), False),
    ],
)
def test_who_may_start_work(standing: Standing, admitted: bool) -> None:
    assert POLICY.admits(standing) is admitted


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["User", "Bot", "Organization", "App", ""]),
    by_app=st.booleans(),
    permission=st.sampled_from(["read", "none", "", "triage", "owner"]),
    user_id=st.integers(0, 5),
)
def test_without_configuration_nobody_below_write_starts_anything(
    kind: str, by_app: bool, permission: str, user_id: int
) -> None:
    actor = Actor(login="x", user_id=user_id, kind=kind, by_app=by_app)
    assert not Policy().admits(Standing(actor=actor, permission=permission, role=permission))


def judged(text: IssueText) -> str | None:
    return admission.edited_by_others(text, NOW, may_start={PERSON}.__contains__)


@pytest.mark.parametrize(
    ("edits", "is_refused"),
    [
        ((), False),
        ((Edit(at=later(-1), editor=MALLORY),), False),
        ((Edit(at=NOW, editor=MALLORY),), True),
        ((Edit(at=later(1), editor=MALLORY),), True),
        ((Edit(at=later(1), editor=PERSON),), False),
        ((Edit(at=later(1), editor=MALLORY), Edit(at=later(2), editor=PERSON)), True),
        ((Edit(at=later(1), editor=GHOST),), True),
        ((Edit(at=later(1), editor=None),), True),
    ],
)
def test_a_text_counts_as_approved_only_when_nobody_else_touched_it_since(edits, is_refused: bool) -> None:
    assert (judged(IssueText(title="T", body="B", edits=edits)) is not None) is is_refused


def test_a_text_of_which_nothing_is_known_is_not_approved() -> None:
    assert judged(IssueText(title="T", body="B", unknown="nobody can say")) == "nobody can say"
    assert judged(admission.compared("T", "B", updated_at=later(1), approved_at=NOW)) is not None
    assert judged(admission.compared("T", "B", updated_at=NOW, approved_at=NOW)) is None


EARLIER = later(-10)


def a_comment(number: int, *, author: Actor = PERSON, at=EARLIER, edited=None) -> Comment:
    return Comment(comment_id=number, author=author, body=f"{number}", created_at=at, updated_at=edited or at)


def test_comments_count_strictly_before_the_label_and_of_whoever_may_start() -> None:
    said = [
        a_comment(1),
        a_comment(2, at=NOW),
        a_comment(3, edited=NOW),
        a_comment(4, author=MALLORY),
        a_comment(5, author=Actor(login="us", user_id=77, kind="User")),
        a_comment(6, author=Actor(login="ada", user_id=1, kind="User", by_app=True)),
    ]
    found = admission.before(said, NOW, but=77)
    assert [each.comment_id for each in found] == [1, 4, 6]
    kept = admission.kept(found, may_start={PERSON}.__contains__)
    assert [(each.author_id, each.body) for each in kept] == [(1, "1")]


def test_a_flood_of_comments_and_authors_is_bounded() -> None:
    flood = [a_comment(n, author=Actor(login=f"a{n}", user_id=n, kind="User")) for n in range(1, 500)]
    found = admission.before(flood, NOW, but=0)
    assert len(found) == admission.MAX_COMMENTS
    assert found[-1].comment_id == 499
    assert len(admission.authors(found)) == admission.MAX_COMMENT_AUTHORS


@settings(max_examples=60)
@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_fingerprint_tells_texts_apart_and_line_ends_together(a: str, b: str, c: str, d: str) -> None:
    def plain(text: str) -> str:
        return text.replace("\r\n", "\n").encode(errors="replace").decode()

    same = (plain(a), plain(b)) == (plain(c), plain(d))
    assert (fingerprint(a, b) == fingerprint(c, d)) is same
    comment = KeptComment(author="ada", author_id=1, at=NOW, body=c)
    assert fingerprint(a, b, [comment]) != fingerprint(a, b)
