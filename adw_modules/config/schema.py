"""The shape of config.toml: every section, key and default, from top to bottom.

No default of a key stands anywhere else. The file never holds a secret, only the name of the environment
variable that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adw_modules.agents import DIALECTS, dialect_of_program
from adw_modules.config import checks
from adw_modules.config.values import (
    Above0,
    AbsolutePath,
    AllowedHost,
    ApiUrl,
    AppUrl,
    AtLeast0,
    AtLeast1,
    Capabilities,
    Categories,
    ClientId,
    CommandTemplate,
    Condition,
    Conditions,
    Flag,
    Folder,
    FullName,
    HeaderText,
    Label,
    ListenAddress,
    MemorySize,
    Money,
    Name,
    OverrideLabels,
    Owner,
    PathPatterns,
    Price,
    RemoteUrl,
    RepositoryName,
    Roles,
    Shares,
    ShortName,
    Target,
    TemplateName,
    Text,
    TimeZone,
    UrlPath,
    Variable,
    Variables,
    address,
    in_table,
    is_loopback,
    number,
    of_provider,
    one_of,
    whole,
)
from adw_modules.config.wording import toml
from adw_modules.money.budget import Budget, Estimates, Per, Scope
from adw_modules.money.sellers import PRICE_LISTS
from adw_modules.openrouter import preferences as openrouter
from adw_modules.openrouter.preferences import DEFAULT_PREFERENCES, PreferenceEntry
from adw_modules.security import guarded as guarding
from adw_modules.security.admission import Policy
from adw_modules.security.network import REGISTRIES, NetworkMode

BUILT_IN_PROVIDER = "claude-cli"
# What `claude-cli` means when something names it and the file has no [providers.claude-cli].
BUILT_IN_TEMPLATE = list(DIALECTS["claude"].template)


class Section(BaseModel):
    """A table of the file: frozen, and strict about the keys it has."""

    # Defaults are validated too: 30 and 30.0 must not look like two values when settings are compared.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CoordinatorSettings(Section):
    """`[coordinator]`: how much runs, how often, how long, and where the daemon keeps its things."""

    max_concurrent_workers: Annotated[int, whole(least=1, most=1000)] = 3
    reserved_high_priority_workers: Annotated[int, whole(least=0, most=999)] = 0
    poll_interval_seconds: Above0 = 30
    worker_timeout_hours: Annotated[float, number(above=0, most=8760)] = 2
    stall_timeout_minutes: Annotated[float, number(above=0, most=525_600)] = 15
    stop_grace_seconds: AtLeast0 = 5
    launcher: Annotated[Literal["shim", "systemd"], one_of("shim", "systemd")] = "shim"
    state_dir: Folder = ".coordinator"
    database_url: Name | None = None
    timezone: TimeZone = "UTC"
    max_attempts: AtLeast1 = 3
    max_runs_per_issue: AtLeast1 = 15
    max_tokens_per_issue: AtLeast1 = 200_000_000
    max_crashes_per_task: AtLeast1 = 5
    log_dir: Folder | None = None
    prompts_dir: Folder = "prompts"

    @model_validator(mode="after")
    def _leaves_workers(self) -> Self:
        if self.reserved_high_priority_workers >= self.max_concurrent_workers:
            raise in_table(
                f"reserved_high_priority_workers ({self.reserved_high_priority_workers}) must be smaller "
                f"than max_concurrent_workers ({self.max_concurrent_workers}): other tasks would never run"
            )
        return self


class WorkerLimits(Section):
    """`[worker_limits]`: what one run may use of the machine, with `launcher = "systemd"`."""

    memory_max: MemorySize | None = None
    cpu_percent: Annotated[int, whole(least=1, most=100_000)] | None = None
    tasks_max: Annotated[int, whole(least=1, most=4_194_304)] | None = None


class SandboxSettings(Section):
    """`[sandbox]`: what a worker sees of the machine, and how much of it a run may take."""

    mode: Annotated[Literal["auto", "bubblewrap", "off"], one_of("auto", "bubblewrap", "off")] = "auto"
    bwrap: AbsolutePath | None = None
    network: Annotated[Literal["allow-list", "open", "none"], one_of(*NetworkMode)] = "allow-list"
    allow_hosts: tuple[AllowedHost, ...] = ()
    registries: tuple[Annotated[str, one_of(*REGISTRIES)], ...] = ()
    read_only: tuple[AbsolutePath, ...] = ()
    read_write: tuple[AbsolutePath, ...] = ()
    required_for_public: Flag = True
    processes: Annotated[int, whole(least=16, most=4_194_304)] = 4096
    file_mb: Annotated[int, whole(least=1, most=100_000_000)] = 10_000
    temporary_mb: Annotated[int, whole(least=1, most=100_000_000)] = 4000
    worktree_mb: Annotated[int, whole(least=1, most=100_000_000)] = 20_000


class LimitSettings(Section):
    """`[limits]`: how many runs a day may begin, how soon an issue begins again, how much a run may print."""

    runs_per_repository_per_day: Annotated[int, whole(least=0)] = 200
    runs_per_author_per_day: Annotated[int, whole(least=0)] = 100
    runs_per_labeller_per_day: Annotated[int, whole(least=0)] = 200
    retrigger_minutes: AtLeast0 = 2
    max_output_mb: Annotated[int, whole(least=1, most=1_000_000)] = 500


class HousekeepingSettings(Section):
    """`[housekeeping]`: how long what nobody needs any more is kept. Days; 0 keeps it for ever."""

    enabled: Flag = True
    interval_hours: Above0 = 6
    keep_runs_days: AtLeast0 = 30
    keep_runs_mb: Annotated[int, whole(least=0)] = 10_000
    keep_logs_days: AtLeast0 = 90
    keep_logs_mb: Annotated[int, whole(least=0)] = 5_000
    keep_quarantine_days: AtLeast0 = 90
    keep_events_days: AtLeast0 = 365


class RetrySettings(Section):
    """`[retries]`: how long a failed task waits before its next attempt."""

    base_delay_seconds: AtLeast0 = 60
    factor: Annotated[float, number(least=1, most=1000)] = 2
    max_delay_seconds: AtLeast0 = 3600
    fast_exit_seconds: AtLeast0 = 10
    fast_exit_base_delay_seconds: AtLeast0 = 300
    rate_limit_delay_seconds: AtLeast0 = 300
    auth_delay_seconds: AtLeast0 = 3600
    on_lost: Annotated[Literal["retry", "park"], one_of("retry", "park")] = "retry"
    max_lost_runs: AtLeast1 = 3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_delay_seconds < self.base_delay_seconds:
            raise in_table(
                f"max_delay_seconds ({toml(self.max_delay_seconds)}) must not be smaller than "
                f"base_delay_seconds ({toml(self.base_delay_seconds)})"
            )
        return self


class GitHubAppSettings(Section):
    """`[github.app]`: a GitHub App to act as, instead of the account of a token."""

    app_id: AtLeast1 | None = None
    client_id: ClientId | None = None
    private_key_env: Variable | None = None
    private_key_file: Folder | None = None
    installation_id: Annotated[int, whole(least=1, most=10**12)] | None = None

    @property
    def is_used(self) -> bool:
        """Whether there is an App; without one there is the token."""
        return self.app_id is not None or self.client_id is not None

    @property
    def issuer(self) -> str:
        """What the App's signatures are signed as."""
        return self.client_id or str(self.app_id)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        keys = [self.private_key_env, self.private_key_file]
        given = [value for _, value in self if value is not None]
        if self.app_id is not None and self.client_id is not None:
            raise in_table("has both app_id and client_id; keep one of them")
        if given and not self.is_used:
            raise in_table("needs app_id (or client_id): which App this is")
        if self.is_used and keys.count(None) != 1:
            raise in_table("needs private_key_env or private_key_file, and not both: where the App's key is")
        return self


