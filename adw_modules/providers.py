"""Providers: command templates that can run a model, and whether each can be used here and now.

A template is a list of arguments and stays one: a value put into it never becomes two arguments and
never reaches a shell. Programs come from PATH or from the project, never from a workspace that an
agent writes to, and never from wherever the daemon happens to stand. Secrets never enter a command.
This module looks at files and the environment, both handed in; it must not start anything.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from adw_modules.agents import DIALECTS, Dialect
from adw_modules.errors import ConfigError, CoordinatorError

MAX_COST_REACHED = "error_max_budget_usd"  # in the final record of Claude and of our own agent
PLACEHOLDERS = ("prompt_file", "model", "output_file", "workspace")

# `{name}` or `${name}`. Other braces are text: a template may carry JSON.
_PLACEHOLDER = re.compile(r"(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a provider can be used now. `reason` says why not; `program` is the absolute path to run.

    `may_change`: only looking again shows when that changes; everything else is said by the configuration.
    """

    available: bool
    reason: str | None = None
    program: str | None = None
    may_change: bool = False


def as_mapping(config: Any) -> Mapping[str, Any]:
    """The configuration as plain tables, whether it came as a dict or as our settings object."""
    tables: Mapping[str, Any] = config.model_dump() if hasattr(config, "model_dump") else config
    return tables


class Provider:
    """One `[providers.<name>]` table. A kind that needs more than a template overrides `build_command`.

    Raises ConfigError when the template is empty or has an unknown placeholder.
    """

    def __init__(
        self, name: str, config: Any, *, project_root: Path | None = None, project_hooks: bool = False
    ) -> None:
        table = as_mapping(config)
        self.name = name
        self.enabled: bool = table.get("enabled", True)
        dialect = DIALECTS.get(table.get("agent") or "")
        own: tuple[str, ...] = dialect.template if dialect else ()
        self.command_template: tuple[str, ...] = tuple(table.get("command_template", own))
        self.requires_api_key: bool = table.get("requires_api_key", False)
        self.api_key_env: str | None = table.get("api_key_env")
        self.project_root = project_root
        self._hooks = _hook_options(dialect, self.command_template, allowed=project_hooks)
        self.max_cost, self.max_tokens = _limit_options(dialect, self.command_template)
        problems = _template_problems(name, self.command_template)
        if problems:
            raise ConfigError(problems)

    def build_command(
        self,
        prompt_file: Path | str,
        model: str,
        output_file: Path | str,
        workspace: Path | str | None = None,
        *,
        limits: Sequence[str] = (),
    ) -> list[str]:
        """The arguments of one run: as many as the template has elements, whatever the values hold.

        `limits`: options of this program's own (`max_cost`, `max_tokens`) with their values.

        A program given by a relative path becomes an absolute one under the project root, because the
        worker stands in its workspace. Raises CoordinatorError if the template asks for a workspace
        and none is given.
        """
        values = {"prompt_file": str(prompt_file), "model": model, "output_file": str(output_file)}
        if workspace is not None:
            values["workspace"] = str(workspace)
        at, options = self._hooks
        template = (*self.command_template[:at], *options, *self.command_template[at:])
        command = [self._filled(element, values) for element in template]
        return [self._rooted(command[0]), *limits, *command[1:]]

    def has_added_limit(self, subtype: str) -> bool:
        """Whether a run that ended over its own budget met a limit of ours, by the word of its final record.

        The other one is in the template, and what it means is not ours to say.
        """
        return bool(self.max_cost if subtype == MAX_COST_REACHED else self.max_tokens)

    def _filled(self, element: str, values: Mapping[str, str]) -> str:
        """One pass, so that braces inside a value stay text."""

        def value(found: re.Match[str]) -> str:
            if found[2] not in PLACEHOLDERS:
                return found[0]
            if found[2] not in values:
                raise CoordinatorError(
                    f"provider {self.name}: the template needs {{{found[2]}}}, and none is given"
                )
            return values[found[2]]

        return _PLACEHOLDER.sub(value, element)

    def _rooted(self, program: str) -> str:
        is_bare = os.sep not in program
        return (
            program if is_bare or self.project_root is None else str(self.project_root.absolute() / program)
        )


