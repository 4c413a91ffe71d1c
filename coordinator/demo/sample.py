"""The demo's repository and its six issues: data, and one function that puts them on a demo server.

What the issues show is written beside them. What an agent does with them stands in their own text, in the
directives of the scripted agent (`agent.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.demo.server import GitHubServer

REPOSITORY = "demo/tidywords"
TOKEN = "demo-token"  # noqa: S105  opens nothing but the demo's own server
ACCOUNT = "coordinator-demo"  # who the token is; it has write access and no more
MAINTAINER = "maya"  # puts the trigger label on
REPORTER = "sam"  # opens the issues; may only read

FILES = {
    "README.md": """# tidywords

Counts words and says how long they are. A sample: it exists so that Coordinator has something to work on.

    >>> from tidywords import average_length, count_words
    >>> count_words("a rose is a rose")["rose"]
    2
""",
    "pyproject.toml": """[project]
name = "tidywords"
version = "0.3.0"
description = "Counts words and says how long they are"
requires-python = ">=3.11"
""",
    "tidywords/__init__.py": '''"""Counts words and says how long they are."""

from tidywords.counter import average_length, count_words

__all__ = ["average_length", "count_words"]
''',
    "tidywords/counter.py": '''"""Counting, without any opinion about languages."""

from collections import Counter


def split_words(text: str) -> list[str]:
    return [word.strip(".,;:!?").lower() for word in text.split()]


def count_words(text: str) -> Counter[str]:
    return Counter(split_words(text))


def average_length(text: str) -> float:
    words = split_words(text)
    return sum(len(word) for word in words) / len(words)
''',
    "tidywords/export.py": '''"""Writes counts to files other programs can read."""

from collections import Counter


def to_csv(counts: Counter[str]) -> str:
    return "\\n".join(f"{word},{count}" for word, count in counts.most_common())
''',
    "tests/test_counter.py": """from tidywords import average_length, count_words


def test_equal_words_are_counted_together():
    assert count_words("A rose is a rose")["rose"] == 2


def test_the_average_is_over_all_words():
    assert average_length("to be or") == 2.0
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleIssue:
    """One issue of the demo. `key` names it in code; `shows` says what to look at."""

    key: str
    title: str
    body: str
    shows: str
    labels: tuple[str, ...] = ()  # besides the trigger label
    closes_while_running: bool = False  # the demo closes it once its worker works


ISSUES = (
    SampleIssue(
        key="critical",
        title="average_length crashes on an empty text",
        body="""`average_length("")` raises ZeroDivisionError. It should give 0.0.
Our importer is down because of it.

[[agent: replace tidywords/counter.py: / len(words) => / max(1, len(words))]]
""",
        shows="critical work goes to Opus",
        labels=("bug", "priority:P0"),
    ),
    SampleIssue(
        key="docs",
        title="Write a first guide",
        body="""New users ask how to begin. One page in `docs/` is enough.

[[agent: write docs/guide.md]]
""",
        shows="documentation goes to Haiku",
        # Low priority: the rule for normal and high work stands above the one for documentation.
        labels=("documentation", "priority:P3"),
    ),
    SampleIssue(
        key="retry",
        title="Leave out empty words when counting",
        body="""A dash between spaces is counted as the empty word.

[[agent: fail-once]]
[[agent: replace tidywords/counter.py: for word in text.split() => for word in text.split() if word != "-"]]
""",
        shows="fails once, and the retry rule sends the second attempt to Haiku",
        labels=("bug",),
    ),
    SampleIssue(
        key="failure",
        title="Export to the spreadsheet format of 1987",
        body="""The old format is not documented anywhere, but we need it.

[[agent: fail]]
""",
        shows="fails each time, until the attempts are used up",
        labels=("enhancement",),
    ),
    SampleIssue(
        key="cancelled",
        title="Rewrite the counter in another language",
        body="""It would be faster. (It is closed again while the agent works on it.)

[[agent: slow 60]]
[[agent: write rewrite.md]]
""",
        shows="closed while its worker runs: the worker is stopped",
        labels=("enhancement", "priority:P1"),
        closes_while_running=True,
    ),
    SampleIssue(
        key="no-changes",
        title="Is there a test for equal words?",
        body="""Please look whether `count_words` is tested, and add a test if it is not.

[[agent: no-op]]
""",
        shows="the agent finds nothing to change: no pull request",
        labels=("question",),
    ),
)


def populate(server: GitHubServer, *, trigger_label: str = "rpi-auto") -> dict[str, int]:
    """Make accounts, repository and issues; gives the issue numbers by key."""
    server.add_repo(REPOSITORY, files=FILES)
    for login, role in ((ACCOUNT, "write"), (MAINTAINER, "maintain"), (REPORTER, "read")):
        server.set_permission(REPOSITORY, login, role)
    server.add_token(TOKEN, ACCOUNT)
    return {issue.key: _add(server, issue, trigger_label) for issue in ISSUES}


def _add(server: GitHubServer, issue: SampleIssue, trigger_label: str) -> int:
    return server.add_issue(
        REPOSITORY,
        title=issue.title,
        body=issue.body,
        author=REPORTER,
        labels=[*issue.labels, trigger_label],
        labelled_by=MAINTAINER,
    )