class GitHubSettings(Section):
    """`[github]`: the main repository, and how GitHub is reached."""

    repo_owner: Owner = None
    repo_name: RepositoryName = None
    issue_label: Label = "rpi-auto"
    api_url: ApiUrl = "https://api.github.com"
    remote_url: RemoteUrl = "https://github.com/{owner}/{name}.git"
    token_env: Variable = "GITHUB_TOKEN"  # noqa: S105  the name of a variable, not a token
    status_label_prefix: Label = "coordinator:"
    writes_per_minute: Annotated[int, whole(least=0)] = 60
    writes_per_hour: Annotated[int, whole(least=0)] = 400
    report_delay_seconds: AtLeast0 = 2
    request_timeout_seconds: Above0 = 15
    git_user_name: Name = "Coordinator"
    git_user_email: Name = "coordinator@localhost"
    app: GitHubAppSettings = GitHubAppSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = {"repo_owner": self.repo_owner, "repo_name": self.repo_name}
        missing = [key for key, value in given.items() if value is None]
        if len(missing) == 1:
            raise in_table(f"needs {missing[0]} too: repo_owner and repo_name belong together")
        return self


class WebhookSettings(Section):
    """`[webhook]`: where GitHub may say that there is something new, so that no poll need be waited for."""

    enabled: Flag = False
    listen: ListenAddress = "127.0.0.1:8787"
    allow_remote: Flag = False
    path: UrlPath = "/github"
    secret_env: Variable = "GITHUB_WEBHOOK_SECRET"  # noqa: S105  the name of a variable, not a secret

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return address(self.listen) or ("127.0.0.1", 0)

    @model_validator(mode="after")
    def _on_loopback(self) -> Self:
        if not self.allow_remote and not is_loopback(self.address[0]):
            raise in_table(
                f"listens on {self.address[0]}, which other machines reach: put a reverse proxy before "
                "127.0.0.1, or set allow_remote = true"
            )
        return self