def _hook_options(
    dialect: Dialect | None, template: Sequence[str], *, allowed: bool
) -> tuple[int, tuple[str, ...]]:
    """Where which options go that decide about a repository's hooks; none for a program we do not know."""
    if dialect is None or not template or Path(template[0]).name not in dialect.programs:
        return 0, ()
    return dialect.project_hooks.at, dialect.project_hooks.options(allowed=allowed)


def _limit_options(dialect: Dialect | None, template: Sequence[str]) -> tuple[str, str]:
    """The options for dollars and tokens that may be added; empty where there is none, or one is written."""
    if dialect is None or not template or Path(template[0]).name not in dialect.programs:
        return "", ""
    written = {element.partition("=")[0] for element in template}
    cost, tokens = (each if each not in written else "" for each in (dialect.max_cost, dialect.max_tokens))
    return cost, tokens


def _template_problems(name: str, template: Sequence[str]) -> list[str]:
    if not template or not template[0].strip():
        return [f"provider {name}: command_template names no program"]
    if _PLACEHOLDER.search(template[0]):
        return [f"provider {name}: the program in command_template has to be fixed, not a placeholder"]
    found = [match for element in template for match in _PLACEHOLDER.finditer(element)]
    return [_placeholder_problem(name, match) for match in found if _is_wrong(match)]


def _is_wrong(found: re.Match[str]) -> bool:
    """A known name in braces is a placeholder, doubled braces around another name are text."""
    is_doubled = (
        found.string[found.start() - 1 : found.start()] == "{" and found.string[found.end() :][:1] == "}"
    )
    return bool(found[1]) or (found[2] not in PLACEHOLDERS and not is_doubled)


def _placeholder_problem(name: str, found: re.Match[str]) -> str:
    if found[1]:
        return (
            f"provider {name}: {found[0]} in command_template would show a secret to every user "
            f"of this machine; name the variable in api_key_env instead"
        )
    meant = difflib.get_close_matches(found[2], PLACEHOLDERS, n=1)
    hint = (
        f"did you mean {{{meant[0]}}}?"
        if meant
        else "known are " + " ".join(f"{{{p}}}" for p in PLACEHOLDERS)
    )
    return f"provider {name}: unknown placeholder {found[0]} in command_template; {hint}"


