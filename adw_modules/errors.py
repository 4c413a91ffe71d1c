"""The whole exception tree on one screen; OpenRouter's own is in `openrouter/errors.py`.

Expected outcomes of work (a failed run, no route, a refused issue) are values, not exceptions.
An exception here means: this operation cannot go on. Adapters translate library errors into
these with `raise … from`; nobody else catches a library's own exceptions.
"""

from __future__ import annotations

from datetime import datetime


class CoordinatorError(Exception):
    """Anything Coordinator says on purpose. `str(error)` is one sentence an operator can act on."""


class ConfigError(CoordinatorError):
    """The operator's configuration cannot be used. Exit code 78.

    `problems` holds one full sentence each (file, line when TOML gives one, key, how to mend);
    `str(error)` is all of them, one a line.
    """

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class GitHubUnavailable(CoordinatorError):
    """GitHub cannot answer now: limit, 5xx, time-out, no network, or an answer that is not GitHub's.

    Never a reason to cancel, claim or repeat anything. `retry_at` (UTC) is the earliest moment
    another request may be sent; None when only the caller's own back-off applies.
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        self.retry_at = retry_at
        super().__init__(message)


class GitHubRefused(CoordinatorError):
    """GitHub answered no (401, 403 without a limit, 404, 410, 422). Repeating will not help."""

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


class WorkspaceError(CoordinatorError):
    """git, or the place where a run works, is not usable."""


class SpawnError(CoordinatorError):
    """The worker process could not be started."""


class PromptError(CoordinatorError):
    """The prompt template cannot be rendered (unknown variable, syntax error, missing file)."""


class StoreError(CoordinatorError):
    """The database cannot be used (locked state directory, corrupted file, unknown format)."""


class StateDirBusy(StoreError):
    """Another daemon holds the state directory. Exit code 75."""


class StoreDamaged(StoreError):
    """The database file has lost its content or its form: nothing is written to it any more."""


class IllegalTransition(CoordinatorError):
    """A bug: an event that the lifecycle table does not allow in this state."""
