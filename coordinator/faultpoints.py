"""Fault points: the places between two steps of a task's life at which a test may have us killed.

Owns their names, their order, and the one sentence on what survives a SIGKILL there; docs/crash-table.md is
printed from it. Without the variable a point costs one comparison. Must not: do anything but die, or let
the variable reach a child process. The shim, which may import nothing of ours, has its own small hook.
"""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum

from adw_modules.errors import ConfigError

VARIABLE = "COORDINATOR_FAULT"  # `NAME`, or `NAME:3` for the third time that the point is passed
SHIM_VARIABLE = "COORDINATOR_SHIM_FAULT"  # from the launcher to the shims; nobody else sets it


class Point(StrEnum):
    """Every fault point, in the order in which a task comes by."""

    LISTED = "poll.listed"
    JUDGED = "poll.judged"
    ADMITTING = "admit.uncommitted"
    ADMITTED = "admit.committed"
    CLAIMING = "claim.uncommitted"
    CLAIMED = "claim.committed"
    MIRROR_FETCHED = "mirror.fetched"
    FETCHED = "workspace.fetched"
    TREE_REGISTERED = "workspace.registered"
    TREE_CHECKED_OUT = "workspace.checked_out"
    WORKSPACE_READY = "workspace.ready"
    RUN_DIR_MADE = "rundir.made"
    SPEC_WRITTEN = "rundir.spec_written"
    PROMPT_WRITTEN = "rundir.prompt_written"
    SHIM_ASKED = "launch.asked"
    SHIM_LOCKED = "shim.locked"
    SHIM_READY = "shim.ready"
    SHIM_STARTED = "shim.started"
    SHIM_SPAWNED = "shim.spawned"
    SHIM_RECORDED = "shim.recorded"
    SHIM_REPORTED = "shim.reported"
    SHIM_ANSWERED = "launch.answered"
    START_MARKING = "start.uncommitted"
    START_MARKED = "start.marked"
    PROGRESS_READ = "progress.read"
    PROGRESS_SAVED = "progress.saved"
    HELD = "hold.committed"
    STOP_RECORDED = "stop.recorded"
    STOP_ASKED = "stop.asked"
    SHIM_AGENT_GONE = "shim.agent_gone"
    SHIM_EXIT_WRITTEN = "shim.exit_written"
    END_SEEN = "end.seen"
    WORK_STAGED = "work.staged"
    WORK_KEPT = "work.kept"
    OUTCOME_JUDGED = "outcome.judged"
    SUMMARY_SAVED = "summary.saved"
    SETTLING = "settle.uncommitted"
    SETTLED = "settle.committed"
    CALL_LOGGED = "call.logged"
    REQUEUED = "retry.queued"
    PULL_TAKEN = "pull.taken"
    RECHECKED = "pull.rechecked"
    PUSH_UNRECORDED = "push.unrecorded"
    PUSHED = "push.recorded"
    PULL_LOOKED_UP = "pull.looked_up"
    PULL_CREATED = "pull.created"
    PULL_RECORDED = "pull.recorded"
    TREE_REMOVED = "workspace.removed"
    RELEASED = "workspace.released"
    COMMENT_LOOKED_UP = "comment.looked_up"
    COMMENT_WRITTEN = "comment.written"
    COMMENT_RECORDED = "comment.recorded"
    LABEL_ADDED = "label.added"
    LABELLED = "label.set"
    PUBLISHING = "outbox.uncommitted"
    PUBLISHED = "outbox.done"
    REVOKED = "adopt.revoked"
    ADOPTED = "adopt.judged"
    CRASH_COUNTED = "adopt.crash_counted"

    @property
    def is_of_shim(self) -> bool:
        """Whether the shim dies there, not the daemon."""
        return self.startswith("shim.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a point stands, and what a SIGKILL leaves there for the next daemon."""

    after: str
    before: str
    survives: str


def _step(after: str, before: str, survives: str) -> Step:
    return Step(after=after, before=before, survives=survives)


_CLAIM = "The claim, and no process: the run never started, the task is queued again, no attempt counts"

STEPS: Mapping[Point, Step] = {
    Point.LISTED: _step(
        "GitHub has answered the listing",
        "it is compared with the store",
        "Nothing of this answer, and it was not needed: the next daemon reads the whole listing again.",
    ),
    Point.JUDGED: _step(
        "GitHub has said who put the label on and what they may do",
        "the task is stored",
        "Nothing of these answers: the next daemon asks again.",
    ),
    Point.ADMITTING: _step(
        "the task is written",
        "its commit",
        "The store as it was before. The next poll brings the issue again.",
    ),
    Point.ADMITTED: _step(
        "a task is stored",
        "the next issue of the listing is",
        "The queued task with the issue's text. Issues not stored yet come with the next poll.",
    ),
    Point.CLAIMING: _step(
        "claim, run and report are written",
        "their commit",
        "The queued task: no attempt, no run, no token.",
    ),
    Point.CLAIMED: _step(
        "the claim is committed",
        "anything is prepared",
        f"{_CLAIM}.",
    ),
    Point.MIRROR_FETCHED: _step(
        "a new mirror has its first fetch",
        "it is put in its place",
        "A copy under `repos/.making`, which the next daemon throws away, and perhaps a claim.",
    ),
    Point.FETCHED: _step(
        "the mirror is up to date",
        "the worktree is made",
        f"The mirror. {_CLAIM}.",
    ),
    Point.TREE_REGISTERED: _step(
        "git knows the worktree",
        "its files are checked out",
        f"An empty worktree, which the next run moves to quarantine. {_CLAIM}.",
    ),
    Point.TREE_CHECKED_OUT: _step(
        "the files are checked out",
        "our record of the worktree is written",
        f"A worktree that nothing is known of, which the next run moves to quarantine. {_CLAIM}.",
    ),
    Point.WORKSPACE_READY: _step(
        "the worktree is ready",
        "the run directory is made",
        f"The worktree, which the next run uses. {_CLAIM}.",
    ),
    Point.RUN_DIR_MADE: _step(
        "the run directory is made",
        "`spec.json` is written",
        f"An empty run directory, which the next daemon revokes. {_CLAIM}.",
    ),
    Point.SPEC_WRITTEN: _step(
        "`spec.json` is written",
        "`prompt.md` is",
        f"A run directory without a prompt, which the next daemon revokes. {_CLAIM}.",
    ),
    Point.PROMPT_WRITTEN: _step(
        "`prompt.md` is written",
        "a shim is asked for",
        f"A whole run directory, which the next daemon revokes. {_CLAIM}.",
    ),
    Point.SHIM_ASKED: _step(
        "a shim is asked for",
        "it answers",
        "Either the shim was faster than the next daemon: then its agent works and is adopted. Or the run "
        "directory is revoked, the shim refuses to start in it, and the task is queued again.",
    ),
    Point.SHIM_LOCKED: _step(
        "the shim has the lock",
        "it has read `spec.json`",
        "A run directory without `started`: no agent ran, and none ever will. The task is queued again.",
    ),
    Point.SHIM_READY: _step(
        "the shim has all it needs",
        "`started` is durable",
        "A run directory without `started`: no agent ran, and none ever will. The task is queued again.",
    ),
    Point.SHIM_STARTED: _step(
        "`started` is durable",
        "the agent is executed",
        "`started` without a shim: the run is `lost`, although no agent ran, and tried again.",
    ),
    Point.SHIM_SPAWNED: _step(
        "the agent is executed",
        "its pid is recorded",
        "An agent without an owner, found by the marker in its environment and killed: `lost`, tried again.",
    ),
    Point.SHIM_RECORDED: _step(
        "the agent's pid is recorded",
        "the shim reports to the daemon",
        "An agent without an owner, found by pid and start time and killed: `lost`, tried again.",
    ),
    Point.SHIM_REPORTED: _step(
        "the shim has reported",
        "it watches the agent",
        "An agent without an owner, found by pid and start time and killed: `lost`, tried again.",
    ),
    Point.SHIM_ANSWERED: _step(
        "the shim has answered: the start is durable",
        "the daemon follows the run",
        "The agent, which works on under its shim; the next daemon adopts it.",
    ),
    Point.START_MARKING: _step(
        "the start is written",
        "its commit",
        "The agent, which works on under its shim; the next daemon adopts it and writes the start.",
    ),
    Point.START_MARKED: _step(
        "the store knows of the start",
        "the output is followed",
        "The agent, which works on under its shim; the next daemon adopts it.",
    ),
    Point.PROGRESS_READ: _step(
        "output is read and copied to the task's log",
        "the offset and the tokens so far are saved",
        "The agent and all its output. The next daemon reads from the last saved offset: the log of the task "
        "shows the piece in between twice, its tokens count once.",
    ),
    Point.PROGRESS_SAVED: _step(
        "the offset and the tokens so far are saved",
        "the next look at the run",
        "The agent and all its output; the next daemon goes on at the offset.",
    ),
    Point.HELD: _step(
        "a task whose text was edited is held in the store",
        "its run is told to stop",
        "The hold: the next daemon stops the run when it adopts it, and starts no other.",
    ),
    Point.STOP_RECORDED: _step(
        "a stop is in the store",
        "the shim is asked",
        "The request: the next daemon passes it on when it adopts the run.",
    ),
    Point.STOP_ASKED: _step(
        "`stop` is in the run directory",
        "the agent has ended",
        "The request: the shim ends its agent without a daemon, and the next one settles the run as stopped.",
    ),
    Point.SHIM_AGENT_GONE: _step(
        "the agent and all its children are gone",
        "`exit` is written",
        "The agent's work in the worktree, but nobody knows how it ended: `lost`, and the next run goes on "
        "from that work.",
    ),
    Point.SHIM_EXIT_WRITTEN: _step(
        "`exit` is durable",
        "the lock is let go",
        "The exit record: the run is settled by it, as if the shim had ended by itself.",
    ),
    Point.END_SEEN: _step(
        "the daemon has seen the end of the run",
        "it looks at the work",
        "The exit record: the next daemon settles the run.",
    ),
    Point.WORK_STAGED: _step(
        "what the agent did not commit is staged",
        "it is committed",
        "The work in the worktree: the next daemon commits it.",
    ),
    Point.WORK_KEPT: _step(
        "the work is committed on the task's branch",
        "the outcome is judged",
        "The work. The next daemon finds nothing left to commit and settles the run.",
    ),
    Point.OUTCOME_JUDGED: _step(
        "the outcome is judged",
        "`summary.json` is written",
        "The work and the exit record: the next daemon judges again, the same way.",
    ),
    Point.SUMMARY_SAVED: _step(
        "`summary.json` is written",
        "the run is settled",
        "The work and the exit record: the next daemon judges again, and writes an equal summary.",
    ),
    Point.SETTLING: _step(
        "run, tokens, cost, state and outbox are written",
        "their commit",
        "None of these: the run is still open, and the next daemon settles it.",
    ),
    Point.SETTLED: _step(
        "the run is settled",
        "the call is logged",
        "All that the settling says, the outbox with it. Only the line in `logs/api` is never written.",
    ),
    Point.CALL_LOGGED: _step(
        "the call is logged",
        "anything is published",
        "All that the settling says; the next daemon publishes it.",
    ),
    Point.REQUEUED: _step(
        "a waiting task is back in the queue",
        "it is claimed",
        "The queued task, with the cause of its last failure.",
    ),
    Point.PULL_TAKEN: _step(
        "the pull request is taken from the outbox",
        "rights and label are looked at again",
        "The branch in the mirror; the next daemon looks, and pushes it.",
    ),
    Point.RECHECKED: _step(
        "rights and label were looked at again",
        "the branch is pushed",
        "The branch in the mirror, and nothing of the look: the next daemon looks again before it pushes.",
    ),
    Point.PUSH_UNRECORDED: _step(
        "the branch is on GitHub",
        "we have noted the commit",
        "The branch on GitHub; the next push finds it up to date.",
    ),
    Point.PUSHED: _step(
        "the push is noted",
        "a pull request is looked for",
        "The branch on GitHub; the next daemon pushes nothing new and looks for the pull request.",
    ),
    Point.PULL_LOOKED_UP: _step(
        "there is no pull request yet",
        "it is asked for",
        "The branch on GitHub; the next daemon looks again, and then asks.",
    ),
    Point.PULL_CREATED: _step(
        "GitHub has made the pull request",
        "its number is stored",
        "The pull request; the next daemon finds it by its branch and makes no second one.",
    ),
    Point.PULL_RECORDED: _step(
        "the number of the pull request is stored",
        "the worktree is released",
        "The number and the worktree; the next daemon finds the pull request and releases the worktree.",
    ),
    Point.TREE_REMOVED: _step(
        "the worktree is removed",
        "its branch is taken out of the mirror",
        "The pull request. The branch stays in the mirror, where it harms nobody.",
    ),
    Point.RELEASED: _step(
        "the worktree is released",
        "the outbox is told",
        "The pull request; the next daemon finds it and has nothing left to do for it.",
    ),
    Point.COMMENT_LOOKED_UP: _step(
        "the comment was looked for",
        "it is written or edited",
        "Nothing of this look; the next daemon looks again.",
    ),
    Point.COMMENT_WRITTEN: _step(
        "GitHub has the comment",
        "its id is stored",
        "The comment; the next daemon finds it by its marker and edits it.",
    ),
    Point.COMMENT_RECORDED: _step(
        "the comment is written and its id stored",
        "the label is set",
        "The comment; the next daemon edits it once more and sets the label.",
    ),
    Point.LABEL_ADDED: _step(
        "the new status label is on the issue",
        "the old one is taken off",
        "Two status labels; the next daemon takes the old one off.",
    ),
    Point.LABELLED: _step(
        "comment and label are up to date",
        "the outbox is told",
        "Both; the next daemon writes the same once more.",
    ),
    Point.PUBLISHING: _step(
        "the outbox item is marked done",
        "the commit",
        "The item, still due; what it asks for is found done and written once more.",
    ),
    Point.PUBLISHED: _step(
        "the outbox item is done",
        "the next one is taken",
        "Everything: nothing is left to do for this item.",
    ),
    Point.REVOKED: _step(
        "a run that never started is revoked",
        "it is settled",
        "The open run, revoked; the next daemon comes to the same end.",
    ),
    Point.ADOPTED: _step(
        "a run of the last daemon is judged by its run directory",
        "it is followed or settled",
        "The run directory, from which the next daemon judges again.",
    ),
    Point.CRASH_COUNTED: _step(
        "the crash is counted against the task",
        "its run is settled",
        "The count and the open run: if this daemon crashed as well, the next one counts once more.",
    ),
}


@dataclass(slots=True)
class _Fault:
    """What this process was told to die at."""

    point: Point | None = None
    passes: int = 1


_fault = _Fault()


def arm(environ: MutableMapping[str, str]) -> None:
    """Read the variable and take it out, so that no child process inherits it. Raises ConfigError."""
    environ.pop(SHIM_VARIABLE, None)
    text = environ.pop(VARIABLE, "")
    if text:
        _fault.point, _fault.passes = _parsed(text)


def reached(point: Point) -> None:
    """Say that the task has come this far; the last thing this process does if the point is the armed one."""
    if point is not _fault.point:
        return
    _fault.passes -= 1
    if _fault.passes == 0:
        os.write(2, f"killed at the fault point {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def shim_environment() -> dict[str, str]:
    """What the environment of shims needs for a fault point of theirs: empty unless one is armed.

    A shim passes each of its points once. So the number is that of the run among the runs of its task.
    """
    point = _fault.point
    return {SHIM_VARIABLE: f"{point}:{_fault.passes}"} if point and point.is_of_shim else {}


def _parsed(text: str) -> tuple[Point, int]:
    name, _, number = text.partition(":")
    if name not in set(Point):
        near = difflib.get_close_matches(name, list(Point), n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/crash-table.md lists them."
        raise ConfigError(f"{VARIABLE}: there is no fault point {name!r}; {hint}")
    if number and not (number.isascii() and number.isdecimal() and int(number) > 0):
        raise ConfigError(f"{VARIABLE}: {number!r} is not the number of a pass; write {name} or {name}:3.")
    return Point(name), int(number or 1)
