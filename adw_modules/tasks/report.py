"""What people read on GitHub: the sticky comment, the pull request's text, the status label. Pure.

Everything that came from an agent or an issue is quoted so that it can neither mention people nor
close other issues; secrets are removed by the caller, who knows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from adw_modules.security.invisible import without_invisible
from adw_modules.security.sanitise import issue_text, sanitise_plain
from adw_modules.tasks.intake import REFUSED_PREFIX
from adw_modules.tasks.model import Cost, ModelUsage, Outcome, Run, Task, TaskState, UsageSource

UNKNOWN = "unknown"  # what is not known is never shown as 0
SUBSCRIPTION = "subscription"  # tokens of a flat rate have no price
MAX_COMMENT_CHARS = 20_000
MAX_FAILURE_LINES = 12
MAX_SUMMARY_CHARS = 4_000
MAX_SEEN_CHARS = 6_000  # of the sanitised text, shown where it differs from the issue's
RETELL_AFTER = timedelta(minutes=5)  # at most one edit in that time because only the time of a look changed
RETELL_STEP = timedelta(minutes=1)  # by less than this another time is no news

_STATUS_LABEL = {
    TaskState.QUEUED: "queued",
    TaskState.RUNNING: "running",
    TaskState.RETRY_WAIT: "waiting",
    TaskState.BLOCKED: "blocked",
    TaskState.SUCCEEDED: "done",
    TaskState.FAILED: "failed",
    TaskState.CANCELLED: "cancelled",
}

_HEADLINE = {
    TaskState.QUEUED: "🕐 Queued",
    TaskState.RUNNING: "🏃 Working on it",
    TaskState.RETRY_WAIT: "🔁 Will try again",
    TaskState.BLOCKED: "✋ Needs attention",
    TaskState.SUCCEEDED: "✅ Done",
    TaskState.FAILED: "❌ Failed",
    TaskState.CANCELLED: "🚫 Cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What the comment says of one run. `cost` None: it has not ended."""

    run: Run
    rule_reason: str
    usage: ModelUsage
    usage_source: UsageSource
    cost: Cost | None
    duration: timedelta | None


def status_label(state: TaskState, prefix: str) -> str:
    """The one label of ours that shows where a task is, e.g. `coordinator:running`."""
    return f"{prefix}{_STATUS_LABEL[state]}"


def shown_wake(task: Task) -> datetime | None:
    """The time of the next look that the comment shows; None: it shows none."""
    return task.wake_at if task.state in (TaskState.RETRY_WAIT, TaskState.BLOCKED) else None


def tells_later(told: datetime | None, wake_at: datetime | None, now: datetime) -> datetime | None:
    """When to say that the next look is at another time than the comment shows; None: not worth an edit.

    A look that comes before anybody would read of it is not worth one, and of several the last is told.
    """
    at = now + RETELL_AFTER
    if wake_at is None or wake_at <= at or (told is not None and abs(wake_at - told) < RETELL_STEP):
        return None
    return at


def argument(task: Task) -> str:
    """How a command line names the task, so that it is never ambiguous."""
    return str(task.issue_number) if "/" not in task.name else f"{task.repo}#{task.issue_number}"


def marker(task: Task) -> str:
    """Hidden in the sticky comment, so that it is found again and never written twice."""
    return f"<!-- coordinator:{task.repo_id}:{task.issue_number} -->"


def comment(task: Task, runs: list[RunReport], *, failure_lines: tuple[str, ...] = ()) -> str:
    """The whole sticky comment for the state `task` is in."""
    parts = [marker(task), f"### {_HEADLINE[task.state]}{_no_changes_note(task)}"]
    if task.pr_url and _ADDRESS.fullmatch(task.pr_url):
        parts.append(f"Draft pull request: {task.pr_url}")
    if task.cause:
        parts.append(_quote(task.cause))
    if (wake_at := shown_wake(task)) is not None:
        parts.append(f"Next look: {wake_at:%Y-%m-%d %H:%M:%S} UTC")
    if runs:
        parts.append(_run_table(runs))
        parts.append(f"Rule: `{runs[-1].run.rule or 'default'}` ({quiet(runs[-1].rule_reason)})")
    parts += _what_the_agent_sees(task)
    if failure_lines:
        parts.append(_collapsed("Last lines of the agent", "\n".join(failure_lines[-MAX_FAILURE_LINES:])))
    return "\n\n".join(parts)[:MAX_COMMENT_CHARS]


THANKS = (
    "Thank you for the issue. The automation starts work only when a person who may write to this "
    "repository puts the label on, so for now nothing happens here."
)


def refusal(task: Task) -> str:
    """What an issue is told that was not taken up, once: who has to do what, and nothing of its text."""
    why = (task.cause or "").removeprefix(REFUSED_PREFIX)
    return "\n\n".join(
        [
            marker(task),
            "### 🔒 Not started",
            THANKS,
            _quote(why),
        ]
    )[:MAX_COMMENT_CHARS]


def _what_the_agent_sees(task: Task) -> list[str]:
    """The number of removals and what is left, where something was hidden, for whoever approved it."""
    seen = issue_text(task.snapshot_title, task.snapshot_body)
    if not seen.hidden:
        return []
    text = f"{seen.title.text}\n\n{seen.body.text}"
    shown = text[:MAX_SEEN_CHARS] + ("\n…" if len(text) > MAX_SEEN_CHARS else "")
    return [
        f"Taken out of the text that the agent sees: {seen.hidden}.",
        _collapsed("The text that the agent sees", shown),
    ]