class ProviderManager:
    """All configured providers. `config` is the whole configuration, as a dict or as our settings object.

    `environ` holds the keys and PATH (default: this process's). `project_root` is where relative
    programs stand; without it they are unavailable. Raises ConfigError with every bad template.
    """

    def __init__(
        self, config: Any, *, environ: Mapping[str, str] | None = None, project_root: Path | None = None
    ) -> None:
        tables = as_mapping(config)
        self._environ = os.environ if environ is None else environ
        self._project_root = project_root
        self._workspaces = _workspaces_root(tables, project_root)
        allowed = bool((tables.get("content") or {}).get("project_hooks", False))
        self._providers = _load(tables.get("providers") or {}, project_root, project_hooks=allowed)
        self._seen: dict[str, Availability] | None = None
        self._seen_last: dict[str, Availability] = {}

    @contextmanager
    def looked_at_once(self) -> Iterator[None]:
        """Within it each provider is looked at once, so that all tasks of one step see the same answer."""
        self._seen = {}
        try:
            yield
        finally:
            self._seen_last, self._seen = self._seen, None

    @property
    def names(self) -> tuple[str, ...]:
        """Every configured provider, in the order of the file."""
        return tuple(self._providers)

    def get_provider(self, name: str) -> Provider:
        """The provider of that name, enabled or not. Raises CoordinatorError for an unknown one."""
        if name not in self._providers:
            raise CoordinatorError(self._unknown(name))
        return self._providers[name]

    def available_providers(self) -> list[str]:
        """The providers that can be used now, in the order of the file."""
        return [name for name in self._providers if self.availability(name).available]

    def availability(self, name: str) -> Availability:
        """Whether `name` can be used now: configured, enabled, key set, program found and executable."""
        if self._seen is None:
            return self._looked_at(name)
        if name not in self._seen:
            self._seen[name] = self._looked_at(name)
        return self._seen[name]

    def program_of(self, name: str) -> str | None:
        """The absolute path of what a planned run starts, as the plan found it: not looked for again."""
        seen = self._seen_last.get(name)
        return (seen or self.availability(name)).program

    def _looked_at(self, name: str) -> Availability:
        provider = self._providers.get(name)
        if provider is None:
            return Availability(available=False, reason=self._unknown(name))
        reason = self._unusable(provider)
        if reason:
            return Availability(available=False, reason=reason)
        program, reason = self._find_program(provider.command_template[0])
        return Availability(
            available=program is not None, reason=reason, program=program, may_change=program is None
        )

    def _unknown(self, name: str) -> str:
        meant = difflib.get_close_matches(name, self._providers, n=1)
        known = (
            f"did you mean {meant[0]}?" if meant else f"configured are {', '.join(self._providers) or 'none'}"
        )
        return f'no provider "{name}" is configured; {known}'

    def _unusable(self, provider: Provider) -> str | None:
        if not provider.enabled:
            return "disabled"
        if not provider.requires_api_key:
            return None
        if not provider.api_key_env:
            return "requires_api_key is set, but api_key_env names no variable"
        return (
            None if self._environ.get(provider.api_key_env, "").strip() else f"{provider.api_key_env} not set"
        )

    def _find_program(self, program: str) -> tuple[str | None, str | None]:
        """The absolute path of `program`, or why there is none."""
        if os.sep in program:
            return self._program_at(program)
        found = shutil.which(program, path=_absolute_entries(self._environ.get("PATH", os.defpath)))
        if found is None:
            return None, f"{program} not found on PATH"
        return self._outside_workspaces(program, Path(found))

    def _program_at(self, program: str) -> tuple[str | None, str | None]:
        is_relative = not Path(program).is_absolute()
        if is_relative and ".." in Path(program).parts:
            return None, f"{program} may leave the project by `..`; write an absolute path"
        if is_relative and self._project_root is None:
            return None, f"{program} is relative, and no project folder is known"
        path = (self._project_root or Path("/")).absolute() / program
        if not path.is_file():
            return None, f"{program} not found"
        if not os.access(path, os.X_OK):
            return None, f"{program} is not executable"
        return self._outside_workspaces(program, path)

    def _outside_workspaces(self, program: str, path: Path) -> tuple[str | None, str | None]:
        if self._workspaces is not None and path.resolve().is_relative_to(self._workspaces):
            return None, f"{program} is inside a workspace, where agents can write"
        return str(path), None


@lru_cache(maxsize=8)  # asked at each start of a run, and PATH is the same for all of them
def _absolute_entries(path: str) -> str:
    """PATH without entries such as `.`: they would mean the workspace of the worker."""
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if Path(entry).is_absolute())


def _load(
    tables: Mapping[str, Any], project_root: Path | None, *, project_hooks: bool
) -> dict[str, Provider]:
    providers, problems = {}, []
    for name, table in tables.items():
        try:
            providers[name] = Provider(name, table, project_root=project_root, project_hooks=project_hooks)
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return providers


def _workspaces_root(tables: Mapping[str, Any], project_root: Path | None) -> Path | None:
    """Where agents write, as `[coordinator] state_dir` and `[worktree] base_dir` place it."""
    from adw_modules.config import CoordinatorSettings, WorktreeSettings  # it imports PLACEHOLDERS from here

    if project_root is None:
        return None
    state_dir: str = (tables.get("coordinator") or {}).get("state_dir", CoordinatorSettings().state_dir)
    base_dir: str = (tables.get("worktree") or {}).get("base_dir", WorktreeSettings().base_dir)
    return (project_root / state_dir / base_dir).resolve()
