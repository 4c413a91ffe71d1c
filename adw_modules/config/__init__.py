"""config.toml: what it may hold, what it means, and the sentence for every way to get it wrong.

Owns the meaning of the file. Must not read a file or the environment (`coordinator/settings.py` does).
Start at `schema.py`, which is the file's shape, and at `parsing.py`, which is the way of a text through the
other modules.
"""

from adw_modules.config.checks import check_environment, check_runnable
from adw_modules.config.diff import RESTART_KEYS, needs_restart, pin_restart_keys, settings_diff
from adw_modules.config.parsing import parse_settings
from adw_modules.config.schema import (
    BUILT_IN_PROVIDER,
    BUILT_IN_TEMPLATE,
    AdmissionSettings,
    ArmSettings,
    CatalogSettings,
    CoordinatorSettings,
    ExperimentSettings,
    GitHubAppSettings,
    GitHubSettings,
    LlmSettings,
    ModelSettings,
    OpenRouterPreferenceSettings,
    OpenRouterSettings,
    PreferenceSettings,
    ProviderSettings,
    RepositorySettings,
    ResolvedRepository,
    RetrySettings,
    RoutingSettings,
    RuleSettings,
    SandboxSettings,
    Section,
    Settings,
    StageSettings,
    StopSettings,
    WebhookSettings,
    WorkerLimits,
    WorkflowSettings,
    WorktreeSettings,
)
from adw_modules.config.toml_lines import TomlLines

__all__ = [
    "BUILT_IN_PROVIDER",
    "BUILT_IN_TEMPLATE",
    "RESTART_KEYS",
    "AdmissionSettings",
    "ArmSettings",
    "CatalogSettings",
    "CoordinatorSettings",
    "ExperimentSettings",
    "GitHubAppSettings",
    "GitHubSettings",
    "LlmSettings",
    "ModelSettings",
    "OpenRouterPreferenceSettings",
    "OpenRouterSettings",
    "PreferenceSettings",
    "ProviderSettings",
    "RepositorySettings",
    "ResolvedRepository",
    "RetrySettings",
    "RoutingSettings",
    "RuleSettings",
    "SandboxSettings",
    "Section",
    "Settings",
    "StageSettings",
    "StopSettings",
    "TomlLines",
    "WebhookSettings",
    "WorkerLimits",
    "WorkflowSettings",
    "WorktreeSettings",
    "check_environment",
    "check_runnable",
    "needs_restart",
    "parse_settings",
    "pin_restart_keys",
    "settings_diff",
]