def _collapsed(summary: str, text: str) -> str:
    """Closed until somebody opens it, and as it is: in a fence nothing is a mention, a link or markup."""
    text = without_invisible(text)[0]
    fence = _fence(text)
    return f"<details><summary>{summary}</summary>\n\n{fence}\n{text}\n{fence}\n\n</details>"


def _no_changes_note(task: Task) -> str:
    no_changes = task.state is TaskState.FAILED and task.last_outcome is Outcome.NO_CHANGES
    return ": the agent changed nothing (`no_changes`)" if no_changes else ""


def _run_table(runs: list[RunReport]) -> str:
    head = (
        "| attempt | provider / model | result | tokens in / out | cost | time |\n|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_run_row(report) for report in runs[-10:])])


def _run_row(report: RunReport) -> str:
    run = report.run
    result = run.outcome.value if run.outcome else "running"
    if run.exit_code:
        result += f" (exit {run.exit_code})"
    cells = (
        str(run.attempt),
        f"{run.provider} / {run.model}",
        result,
        tokens_text(report.usage, report.usage_source),
        cost_text(report.cost),
        duration_text(report.duration),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def pull_request_title(task: Task) -> str:
    """`gh-12: Title`, one line; also the subject of our commits, so it closes and mentions nothing either."""
    title = without_references(sanitise_plain(" ".join(task.snapshot_title.split())).text)
    return f"gh-{task.issue_number}: {title}"[:240]


def pull_request_body(task: Task, report: RunReport, summary: str) -> str:
    """`Fixes #n`, what the agent says it did (quoted), and how it was made."""
    said = _quote(summary[:MAX_SUMMARY_CHARS]) if summary.strip() else "The agent left no summary."
    made = (
        f"Made by {report.run.provider} / {report.run.model} (attempt {report.run.attempt}, "
        f"{tokens_text(report.usage, report.usage_source)} tokens in / out, {cost_text(report.cost)}). "
        "A person has to review it."
    )
    return f"Fixes #{task.issue_number}\n\n{said}\n\n---\n{made}"


def tokens_text(usage: ModelUsage, source: UsageSource) -> str:
    """`5,200 / 300`: all that went in (cached or not) and all that came out; `unknown` when unknown."""
    if source is UsageSource.UNKNOWN:
        return UNKNOWN
    about = "" if source is UsageSource.REPORTED else "≥ "
    return f"{about}{usage.total - usage.output:,} / {usage.output:,}"


def cost_text(cost: Cost | None) -> str:
    """`$0.0123`, or `subscription`; where a price is missing `unknown`, or `at least $0.0123`."""
    if cost is None:
        return UNKNOWN
    if cost.is_subscription:
        return SUBSCRIPTION
    if cost.usd is None:
        return UNKNOWN if cost.at_least is None else f"at least {dollars(cost.at_least)}"
    return dollars(cost.usd)


def dollars(usd: Decimal) -> str:
    """`$1,234.5678`, as people see it: rounded."""
    return f"${usd:,.4f}"


def spent_text(usd: Decimal, runs: int, unknown: int, subscription: int) -> str:
    """What several runs cost: `$0.0543, 1 of unknown cost and 2 on subscription`."""
    counted = runs - unknown - subscription
    parts = [dollars(usd)] if usd or counted or not runs else []
    if unknown:
        parts.append(f"{unknown} of unknown cost" if parts or subscription else "unknown cost")
    if subscription:
        parts.append(f"{subscription} on subscription" if parts else SUBSCRIPTION)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def duration_text(duration: timedelta | None) -> str:
    """`1 h 02 m`, `3 m 05 s`, `4.2 s`."""
    if duration is None:
        return ""
    seconds = duration.total_seconds()
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02} m"
    if seconds >= 60:
        return f"{int(seconds // 60)} m {int(seconds % 60):02} s"
    return f"{seconds:.1f} s"


_ADDRESS = re.compile(r"https?://[^\s<>()\[\]`|]+")
# What GitHub makes a mention, a reference (with a keyword before it: an order to close) or an image of.
# A zero-width space in the middle is not seen, and ends it. A backslash may stand where it escapes.
_POWERS = (
    (re.compile(r"@(?=\w)"), "@\N{ZERO WIDTH SPACE}"),
    (re.compile(r"#(?=\d)"), "#\N{ZERO WIDTH SPACE}"),
    (re.compile(r"(\bGH)(?=\\?-\\?\d)", re.IGNORECASE), "\\1\N{ZERO WIDTH SPACE}"),
    (
        re.compile(r"(/\\?(?:issues|pulls?|discussions|commits?)\\?/)(?=[\w%\\])", re.IGNORECASE),
        "\\1\N{ZERO WIDTH SPACE}",
    ),
)
_ENTITY = re.compile(r"&(?=[#A-Za-z])")
_IMAGE = re.compile(r"!(?=\[)")


def quiet(text: str) -> str:
    """`text` without the power to mention anybody, refer to issues, load images or hide markup."""
    text = _IMAGE.sub("! ", without_references(without_invisible(text.replace("\r\n", "\n"))[0]))
    return _ENTITY.sub("&amp;", text).replace("<", "&lt;")  # GitHub looks for mentions behind entities too


def without_references(text: str) -> str:
    """`text` with mentions and references to issues and commits broken by a space of no width."""
    for power, harmless in _POWERS:
        text = power.sub(harmless, text)
    return text


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in quiet(text).splitlines())


def _fence(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