class RepositorySettings(Section):
    """One `[[repositories]]`: a further repository to watch."""

    owner: Owner
    name: RepositoryName
    issue_label: Label | None = None
    remote_url: RemoteUrl | None = None
    public: Flag | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.owner is None or self.name is None:
            raise in_table("needs an owner and a name, neither of them empty")
        return self

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


class AdmissionSettings(Section):
    """`[admission]`: who may start work beside people with write access, and what reaches the agent."""

    roles: Roles = ()
    bots: tuple[Annotated[int, whole(least=1, most=10**15)], ...] = ()
    comments: Flag = False
    comment_on_refusal: Flag = False
    public_repositories: Flag = False

    @property
    def policy(self) -> Policy:
        """As the judge takes it."""
        return Policy(roles=frozenset(role.casefold() for role in self.roles), bots=frozenset(self.bots))


class ProviderSettings(Section):
    """One `[providers.NAME]`: a program that can run a model."""

    enabled: Flag = True
    command_template: CommandTemplate  # or the dialect's own, where `agent` names one
    requires_api_key: Flag = False
    api_key_env: Variable | None = None
    agent: Annotated[str, one_of(*DIALECTS)] = "claude"  # or what the program of the template speaks
    billing: Annotated[Literal["api", "subscription"], one_of("api", "subscription")] = "api"
    price_list: Annotated[str, one_of(*PRICE_LISTS)] | None = None
    max_concurrent_runs: AtLeast1 | None = None
    requests_per_minute: AtLeast1 | None = None
    tokens_per_minute: AtLeast1 | None = None
    env: Variables = Field(default_factory=dict)
    pass_env: tuple[Variable, ...] = ()
    stop_signal: Annotated[Literal["SIGINT", "SIGTERM"], one_of("SIGINT", "SIGTERM")] = "SIGINT"
    allow_hosts: tuple[AllowedHost, ...] = ()  # beside its own service, through the sandbox's proxy
    sandbox_paths: tuple[AbsolutePath, ...] | None = None  # or what the dialect needs for its log-in

    @model_validator(mode="before")
    @classmethod
    def _filled_from_dialect(cls, table: Any) -> Any:
        """A dialect brings its own command, and a command its dialect. The fields say what is wrong."""
        if not isinstance(table, dict):
            return table
        template = table.get("command_template")
        program = template[0] if isinstance(template, list | tuple) and template else ""
        agent = table.get("agent", dialect_of_program(program) if isinstance(program, str) else "generic")
        dialect = DIALECTS.get(agent) if isinstance(agent, str) else None
        filled = {"agent": agent, "stop_signal": dialect.stop_signal if dialect else "SIGINT", **table}
        if "agent" in table and dialect is not None and dialect.template:
            filled.setdefault("command_template", list(dialect.template))
        return filled

    @model_validator(mode="after")
    def _key_has_a_name(self) -> Self:
        if self.requires_api_key and self.api_key_env is None:
            raise in_table(
                "has requires_api_key = true, so it needs api_key_env, the variable that holds the key"
            )
        return self


