"""What a reload changes: which values differ, and which of them wait for a restart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from adw_modules.config.schema import RepositorySettings, Section, Settings
from adw_modules.config.wording import dotted, is_secret, masked, toml

# Keys that a running daemon cannot take over: places and identities that open files, connections,
# worktrees and task names already depend on. Every other key is in force from the next decision.
RESTART_KEYS = frozenset(
    {
        "coordinator.state_dir",
        "coordinator.database_url",
        "coordinator.log_dir",
        "coordinator.launcher",
        "github.repo_owner",
        "github.repo_name",
        "github.api_url",
        "github.remote_url",
        "github.token_env",
        "github.request_timeout_seconds",
        "github.writes_per_minute",
        "github.writes_per_hour",
        "github.git_user_name",
        "github.git_user_email",
        "github.app.app_id",
        "github.app.client_id",
        "github.app.private_key_env",
        "github.app.private_key_file",
        "github.app.installation_id",
        "webhook.enabled",
        "webhook.listen",
        "webhook.allow_remote",
        "webhook.path",
        "webhook.secret_env",
        "repositories.remote_url",
        "worktree.base_dir",
        "sandbox.bwrap",
    }
)

_APART = frozenset(  # keys that have tables of their own
    {
        ("github", "app"),
        ("routing", "rules"),
        ("preferences", "rules"),
        ("experiments", "arms"),
        ("experiments", "stop"),
        ("openrouter", "preferences"),
    }
)

_Entry = TypeVar("_Entry", bound=Section)
_Place = tuple[str, str]  # ("providers.claude-cli", "env.LANG"): a table, and a key in it


def needs_restart(key: str) -> bool:
    """Whether a change of this key (`github.api_url`, `repositories[a/b].remote_url`) waits for a restart."""
    return re.sub(r"\[[^\]]*\]", "", key) in RESTART_KEYS


def settings_diff(old: Settings, new: Settings) -> list[str]:
    """One line for each value that differs, such as `coordinator.max_attempts: 3 -> 5 (live)`.

    Secrets in it are masked. "(restart)" marks what stays as it was until the daemon starts again.
    """
    before, after = _values(old), _values(new)
    tables, new_tables = {table for table, _ in before}, {table for table, _ in after}
    came_or_went = sorted(tables ^ new_tables)
    lines = [f"{table}: {'added' if table in new_tables else 'removed'} (live)" for table in came_or_went]
    for place in dict.fromkeys([*before, *after]):
        was, becomes = before.get(place), after.get(place)
        if place[0] in tables & new_tables and was != becomes:
            effect = "restart" if needs_restart(".".join(place)) else "live"
            lines.append(
                f"{'.'.join(place)}: {_spelled(place, was)} -> {_spelled(place, becomes)} ({effect})"
            )
    return lines + _moved_rules(old, new)


def pin_restart_keys(running: Settings, new: Settings) -> Settings:
    """The settings in force after a reload: `new`, but with the running values of what needs a restart."""
    update: dict[str, Any] = {"repositories": tuple(_pinned_repositories(running, new))}
    for section in ("coordinator", "github", "webhook", "worktree", "sandbox"):
        kept = {
            key: value
            for key, value in getattr(running, section)
            if needs_restart(f"{section}.{key}") or (section, key) == ("github", "app")
        }
        update[section] = getattr(new, section).model_copy(update=kept)
    return new.model_copy(update=update)


def _pinned_repositories(running: Settings, new: Settings) -> Iterator[RepositorySettings]:
    primary = f"{running.github.repo_owner}/{running.github.repo_name}".casefold()
    remotes = {entry.full_name.casefold(): entry.remote_url for entry in running.repositories}
    for entry in new.repositories:
        key = entry.full_name.casefold()
        if key == primary:
            continue  # it moves here from [github] with the restart; until then it must not be there twice
        yield entry.model_copy(update={"remote_url": remotes[key]}) if key in remotes else entry


# --- every value at its place -------------------------------------------------------------------


def _values(settings: Settings) -> dict[_Place, Any]:
    values: dict[_Place, Any] = {}
    for table, section in _tables(settings):
        for key, value in section:
            if (table, key) in _APART or (table.partition("[")[0], key) in _APART:
                continue
            if key == "env":
                values |= {(table, f"env.{name}"): content for name, content in value.items()}
            else:
                values[table, key] = value
    return values


def _tables(settings: Settings) -> Iterator[tuple[str, Section]]:
    for section in (
        "coordinator",
        "worker_limits",
        "sandbox",
        "retries",
        "github",
        "llm",
        "worktree",
        "catalog",
        "webhook",
    ):
        yield section, getattr(settings, section)
    yield "github.app", settings.github.app
    for name, repository in _by_name((entry.full_name, entry) for entry in settings.repositories).items():
        yield f"repositories[{name}]", repository
    for name, provider in settings.providers.items():
        yield dotted(("providers", name)), provider
    yield "routing", settings.routing
    for name, rule in _by_name((rule.name, rule) for rule in settings.routing.rules).items():
        yield f"routing.rules[{name}]", rule
    for name, preference in _by_name(
        (f"{p.author or p.repository}", p) for p in settings.preferences
    ).items():
        yield f"preferences[{name}]", preference
        for rule_name, rule in _by_name((rule.name, rule) for rule in preference.rules).items():
            yield f"preferences[{name}].rules[{rule_name}]", rule
    for experiment in settings.experiments:
        yield f"experiments[{experiment.name}]", experiment
        yield f"experiments[{experiment.name}].stop", experiment.stop
        for arm in experiment.arms:
            yield f"experiments[{experiment.name}].arms[{arm.name}]", arm
    for name, model in _by_name((model.name, model) for model in settings.models).items():
        yield f"models[{name}]", model
    yield "openrouter", settings.openrouter
    preferences = ((", ".join(entry.models), entry) for entry in settings.openrouter.preferences)
    for name, routed in _by_name(preferences).items():
        yield f"openrouter.preferences[{name}]", routed
    for name, workflow in settings.workflows.items():
        yield dotted(("workflows", name)), workflow


def _by_name(entries: Iterable[tuple[str | None, _Entry]]) -> dict[str, _Entry]:
    """Entries of an array of tables by name, so that inserting one does not rename all that follow."""
    named: dict[str, _Entry] = {}
    used: Counter[str] = Counter()
    for index, (given, entry) in enumerate(entries):
        name = (given or f"#{index + 1}").replace("]", "")
        used[name] += 1
        named[name if used[name] == 1 else f"{name}, {used[name]}"] = entry
    return named


def _moved_rules(old: Settings, new: Settings) -> list[str]:
    before, after = ([*_by_name((rule.name, rule) for rule in s.routing.rules)] for s in (old, new))
    moved = [name for name in before if name in after] != [name for name in after if name in before]
    return ["routing.rules: order in the file changed (live)"] if moved else []


def _spelled(place: _Place, value: Any) -> str:
    variable = place[1].removeprefix("env.")
    if variable != place[1] and isinstance(value, str) and is_secret(variable, value):
        return "***"
    return masked(toml(value))
