"""Which one outcome a finished run has: a decision table over exit record, stream and git state.

Owns the order of the questions; the first that is answered decides. Must not decide what happens next
(`retries.py`, `lifecycle.py`) and must not raise: every combination, however odd, is some outcome.

1. How did the process end?  Lost, stopped by us, never executed, out of time, silent.
2. What did the provider say?  Refused account, asked to wait, prompt too long.
3. What did the agent say, and how did it exit?
4. What is in the workspace?

Exit 0 alone is never success: several agent programs exit 0 after an error or a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from adw_modules.agents.stream import StreamSummary, one_line
from adw_modules.tasks.model import ExitRecord, FailureClass, GitState, Outcome, RunOutcome

FAST_EXIT_SECONDS = 10.0
# A shorter wait is about one request, and the agent has sat it out several times before it gave up.
SHORTEST_LIMIT = timedelta(minutes=1)

# The words Claude Code uses for errors that are about the account, not about this piece of work.
ACCOUNT_ERRORS = frozenset({"authentication_failed", "billing_error"})
ACCOUNT_STATUSES = frozenset({401, 402, 403})
# Shell convention 128 + n, used by agents that catch a signal and then exit: HUP, INT, KILL, TERM.
SIGNAL_EXIT_CODES = frozenset({129, 130, 137, 143})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """All that is known about one ended run."""

    exit: ExitRecord
    summary: StreamSummary
    git: GitState | None
    stop_outcome: Outcome | None
    stop_reason: str | None
    now: datetime
    fast_exit_seconds: float
    stderr_tail: Sequence[str]

    @property
    def seconds(self) -> float:
        """How long the agent ran; never negative, even when the clock was set back."""
        return max(0.0, (self.exit.ended_at - self.exit.started_at).total_seconds())

    @property
    def is_success_record(self) -> bool:
        return self.summary.final is not None and not self.summary.final.is_error

    @property
    def last_words(self) -> str:
        """The line that explains most; programs that cannot even start say it on stderr only."""
        lines = self.summary.last_lines
        if self.summary.final is None and self.stderr_tail:
            lines = tuple(self.stderr_tail)
        return next((line for text in reversed(lines) if (line := one_line(text))), "")

    def failed(self, failure_class: FailureClass, detail: str) -> RunOutcome:
        return self.ended(Outcome.FAILED, detail, failure_class=failure_class)

    def ended(
        self,
        outcome: Outcome,
        detail: str,
        *,
        failure_class: FailureClass | None = None,
        retry_at: datetime | None = None,
    ) -> RunOutcome:
        return RunOutcome(
            outcome=outcome,
            detail=detail,
            failure_class=failure_class,
            exit_code=self.exit.exit_code,
            exit_signal=self.exit.exit_signal,
            retry_at=retry_at,
        )

    @property
    def how_it_exited(self) -> str:
        """For example: exited with 7 after 0.2 s: no such model."""
        if self.exit.exit_signal is not None:
            how = f"was killed by signal {self.exit.exit_signal}"
        else:
            how = f"exited with {self.exit.exit_code}"
        how = f"{how} after {self.seconds:.1f} s"
        return self.explained(f"{why}: {how}" if (why := one_line(self.exit.detail)) else how)

    def explained(self, sentence: str) -> str:
        return f"{sentence}: {self.last_words}" if self.last_words else sentence


def classify(
    exit: ExitRecord | None,  # noqa: A002 (it is the name of the file and of the record)
    summary: StreamSummary,
    git: GitState | None,
    *,
    stop_outcome: Outcome | None,
    stop_reason: str | None,
    now: datetime,
    fast_exit_seconds: float = FAST_EXIT_SECONDS,
    stderr_tail: Sequence[str] = (),
) -> RunOutcome:
    """Decide the outcome of a run that has ended.

    `exit` is None when worker and shim are gone without a record; `git` is None when the workspace could
    not be looked at. `stop_outcome` and `stop_reason` are what was written down before we asked the worker
    to stop, if we did. `stderr_tail` holds the last lines of the agent's stderr, oldest first.
    """
    if exit is None or not _says_how_it_ended(exit):
        return RunOutcome(outcome=Outcome.LOST, detail="worker and shim are gone without an exit record")
    facts = _Facts(
        exit=exit,
        summary=summary,
        git=git,
        stop_outcome=stop_outcome,
        stop_reason=stop_reason,
        now=now,
        fast_exit_seconds=fast_exit_seconds,
        stderr_tail=stderr_tail,
    )
    for question in _QUESTIONS:
        answer = question(facts)
        if answer is not None:
            return answer
    return facts.ended(Outcome.SUCCEEDED, f"finished after {facts.seconds:.1f} s")


def _says_how_it_ended(exit_record: ExitRecord) -> bool:
    has_status = exit_record.exit_code is not None or exit_record.exit_signal is not None
    return has_status or exit_record.reason in {"stopped", "crowded", "exec_failed", "deadline", "stalled"}


def _end_of_process(facts: _Facts) -> RunOutcome | None:
    """Endings that somebody else than the agent decided."""
    match facts.exit.reason:
        case "stopped":
            return _stopped(facts)
        case "crowded":
            return facts.ended(
                Outcome.OVER_BUDGET, one_line(facts.exit.detail) or "it had too many processes"
            )
        case "exec_failed":
            why = one_line(facts.exit.detail) or "no reason given"
            return facts.failed(FailureClass.SPAWN, f"the program could not be executed: {why}")
        case "deadline":
            sentence = f"ran into its time limit after {facts.seconds:.0f} s"
            return facts.ended(Outcome.TIMED_OUT, facts.explained(sentence))
        case "stalled":
            sentence = f"was silent for too long and was stopped after {facts.seconds:.0f} s"
            return facts.ended(Outcome.STALLED, facts.explained(sentence))
    return None


def _stopped(facts: _Facts) -> RunOutcome:
    # A stop that we did not write down first is a human's doing: it is not held against the task.
    outcome = facts.stop_outcome or Outcome.INTERRUPTED
    reason = facts.stop_reason or one_line(facts.exit.detail) or "a stop was asked for"
    return facts.ended(
        outcome,
        f"stopped: {reason}",
        failure_class=FailureClass.AGENT_ERROR if outcome is Outcome.FAILED else None,
        retry_at=_retry_at(facts) if outcome is Outcome.RATE_LIMITED else None,
    )


def _account_refused(facts: _Facts) -> RunOutcome | None:
    status, error = facts.summary.api_error_status, facts.summary.api_error
    if facts.is_success_record or not (status in ACCOUNT_STATUSES or error in ACCOUNT_ERRORS):
        return None
    word = error or f"HTTP {status}"
    return facts.ended(Outcome.AUTH_FAILED, facts.explained(f"the provider refused the account ({word})"))


def _asked_to_wait(facts: _Facts) -> RunOutcome | None:
    rejected = facts.summary.rate_limit_status == "rejected"
    limited = facts.summary.api_error_status == 429 or facts.summary.api_error == "rate_limit"
    if facts.is_success_record or not (rejected or limited):
        return None
    detail = facts.explained("the provider's rate limit was reached")
    return facts.ended(Outcome.RATE_LIMITED, detail, retry_at=_retry_at(facts))


def _retry_at(facts: _Facts) -> datetime | None:
    resets_at, wait = facts.summary.rate_limit_resets_at, facts.summary.retry_after
    if resets_at is None and wait is not None and wait >= SHORTEST_LIMIT:
        resets_at = facts.exit.ended_at + wait
    return resets_at if resets_at is not None and resets_at > facts.now else None


def _agent_gave_up(facts: _Facts) -> RunOutcome | None:
    """The final record says error; its own words say which."""
    final = facts.summary.final
    if final is None or not final.is_error:
        return None
    if final.terminal_reason == "prompt_too_long" or final.api_error_status == 413:
        return facts.failed(FailureClass.PROMPT_TOO_LONG, facts.explained("the prompt is too long"))
    if final.terminal_reason == "max_turns" or final.subtype == "error_max_turns":
        return facts.failed(FailureClass.TURN_LIMIT, facts.explained("the turn limit was reached"))
    if final.terminal_reason == "budget_exhausted" or final.subtype == "error_max_budget_usd":
        return facts.ended(Outcome.OVER_BUDGET, facts.explained("the agent's own budget was used up"))
    if final.terminal_reason == "api_error" or final.api_error_status is not None:
        status = f" (HTTP {final.api_error_status})" if final.api_error_status else ""
        sentence = f"the provider's API failed{status} and the agent gave up"
        return facts.failed(FailureClass.API_ERROR, facts.explained(sentence))
    word = final.terminal_reason or final.subtype or "no reason given"
    return facts.failed(FailureClass.AGENT_ERROR, facts.explained(f"the agent reports an error ({word})"))


def _bad_exit(facts: _Facts) -> RunOutcome | None:
    code = facts.exit.exit_code
    if facts.exit.exit_signal is not None or code in SIGNAL_EXIT_CODES:
        return facts.failed(FailureClass.SIGNAL, facts.how_it_exited)
    if code in (0, None):
        return None
    # A program that reports success and then exits badly did work: no set-up fault, however fast.
    is_fast = facts.seconds < facts.fast_exit_seconds and not facts.is_success_record
    return facts.failed(FailureClass.FAST_EXIT if is_fast else FailureClass.EXIT_CODE, facts.how_it_exited)


def _no_work_done(facts: _Facts) -> RunOutcome | None:
    final = facts.summary.final
    if final is None:
        if not facts.summary.final_expected:
            return None
        sentence = f"exited with 0 after {facts.seconds:.1f} s without a final record"
        return facts.failed(FailureClass.NO_RESULT, facts.explained(sentence))
    if final.num_turns == 0 and final.duration_api_ms == 0:
        # Claude takes a prompt that begins with a slash as a command and says success without any request.
        sentence = "exited with 0 without sending anything to the model"
        return facts.failed(FailureClass.NO_RESULT, facts.explained(sentence))
    return None


def _workspace(facts: _Facts) -> RunOutcome | None:
    if facts.git is None:
        return facts.failed(FailureClass.WORKSPACE, "the agent finished, but its workspace cannot be read")
    if facts.git.blocked_note is not None:
        note = one_line(facts.git.blocked_note) or "BLOCKED.md is empty"
        return facts.ended(Outcome.NEEDS_HUMAN, f"the agent asks for a human: {note}")
    if not facts.git.has_changes:
        return facts.ended(Outcome.NO_CHANGES, facts.explained("the agent finished and changed nothing"))
    return None


_QUESTIONS: tuple[Callable[[_Facts], RunOutcome | None], ...] = (
    _end_of_process,
    _account_refused,
    _asked_to_wait,
    _agent_gave_up,
    _bad_exit,
    _no_work_done,
    _workspace,
)