class LlmSettings(Section):
    """`[llm]`: what runs a task when no rule says otherwise."""

    provider: Name = BUILT_IN_PROVIDER
    model_default: Name = "claude-sonnet-4-5"


class WorktreeSettings(Section):
    """`[worktree]`: where the git worktrees of the tasks are."""

    base_dir: Folder = "trees"


class ContentSettings(Section):
    """`[content]`: what a change may hold before a person is asked, and what of a repository agents run."""

    project_hooks: Flag = False
    approval_label: Label = "approve-changes"
    guarded: PathPatterns = ()
    allowed: PathPatterns = ()
    max_file_mb: Annotated[float, number(above=0, most=100_000)] = 10
    max_total_mb: Annotated[float, number(above=0, most=1_000_000)] = 50
    max_files: AtLeast1 = 2000

    @property
    def policy(self) -> guarding.Policy:
        """As the review takes it."""
        return guarding.Policy(
            guarded=self.guarded,
            allowed=self.allowed,
            max_file=int(self.max_file_mb * 2**20),
            max_total=int(self.max_total_mb * 2**20),
            max_files=self.max_files,
        )


class RuleTargetSettings(Section):
    """One of the `targets` that a rule spreads its tasks over."""

    provider: Name | None = None
    model: Name | None = None
    weight: Annotated[int, whole(least=1, most=1000)] = 1

    @model_validator(mode="before")
    @classmethod
    def _is_written(cls, table: Any) -> Any:
        if isinstance(table, dict) and "select" in table:
            raise in_table(
                "cannot be a selection: tasks are spread over written targets by their weights, and a "
                "selection finds its own for each task; use target = { select = … }, with written targets "
                "as fallbacks"
            )
        return table

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if self.provider is None and self.model is None:
            raise in_table("needs a provider, a model, or both")
        return self


class RuleSettings(Section):
    """One `[[routing.rules]]`: when it matches (always, without a condition), and what it then picks."""

    name: Name | None = None
    priority: Annotated[int, whole()] = 50
    conditions: Conditions | None = None
    condition: Condition | None = None
    provider: Name | None = None
    model: Name | None = None
    target: Target | None = None
    targets: tuple[RuleTargetSettings, ...] = ()
    fallbacks: tuple[Target, ...] = ()
    requires: Capabilities = ()
    reason: Text | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        spellings = (self.provider or self.model, self.target, self.targets)
        if sum(map(bool, spellings)) > 1:
            raise in_table('has several of "provider" and "model", "target", "targets"; keep one of them')
        return self

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        if self.conditions is not None and self.condition is not None:
            raise in_table('has both "condition" and "conditions"; keep one of them')
        return self


class RoutingSettings(Section):
    """`[routing]`: the rules that pick provider and model for a task."""

    enabled: Flag = False
    default_provider: Name | None = None
    default_model: Name | None = None
    fallbacks: tuple[Target, ...] = ()
    override_labels: OverrideLabels = Field(
        default_factory=lambda: {"provider": "provider:", "model": "model:", "workflow": "workflow:"}
    )
    rules: tuple[RuleSettings, ...] = ()


class PreferenceSettings(Section):
    """One `[[preferences]]`: where the tasks of an author or a repository go, before `[routing]` is asked."""

    author: Name | None = None
    repository: FullName | None = None
    default_provider: Name | None = None
    default_model: Name | None = None
    rules: tuple[RuleSettings, ...] = ()

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if (self.author is None) is (self.repository is None):
            raise in_table("needs an author or a repository, and not both")
        return self


class ArmSettings(Section):
    """One of the `[[experiments.arms]]`."""

    name: ShortName
    provider: Name
    model: Name
    weight: Annotated[int, whole(least=1, most=1000)] = 1
    fallbacks: tuple[Target, ...] = ()


class StopSettings(Section):
    """`[experiments.stop]`: when an experiment has an answer."""

    min_samples: Annotated[int, whole(least=2, most=1_000_000)] = 30
    max_samples: AtLeast1 | None = None
    confidence: Annotated[float, number(least=0.5, most=0.9999)] = 0.95
    margin: Annotated[float, number(above=0, most=1)] = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_samples is not None and self.max_samples < self.min_samples:
            raise in_table(
                f"max_samples ({self.max_samples}) must not be smaller than min_samples ({self.min_samples})"
            )
        return self


