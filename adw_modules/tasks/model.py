"""The nouns of Coordinator as frozen values. No behaviour beyond naming and formatting.

Times are aware UTC `datetime`s, durations are `timedelta`s, money is `Decimal` (US dollars).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum

from adw_modules.money.quotes import PriceSource
from adw_modules.security.admission import KeptComment


class Priority(IntEnum):
    """How urgent a task is: a smaller number goes first."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3

    @property
    def word(self) -> str:
        """The spelling used in rules, logs and output: critical, high, normal, low."""
        return self.name.lower()


class TaskState(StrEnum):
    """Where a task is. The legal moves between states are the table in `lifecycle.py`."""

    QUEUED = "queued"  # waits for a free slot
    BLOCKED = "blocked"  # cannot run now; always with a cause and, if one exists, a wake time
    RUNNING = "running"  # has exactly one live run
    RETRY_WAIT = "retry_wait"  # failed, will be tried again at `wake_at`
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Terminal states are left only by a new signal from a human."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class Outcome(StrEnum):
    """How one run ended. Exactly one each; `outcome.classify` decides."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"  # hit its deadline
    STALLED = "stalled"  # alive, but silent for longer than the stall time-out
    CANCELLED = "cancelled"  # issue closed, label removed, or an operator said so
    INTERRUPTED = "interrupted"  # ended by our own shutdown: not an attempt
    LOST = "lost"  # the worker and its shim are gone without an exit record
    NEVER_STARTED = "never_started"  # the agent was never executed: not an attempt
    NO_CHANGES = "no_changes"  # ended well, changed nothing
    RATE_LIMITED = "rate_limited"  # the provider asked us to wait: not an attempt
    AUTH_FAILED = "auth_failed"  # the provider refused the credentials: not an attempt
    OVER_BUDGET = "over_budget"
    NEEDS_HUMAN = "needs_human"  # the agent asked for a human (BLOCKED.md)


class FailureClass(StrEnum):
    """Why a run failed; decides the retry policy (`retries.py`)."""

    EXIT_CODE = "exit_code"  # the agent ended non-zero after working for a while
    FAST_EXIT = "fast_exit"  # the agent ended non-zero within ten seconds: a set-up fault, backs off long
    SIGNAL = "signal"  # the agent was killed by a signal that we did not send
    API_ERROR = "api_error"  # the provider's API failed and the agent gave up
    AGENT_ERROR = "agent_error"  # the agent's own final record says error
    TURN_LIMIT = "turn_limit"
    PROMPT_TOO_LONG = "prompt_too_long"
    NO_RESULT = "no_result"  # exit 0, but the stream has no final record or shows that no work was done
    WORKSPACE = "workspace"  # git could not prepare or keep the work
    PROMPT = "prompt"  # the prompt template could not be rendered
    SPAWN = "spawn"  # the program could not be executed
    POISON = "poison"  # daemon after daemon ended while it handled the task


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoRef:
    """A repository as GitHub names it. `repo_id` survives renames; the name does not."""

    owner: str
    name: str
    repo_id: int

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueSnapshot:
    """One GitHub issue as one response showed it. Input only; pull requests never become one."""

    repo: str  # "owner/name" as configured
    repo_id: int
    number: int
    title: str
    body: str
    labels: tuple[str, ...]
    author: str
    author_id: int
    state: str  # "open" | "closed"
    url: str  # the page a human opens
    created_at: datetime
    updated_at: datetime
    author_kind: str = ""  # "User", "Bot" …; "" where GitHub did not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The newest `labeled` event that put the trigger label on an issue, and who did it."""

    event_id: int
    actor: str
    actor_id: int
    labelled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A label that asks for a target (`provider:NAME`, `model:NAME`), and whoever put it there.

    `permitted`: that account may write to the repository. Any other label of this kind changes nothing.
    """

    label: str
    by: str
    permitted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTarget:
    """A provider and model that a task has failed on since its last trigger, and why.

    `until`: when its own back-off there is over. `needs_context`: tokens, where the prompt was too long.
    """

    provider: str
    model: str
    why: str
    until: datetime
    needs_context: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """An admitted issue: what intake says should become (or refresh) a task."""

    issue: IssueSnapshot
    priority: Priority
    trigger: Trigger
    overrides: tuple[Override, ...] = ()
    comments: tuple[KeptComment, ...] = ()  # what was said before the trigger by those who may start work


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An issue that carries the label but may not become a task. `reason` is one sentence."""

    issue: IssueSnapshot
    reason: str
    trigger: Trigger | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Our durable unit of work for one issue. One row per issue, for as long as the store lives."""

    task_id: int
    name: str  # "gh-12" (the `[github]` repository) or "owner/name/gh-12"; also its folder and log name
    repo: str
    repo_id: int
    issue_number: int
    title: str  # refreshed at each poll; for people
    snapshot_title: str  # what the trigger admitted; for the agent
    snapshot_body: str
    url: str
    labels: tuple[str, ...]
    author: str
    priority: Priority
    trigger_event_id: int
    triggered_by: str
    state: TaskState
    cause: str | None  # why it is blocked, waiting, failed or cancelled: one sentence
    wake_at: datetime | None  # when a blocked or waiting task is looked at again
    attempts: int  # runs that count against the limit since the last trigger
    lost: int  # runs that were lost since the last trigger: a limit of their own
    crashes: int  # daemons in a row that ended in the middle of handling this task
    runs: int  # runs ever, over the life of the issue
    tokens: int  # of all ended runs ever
    token: int  # fencing: rises with each claim
    last_outcome: Outcome | None
    last_failure_class: FailureClass | None
    last_provider: str | None
    last_model: str | None
    comment_id: int | None
    pr_number: int | None
    pr_url: str | None
    listed: bool  # the last complete listing of its repository held the issue
    issue_updated_at: datetime
    created_at: datetime
    updated_at: datetime
    failed_on: tuple[FailedTarget, ...] = ()  # since the last trigger, oldest first
    overrides: tuple[Override, ...] = ()  # labels that were looked into, permitted or not
    labelled_at: datetime | None = None  # of the trigger; None: of a time before that was kept
    snapshot_comments: tuple[KeptComment, ...] = ()  # admitted with the text; for the agent
    text_sha: str = ""  # SHA-256 of title and body as the trigger admitted them
    seen_sha: str = ""  # of the last other text that was looked into
    held: str | None = None  # the text was edited by somebody who may not start work: nothing is started
    told_wake_at: datetime | None = None  # the time of the next look that the comment shows
    author_id: int = 0  # of the account that opened the issue; 0: of a time before that was kept
    labeller_id: int = 0  # of `triggered_by`
    claimed_at: datetime | None = None  # when its last run began
    claimed_event: int | None = None  # `trigger_event_id` of then

    @property
    def branch(self) -> str:
        """The branch all attempts of this issue share."""
        return f"auto/gh-{self.issue_number}"

    def labels_of_others(self, own_prefix: str) -> tuple[str, ...]:
        """The labels without those we write ourselves: these say what we did, not what is wanted."""
        return tuple(label for label in self.labels if not own_prefix or not label.startswith(own_prefix))

    @property
    def retry_count(self) -> int:
        """How often the task has been tried already: what `retry_count` in rules compares."""
        return self.attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a task by one worker process."""

    run_id: int
    task_id: int
    token: int
    attempt: int
    provider: str
    model: str
    rule: str | None
    config_version: str
    run_dir: str
    claimed_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stop_reason: str | None  # why a stop was asked for ("issue closed", …), durable before any signal
    stop_outcome: Outcome | None  # the outcome such a stop has
    outcome: Outcome | None
    failure_class: FailureClass | None
    detail: str | None
    exit_code: int | None
    exit_signal: int | None
    stream_offset: int  # bytes of output.log already counted
    # With budgets: what was put aside for it at its claim, and from when on a stopped task may go on.
    reserved_usd: Decimal | None = None
    reserved_tokens: int | None = None
    stop_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What one run came to. `detail` is a sentence for people; `retry_at` for rate limits and budgets."""

    outcome: Outcome
    detail: str
    failure_class: FailureClass | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """The shim's `exit` file (format 1): how the agent process ended."""

    exit_code: int | None  # None when a signal ended it
    exit_signal: int | None
    reason: str  # "exited" | "deadline" | "stalled" | "stopped" | "crowded" | "exec_failed"
    detail: str  # free text, e.g. the exec error
    started_at: datetime
    ended_at: datetime
    cpu_seconds: float
    max_rss_kib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """What a run left in its workspace, compared with the base it started from."""

    has_changes: bool  # commits beyond the base, or uncommitted work
    head: str
    base: str
    blocked_note: str | None = None  # first lines of BLOCKED.md when the agent asks for a human