class ExperimentSettings(Section):
    """One of the `[[experiments]]`: targets compared on tasks that are dealt out by chance."""

    name: ShortName
    conditions: Conditions | None = None
    condition: Condition | None = None
    share: Annotated[float, number(above=0, most=1)] = 1
    arms: tuple[ArmSettings, ...]
    stop: StopSettings = StopSettings()

    @model_validator(mode="after")
    def _compares(self) -> Self:
        names = [arm.name.casefold() for arm in self.arms]
        if len(names) < 2:
            raise in_table("needs two arms at least: there is nothing to compare")
        if len(set(names)) < len(names):
            raise in_table("has two arms of the same name")
        if self.conditions is not None and self.condition is not None:
            raise in_table('has both "condition" and "conditions"; keep one of them')
        return self


class ModelSettings(Section):
    """One `[[models]]`: who serves a model, what a million tokens cost in US dollars, what it can do."""

    name: Name
    provider: Name
    cost_per_million_input: Price | None = None
    cost_per_million_output: Price | None = None
    cost_per_million_cache_read: Price | None = None
    cost_per_million_cache_write: Price | None = None
    context_window: AtLeast1 | None = None
    capabilities: tuple[Text, ...] = ()


class BudgetSettings(Section):
    """One `[[budgets]]`: how much may be spent, on what, and how long that lasts."""

    name: Name
    money_usd: Money | None = None
    tokens: Annotated[int, whole(least=1, most=10**15)] | None = None
    per: Annotated[Literal["day", "month", "total"], one_of(*Per)] = "day"
    scope: Annotated[Literal["all", "repository", "label", "author", "provider", "task"], one_of(*Scope)] = (
        "all"
    )
    only: tuple[Name, ...] = ()
    hard: Flag = True
    warn_at: Shares = (0.8, 1.0)

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.money_usd is None and self.tokens is None:
            raise in_table("needs money_usd or tokens, or both: how much may be spent")
        if self.only and self.scope == "all":
            raise in_table('has "only", so it needs a scope, such as scope = "label"')
        return self

    @property
    def budget(self) -> Budget:
        """As the arithmetic takes it."""
        return Budget(
            name=self.name,
            usd=self.money_usd,
            tokens=self.tokens,
            per=Per(self.per),
            scope=Scope(self.scope),
            only=self.only,
            is_hard=self.hard,
            warn_at=self.warn_at,
        )


class BudgetEstimateSettings(Section):
    """`[budget_estimates]`: how much is reserved for a run before it starts."""

    usd: Money = Decimal(1)
    tokens: AtLeast1 = 1_000_000
    quantile: Annotated[float, number(above=0, most=1)] = 0.9
    min_runs: AtLeast1 = 5

    @property
    def estimates(self) -> Estimates:
        """As the arithmetic takes them."""
        return Estimates(usd=self.usd, tokens=self.tokens, quantile=self.quantile, min_runs=self.min_runs)


class OpenRouterPreferenceSettings(Section):
    """One `[[openrouter.preferences]]`: which of OpenRouter's providers may serve the models of a pattern."""

    models: Annotated[tuple[str, ...], of_provider(openrouter.model_patterns)]
    order: Annotated[tuple[str, ...], of_provider(openrouter.slugs)] | None = None
    allow_fallbacks: Flag | None = None
    only: Annotated[tuple[str, ...], of_provider(openrouter.slugs)] | None = None
    ignore: Annotated[tuple[str, ...], of_provider(openrouter.slugs)] | None = None
    require_parameters: Flag | None = None
    data_collection: Annotated[str, of_provider(openrouter.data_collection)] | None = None
    zdr: Flag | None = None
    enforce_distillable_text: Flag | None = None
    quantizations: Annotated[tuple[str, ...], of_provider(openrouter.quantizations)] | None = None
    sort: Annotated[str | dict[str, Any], of_provider(openrouter.sort)] | None = None
    max_price: Annotated[dict[str, Any], of_provider(openrouter.max_price)] | None = None
    preferred_max_latency: Annotated[float | dict[str, Any], of_provider(openrouter.speed)] | None = None
    preferred_min_throughput: Annotated[float | dict[str, Any], of_provider(openrouter.speed)] | None = None
    options: Annotated[dict[str, Any], of_provider(openrouter.options)] | None = None

    @property
    def entry(self) -> PreferenceEntry:
        """As the client takes it."""
        return PreferenceEntry.from_mapping({key: value for key, value in self if value is not None})


def _default_preferences() -> tuple[OpenRouterPreferenceSettings, ...]:
    return tuple(
        OpenRouterPreferenceSettings.model_validate({"models": entry.models, **entry.preferences.to_json()})
        for entry in DEFAULT_PREFERENCES
    )


class OpenRouterSettings(Section):
    """`[openrouter]`: what OpenRouter is told about us, and which of its providers serve which model."""

    app_name: HeaderText = "Coordinator"
    app_url: AppUrl = "http://localhost"
    categories: Categories = ("cli-agent",)
    preferences: tuple[OpenRouterPreferenceSettings, ...] = Field(default_factory=_default_preferences)


class CatalogSettings(Section):
    """`[catalog]`: how often OpenRouter's catalogue of models is read, and who is told of new ones."""

    enabled: Flag = True
    sync_interval_hours: Annotated[float, number(above=0, most=8760)] = 6
    research_interval_days: Annotated[float, number(above=0, most=365)] = 7
    alert_repository: FullName | None = None
    alert_issue: AtLeast1 | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.alert_repository is None) != (self.alert_issue is None):
            missing = "alert_issue" if self.alert_issue is None else "alert_repository"
            raise in_table(f"needs {missing} too: alert_repository and alert_issue belong together")
        return self


class SelectionSettings(Section):
    """`[selection]`: what a task is expected to use while too few own runs say so."""

    expected_input_tokens: AtLeast1 = 300_000
    expected_output_tokens: AtLeast1 = 10_000
    expected_context_tokens: AtLeast1 = 100_000


class StageSettings(Section):
    """One stage of a workflow."""

    name: Name
    provider: Name | None = None
    model: Name | None = None
    prompt: TemplateName = "implement"


class WorkflowSettings(Section):
    """One `[workflows.NAME]`: stages with a model each, one of which a task that asks for it is done by."""

    stages: tuple[StageSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRepository:
    """A repository to watch, with everything that `[github]` lends it filled in."""

    owner: str
    name: str
    label: str
    remote_url: str
    may_be_public: bool  # work is started in it even when everybody can see it
    is_primary: bool  # the one of `[github]`: its tasks are called gh-12, without the repository's name

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


class Settings(Section):
    """The whole file, checked. Nothing in it changes; a reload makes another one."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    worker_limits: WorkerLimits = WorkerLimits()
    sandbox: SandboxSettings = SandboxSettings()
    limits: LimitSettings = LimitSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    retries: RetrySettings = RetrySettings()
    github: GitHubSettings = GitHubSettings()
    admission: AdmissionSettings = AdmissionSettings()
    webhook: WebhookSettings = WebhookSettings()
    repositories: tuple[RepositorySettings, ...] = ()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    llm: LlmSettings = LlmSettings()
    worktree: WorktreeSettings = WorktreeSettings()
    content: ContentSettings = ContentSettings()
    routing: RoutingSettings = RoutingSettings()
    preferences: tuple[PreferenceSettings, ...] = ()
    experiments: tuple[ExperimentSettings, ...] = ()
    models: tuple[ModelSettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()
    budget_estimates: BudgetEstimateSettings = BudgetEstimateSettings()
    openrouter: OpenRouterSettings = OpenRouterSettings()
    catalog: CatalogSettings = CatalogSettings()
    selection: SelectionSettings = SelectionSettings()
    workflows: dict[str, WorkflowSettings] = Field(default_factory=dict)

    def all_repositories(self) -> tuple[ResolvedRepository, ...]:
        """Every repository to watch, the one of `[github]` first."""
        github = self.github
        primary = (github.repo_owner, github.repo_name, None, None, None)
        others = [(r.owner, r.name, r.issue_label, r.remote_url, r.public) for r in self.repositories]
        return tuple(
            ResolvedRepository(
                owner=owner,
                name=name,
                label=label or github.issue_label,
                remote_url=(remote or github.remote_url).replace("{owner}", owner).replace("{name}", name),
                may_be_public=self.admission.public_repositories if public is None else public,
                is_primary=index == 0,
            )
            for index, (owner, name, label, remote, public) in enumerate([primary, *others])
            if owner and name
        )

    def warnings(self) -> list[str]:
        """What works but is probably not meant: one sentence each, for the log and for `doctor`."""
        return checks.warnings(self)