class UsageSource(StrEnum):
    """Where token numbers come from."""

    REPORTED = "reported"  # the agent's final record
    DERIVED = "derived"  # added up from per-call records because the run ended without a final one
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"  # nothing usable in the stream: never shown as 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """Tokens of one model in one run; the four input kinds are disjoint. `output` includes `reasoning`."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt(self) -> int:
        """All that went in, cached or not."""
        return self.input + self.cache_read + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output

    def __add__(self, other: ModelUsage) -> ModelUsage:
        return ModelUsage(
            input=self.input + other.input,
            cache_read=self.cache_read + other.cache_read,
            cache_write_5m=self.cache_write_5m + other.cache_write_5m,
            cache_write_1h=self.cache_write_1h + other.cache_write_1h,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one run by model, and where the numbers come from."""

    source: UsageSource
    by_model: dict[str, ModelUsage] = field(default_factory=dict)
    reported_cost_usd: Decimal | None = None  # the agent's own figure; ours is `Cost`
    # By model: no single request had a longer prompt (cache included). Not kept: only prices ask for it.
    longest_prompt: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def total(self) -> ModelUsage:
        total = ModelUsage()
        for usage in self.by_model.values():
            total = total + usage
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What one model's tokens in a run cost. `usd` is None when it is unknown or is not counted in money."""

    usd: Decimal | None
    source: PriceSource
    version: str | None = None  # of the price list


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run cost, exact. `usd` is None when any part is unknown: unknown is not 0."""

    usd: Decimal | None
    priced_by: str  # for people: "config" or "unknown: no price for MODEL"
    source: PriceSource | None = None  # None: of a time before it was kept
    version: str | None = None  # of the price list, or of each of them
    at_least: Decimal | None = None  # the known part of an unknown cost; None when nothing is known
    by_model: dict[str, ModelCost] = field(default_factory=dict)

    @property
    def is_subscription(self) -> bool:
        """Whether the run is paid by a flat rate, so that its tokens have no price."""
        return self.source is PriceSource.SUBSCRIPTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Frozen facts for one planning step. Nothing here changes while the plan is made."""

    now: datetime
    paused: bool
    running: tuple[tuple[Task, Run], ...]
    ready: tuple[Task, ...]  # queued tasks in dispatch order (priority, then age), as many as could start now
    due: tuple[Task, ...]  # retry_wait and blocked tasks whose wake time has come
    config_version: str
