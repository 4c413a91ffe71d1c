"""The schema of config.toml: every key, its default, and the sentence for every way to get it wrong.

Owns the meaning of the file. Must not read a file or the environment (`coordinator/settings.py` does),
and no default of a key stands anywhere else. The file never holds a secret, only the name of the
environment variable that does.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import zoneinfo
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from adw_modules.errors import ConfigError
from adw_modules.providers import PLACEHOLDERS

Path = tuple[str | int, ...]  # ("routing", "rules", 0, "model"): where a value stands in the document

BUILT_IN_PROVIDER = "claude-cli"
# What `claude-cli` means when something names it and the file has no [providers.claude-cli]. The prompt
# comes on stdin: the real program takes the word after -p for the prompt itself, not for a file.
BUILT_IN_TEMPLATE = [
    "claude",
    "-p",
    "--model",
    "{model}",
    "--output-format",
    "stream-json",
    "--verbose",
    "--dangerously-skip-permissions",
]
YEAR_SECONDS = 31_536_000  # longer waits are slips of the pen, and overflow dates further on


# --- what a single value may be -----------------------------------------------------------------


def _must_be(phrase: str) -> PydanticCustomError:
    """The value is not `phrase`; the sentence goes on with what stands there instead."""
    return PydanticCustomError("must_be", "{text}", {"text": phrase})


def _wrong(text: str) -> PydanticCustomError:
    """The rest of a sentence that begins with the key."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


def _in_table(text: str) -> PydanticCustomError:
    """The rest of a sentence that begins with the name of the table."""
    return PydanticCustomError("in_table", "{text}", {"text": text})


_SECRET = re.compile(r"(gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,}")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|AUTH", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(://[^/@:\s]*:)[^/@\s]+@")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _must_be("a text in quotes")
    if "\0" in value:
        raise _wrong("must not contain a NUL character")
    return value


def _filled_text(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise _wrong("must not be empty")
    if not text.isprintable():
        raise _wrong("must be on one line, without control characters")
    return text


def _folder(value: Any) -> str:
    text = _filled_text(value)
    if text.startswith("~"):
        raise _wrong('must not begin with "~", which only a shell understands; write the whole path')
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _must_be("true or false")
    return value


def _span(least: float | None, above: float | None) -> str:
    if above is not None:
        return f" greater than {above:g}"
    return f" of {least:g} or more" if least is not None else ""


def _as_number(value: Any, phrase: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _must_be(phrase)
    number = Decimal(value)
    if not number.is_finite():
        raise _must_be(phrase)
    return number


def _number(*, least: float | None = None, above: float | None = None, most: float = YEAR_SECONDS) -> Any:
    """A validator for a finite number within the given limits."""
    phrase = f"a number{_span(least, above)}"

    def check(value: Any) -> float:
        number = _as_number(value, phrase)
        if (least is not None and number < least) or (above is not None and number <= above):
            raise _must_be(phrase)
        if number > most:
            raise _must_be(f"at most {most:g}")
        return float(number)

    return BeforeValidator(check)


def _whole(*, least: int | None = None, most: int = 1_000_000_000) -> Any:
    """A validator for a whole number within the given limits."""
    phrase = f"a whole number{_span(least, None)}"
    lowest = -most if least is None else least

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _must_be(phrase)
        if value < lowest:
            raise _must_be(phrase)
        if value > most:
            raise _must_be(f"at most {most}")
        return value

    return BeforeValidator(check)


def _price(value: Any) -> Decimal:
    number = _as_number(value, "a number of 0 or more")
    if number < 0:
        raise _must_be("a number of 0 or more")
    if number > 1_000_000:
        raise _must_be("at most 1000000")
    return number


def _choice(*words: str) -> Any:
    """A validator for one word of a few."""

    def check(value: Any) -> str:
        if value not in words:
            raise _must_be(" or ".join(f'"{word}"' for word in words))
        return str(value)

    return BeforeValidator(check)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _variable(value: Any) -> str:
    if _SECRET.search(_text(value)):
        raise _wrong("must be the NAME of an environment variable; this looks like the secret itself")
    if not _VARIABLE.fullmatch(value):
        raise _must_be('the name of an environment variable, such as "GITHUB_TOKEN"')
    return str(value)


def _owner(value: Any) -> str | None:
    if value is None or value == "":
        return None  # the shipped file has the key with an empty value, to be filled in
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", _text(value)):
        raise _must_be("the login of a user or organisation on GitHub")
    return str(value)


def _repository_name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = _text(value)
    if "/" in text:
        raise _must_be("the name of the repository alone, without owner and slash")
    if text.lower().endswith(".git"):
        raise _must_be("the name of the repository without .git")
    if ".." in text or text == "." or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise _must_be("the name of a repository on GitHub")
    return text


def _label(value: Any) -> str:
    text = _filled_text(value)
    if "/" in text or "," in text:
        raise _wrong(f"must not contain a slash or a comma, but is {_shown(text)}")
    if text != text.strip() or len(text) > 50 or not text.isprintable():
        raise _must_be("a label: at most 50 printable characters without spaces around them")
    return text


def _api_url(value: Any) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise _must_be('an http or https address, such as "https://api.github.com"')
    if parts.username or parts.password:
        raise _wrong(
            "must not contain a user or password; the token comes from the variable in github.token_env"
        )
    return text.rstrip("/")


def _remote_url(value: Any) -> str:
    text = _filled_text(value)
    # git reads a leading dash as an option, and "word::" as a helper program to run.
    if text.startswith("-") or "::" in text or not text.isprintable():
        raise _must_be("the address of a git repository")
    if _PASSWORD_IN_URL.search(text):
        raise _wrong("must not contain a password; the token comes from the variable in github.token_env")
    unknown = [name for name in re.findall(r"\{([^{}]*)\}", text) if name not in {"owner", "name"}]
    if unknown:
        raise _wrong(f'has an unknown placeholder "{{{unknown[0]}}}"; known are {{owner}} and {{name}}')
    return text


def _timezone(value: Any) -> str:
    text = _text(value)
    if text == "UTC":
        return text  # must work on a machine without time zone data
    try:
        zoneinfo.ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        hint = _nearest(text, sorted(zoneinfo.available_timezones()))
        known = f'; did you mean "{hint}"?' if hint else ', such as "UTC" or "Europe/Berlin"'
        raise _wrong(f"{_shown(text)} is not a time zone of the IANA list{known}") from None
    return text


def _table_of_variables(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _must_be('a table of texts, such as env = { LANG = "C.UTF-8" }')
    for name, content in value.items():
        if not _VARIABLE.fullmatch(name):
            raise _wrong(f"has {_shown(name)}, which is not the name of an environment variable")
        if (
            not isinstance(content, str) or "\0" in content
        ):  # the value itself is never shown: it may be a secret
            raise _wrong(f"{name} must be a text in quotes")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_filled_text)]
Folder = Annotated[str, BeforeValidator(_folder)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Variable = Annotated[str, BeforeValidator(_variable)]
Label = Annotated[str, BeforeValidator(_label)]
Owner = Annotated[str | None, BeforeValidator(_owner)]
RepositoryName = Annotated[str | None, BeforeValidator(_repository_name)]
RemoteUrl = Annotated[str, BeforeValidator(_remote_url)]
Above0 = Annotated[float, _number(above=0)]
AtLeast0 = Annotated[float, _number(least=0)]
Price = Annotated[Decimal, BeforeValidator(_price)]


# --- command templates and conditions ----------------------------------------------------------


# As in providers.py, which fills the template: braces around anything but a name are text, such as JSON.
_BRACES = re.compile(r"\$\{(?P<env>[^{}]*)\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


def _template_item_problem(item: str) -> str | None:
    """What is wrong with one word of a command template, as the rest of a sentence."""
    if _SECRET.search(item):
        return "contains what looks like a secret; name its variable in api_key_env or pass_env instead"
    for match in _BRACES.finditer(item):
        if match["env"] is not None:
            return (
                f'contains "${{{match["env"]}}}", but every user of the machine can read a command line; '
                "name the variable in api_key_env or pass_env, and the worker gets it in its environment"
            )
        name = match["name"]
        if name not in PLACEHOLDERS:
            known = [f"{{{word}}}" for word in PLACEHOLDERS]
            return f'has an unknown placeholder "{{{name}}}"{_suggestion(f"{{{name}}}", known)}'
    return None


def _command_template(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _must_be('a list of texts, such as ["claude", "-p", "--model", "{model}"]')
    if not value or not value[0].strip():
        raise _wrong("must begin with the program to run")
    if _BRACES.search(value[0]):
        raise _wrong("must begin with a program, not with a placeholder")
    for item in value:
        problem = "contains a NUL character" if "\0" in item else _template_item_problem(item)
        if problem:
            raise _wrong(problem)
    return value


CommandTemplate = Annotated[tuple[str, ...], BeforeValidator(_command_template)]


def _conditions(value: Any) -> dict[str, Any]:
    """Which keys there are is checked here; what they may hold is for routing to say."""
    from adw_modules.routing.attributes import ATTRIBUTES
    from adw_modules.routing.conditions import ConditionError, compile_conditions

    if not isinstance(value, dict):
        raise _must_be('a table, such as { priority = "critical" }')
    known = [*(name for name in ATTRIBUTES if name != "task"), "hour_range"]
    for key in value:
        if key not in known:
            raise _wrong(f"has no key {_shown(key)}{_suggestion(key, known)}")
    plain = _plain(value)
    try:
        compile_conditions(plain)
    except ConditionError as error:
        raise _wrong(f"cannot be used: {error.message.rstrip('.')}") from error
    return dict(plain)


def _plain(value: Any) -> Any:
    """Conditions hold ordinary numbers: a Decimal there would surprise whoever prints them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return float(value) if isinstance(value, Decimal) else value


def _condition(value: Any) -> str:
    from adw_modules.routing.conditions import ConditionError, compile_condition

    text = _filled_text(value)
    try:
        compile_condition(text)
    except ConditionError as error:
        at = error.position or 0
        here = f"{text[:at]}⟨here⟩{text[at:]}"
        raise _wrong(f"is wrong at character {at + 1} ({here}): {error.message.rstrip('.')}") from error
    return text


# --- the sections ------------------------------------------------------------------------------


class Section(BaseModel):
    """A table of the file: frozen, and strict about the keys it has."""

    # Defaults are validated too: 30 and 30.0 must not look like two values when settings are compared.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CoordinatorSettings(Section):
    """`[coordinator]`: how much runs, how often, how long, and where the daemon keeps its things."""

    max_concurrent_workers: Annotated[int, _whole(least=1, most=1000)] = 3
    poll_interval_seconds: Above0 = 30
    worker_timeout_hours: Annotated[float, _number(above=0, most=8760)] = 2
    stall_timeout_minutes: Annotated[float, _number(above=0, most=525_600)] = 15
    stop_grace_seconds: AtLeast0 = 5
    state_dir: Folder = ".coordinator"
    database_url: Name | None = None
    timezone: Annotated[str, BeforeValidator(_timezone)] = "UTC"
    max_attempts: Annotated[int, _whole(least=1)] = 3
    max_runs_per_issue: Annotated[int, _whole(least=1)] = 15
    log_dir: Folder | None = None
    prompts_dir: Folder = "prompts"


class RetrySettings(Section):
    """`[retries]`: how long a failed task waits before its next attempt."""

    base_delay_seconds: AtLeast0 = 60
    factor: Annotated[float, _number(least=1, most=1000)] = 2
    max_delay_seconds: AtLeast0 = 3600
    fast_exit_seconds: AtLeast0 = 10
    fast_exit_base_delay_seconds: AtLeast0 = 300
    rate_limit_delay_seconds: AtLeast0 = 300
    auth_delay_seconds: AtLeast0 = 3600

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_delay_seconds < self.base_delay_seconds:
            raise _in_table(
                f"max_delay_seconds ({_toml(self.max_delay_seconds)}) must not be smaller than "
                f"base_delay_seconds ({_toml(self.base_delay_seconds)})"
            )
        return self


class GitHubSettings(Section):
    """`[github]`: the main repository, and how GitHub is reached."""

    repo_owner: Owner = None
    repo_name: RepositoryName = None
    issue_label: Label = "rpi-auto"
    api_url: Annotated[str, BeforeValidator(_api_url)] = "https://api.github.com"
    remote_url: RemoteUrl = "https://github.com/{owner}/{name}.git"
    token_env: Variable = "GITHUB_TOKEN"  # noqa: S105  the name of a variable, not a token
    status_label_prefix: Label = "coordinator:"
    writes_per_minute: Annotated[int, _whole(least=0)] = 60
    request_timeout_seconds: Above0 = 15
    git_user_name: Name = "Coordinator"
    git_user_email: Name = "coordinator@localhost"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = {"repo_owner": self.repo_owner, "repo_name": self.repo_name}
        missing = [key for key, value in given.items() if value is None]
        if len(missing) == 1:
            raise _in_table(f"needs {missing[0]} too: repo_owner and repo_name belong together")
        return self


class RepositorySettings(Section):
    """One `[[repositories]]`: a further repository to watch."""

    owner: Owner
    name: RepositoryName
    issue_label: Label | None = None
    remote_url: RemoteUrl | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.owner is None or self.name is None:
            raise _in_table("needs an owner and a name, neither of them empty")
        return self


class ProviderSettings(Section):
    """One `[providers.NAME]`: a program that can run a model."""

    enabled: Flag = True
    command_template: CommandTemplate
    requires_api_key: Flag = False
    api_key_env: Variable | None = None
    agent: Annotated[Literal["claude", "generic"], _choice("claude", "generic")] = "claude"
    max_concurrent_runs: Annotated[int, _whole(least=1)] | None = None
    env: Annotated[dict[str, str], BeforeValidator(_table_of_variables)] = Field(default_factory=dict)
    pass_env: tuple[Variable, ...] = ()
    stop_signal: Annotated[Literal["SIGINT", "SIGTERM"], _choice("SIGINT", "SIGTERM")] = "SIGINT"

    @model_validator(mode="after")
    def _key_has_a_name(self) -> Self:
        if self.requires_api_key and self.api_key_env is None:
            raise _in_table(
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


class RuleSettings(Section):
    """One `[[routing.rules]]`: when it matches (always, without a condition), and what it then picks."""

    name: Name | None = None
    priority: Annotated[int, _whole()] = 50
    conditions: Annotated[dict[str, Any], BeforeValidator(_conditions)] | None = None
    condition: Annotated[str, BeforeValidator(_condition)] | None = None
    provider: Name | None = None
    model: Name | None = None
    reason: Text | None = None

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        if self.conditions is not None and self.condition is not None:
            raise _in_table('has both "condition" and "conditions"; keep one of them')
        return self


class RoutingSettings(Section):
    """`[routing]`: the rules that pick provider and model for a task."""

    enabled: Flag = False
    default_provider: Name | None = None
    default_model: Name | None = None
    rules: tuple[RuleSettings, ...] = ()


class ModelSettings(Section):
    """One `[[models]]`: who serves a model, what a million tokens cost in US dollars, what it can do."""

    name: Name
    provider: Name
    cost_per_million_input: Price | None = None
    cost_per_million_output: Price | None = None
    cost_per_million_cache_read: Price | None = None
    cost_per_million_cache_write: Price | None = None
    context_window: Annotated[int, _whole(least=1)] | None = None
    capabilities: tuple[Text, ...] = ()


class StageSettings(Section):
    """One stage of a workflow."""

    name: Name
    provider: Name | None = None
    model: Name | None = None


class WorkflowSettings(Section):
    """One `[workflows.NAME]`: stages with a model each."""

    stages: tuple[StageSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRepository:
    """A repository to watch, with everything that `[github]` lends it filled in."""

    owner: str
    name: str
    label: str
    remote_url: str
    is_primary: bool  # the one of `[github]`: its tasks are called gh-12, without the repository's name

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


class Settings(Section):
    """The whole file, checked. Nothing in it changes; a reload makes another one."""

    coordinator: CoordinatorSettings = CoordinatorSettings()
    retries: RetrySettings = RetrySettings()
    github: GitHubSettings = GitHubSettings()
    repositories: tuple[RepositorySettings, ...] = ()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    llm: LlmSettings = LlmSettings()
    worktree: WorktreeSettings = WorktreeSettings()
    routing: RoutingSettings = RoutingSettings()
    models: tuple[ModelSettings, ...] = ()
    workflows: dict[str, WorkflowSettings] = Field(default_factory=dict)

    def all_repositories(self) -> tuple[ResolvedRepository, ...]:
        """Every repository to watch, the one of `[github]` first."""
        github = self.github
        primary = [(github.repo_owner, github.repo_name, None, None, True)]
        others = [(r.owner, r.name, r.issue_label, r.remote_url, False) for r in self.repositories]
        return tuple(
            self._resolve(owner, name, label=label, remote_url=remote_url, is_primary=is_primary)
            for owner, name, label, remote_url, is_primary in [*primary, *others]
            if owner and name
        )

    def _resolve(
        self,
        owner: str,
        name: str,
        *,
        label: str | None,
        remote_url: str | None,
        is_primary: bool,
    ) -> ResolvedRepository:
        template = remote_url or self.github.remote_url
        return ResolvedRepository(
            owner=owner,
            name=name,
            label=label or self.github.issue_label,
            remote_url=template.replace("{owner}", owner).replace("{name}", name),
            is_primary=is_primary,
        )

    def warnings(self) -> list[str]:
        """What works but is probably not meant: one sentence each, for the log and for `doctor`."""
        return [*_provider_warnings(self), *_general_warnings(self)]


def _provider_warnings(settings: Settings) -> Iterator[str]:
    for name, provider in settings.providers.items():
        key = _dotted(("providers", name))
        template = provider.command_template
        program = template[0].rsplit("/", 1)[-1]
        pairs = pairwise(template)
        if program == "claude" and any(
            flag in {"-p", "--print"} and "{prompt_file}" in word for flag, word in pairs
        ):
            yield (
                f"{key}.command_template: claude takes the word after -p for the prompt itself, "
                'here the path in "{prompt_file}"; remove that word, because the prompt comes on stdin.'
            )
        for variable, value in provider.env.items():
            if _is_secret(variable, value):
                yield (
                    f"{key}.env.{variable} looks like a secret in the file; export it for the daemon and "
                    "name it in pass_env instead."
                )
        if not provider.enabled and name in _defaults(settings):
            yield f"{key} is disabled, but it is the default provider."


def _general_warnings(settings: Settings) -> Iterator[str]:
    if settings.workflows:
        yield "[workflows]: stages are accepted and shown, but this version runs a task in a single stage."
    if settings.coordinator.database_url and _PASSWORD_IN_URL.search(settings.coordinator.database_url):
        yield ("coordinator.database_url contains a password; move it to PGPASSWORD or to a password file.")
    address = urlsplit(settings.github.api_url)
    if address.scheme == "http" and address.hostname not in {"127.0.0.1", "::1", "localhost"}:
        yield "github.api_url is not encrypted: the token would cross the network in the clear."


def _defaults(settings: Settings) -> tuple[str, ...]:
    return (settings.routing.default_provider or settings.llm.provider,)


# --- checks that need more than the file -------------------------------------------------------


def check_runnable(settings: Settings, *, source: str = "config.toml") -> list[str]:
    """What the daemon needs beyond a valid file: one sentence for each thing that is missing."""
    if settings.all_repositories():
        return []
    mend = "set repo_owner and repo_name in [github], or add a [[repositories]] table"
    return [f"{source}: no repository is configured; {mend}."]


def check_environment(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """What the daemon needs from the environment: one sentence for each thing that is missing.

    A provider's missing key is not among them: that provider is unavailable, and the others work.
    """
    name = settings.github.token_env
    token = environ.get(name, "")
    if not token.strip():
        problem = "is empty" if name in environ else "is not set"
        mend = "export it or put it into the service's environment file"
    elif token != token.strip() or not token.isprintable():
        problem, mend = "has spaces or line breaks around the token", "set it to the token alone"
    else:
        return []
    return [f"{name} {problem}: [github] token_env names it; {mend}."]


# --- from text to settings ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Problem:
    path: Path
    text: str  # the sentence without file and line


def parse_settings(text: str, *, source: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the text of a config.toml; `source` is the file's name in the sentences.

    With `environ` the environment must be complete too. Raises ConfigError with all problems at once.
    """
    text = text.removeprefix("\ufeff")  # some editors put a byte order mark there
    data = _read_toml(text, source)
    settings, problems = _validate(data)
    problems += _cross_checks(data)
    if problems or settings is None:
        raise ConfigError(_sentences(problems, source, TomlLines(text)))
    missing = check_environment(settings, environ) if environ is not None else []
    if missing:
        raise ConfigError(missing)
    return settings


def _read_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=_exact)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_sentence(str(error), source)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise ConfigError(
            f"{source}: this is not a usable TOML file (a number or a nesting is too long)."
        ) from error


def _exact(text: str) -> Decimal:
    """Prices stay what the file says: 0.14 never becomes 0.1400000000000000013."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return Decimal("NaN")  # an exponent out of all bounds: refused like every other NaN


def _syntax_sentence(message: str, source: str) -> str:
    found = re.fullmatch(
        r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", message
    )
    if not found:
        return f"{source}: this is not valid TOML: {message}."
    where = f"line {found['line']}, column {found['column']}" if found["line"] else "at the end"
    what = found["what"]
    return f"{source}, {where}: this is not valid TOML: {what[:1].lower()}{what[1:]}."


def _validate(data: dict[str, Any]) -> tuple[Settings | None, list[_Problem]]:
    try:
        return Settings.model_validate(_with_built_in(data)), []
    except ValidationError as error:
        return None, [_explain(detail, data) for detail in error.errors(include_url=False)]


def _with_built_in(data: dict[str, Any]) -> dict[str, Any]:
    """Add the built-in provider where the file names it (or names none) without describing it."""
    providers = data.get("providers", {})
    if not isinstance(providers, dict) or BUILT_IN_PROVIDER in providers:
        return data
    if BUILT_IN_PROVIDER not in [name for _, name in _named_providers(data)]:
        return data
    return {**data, "providers": {BUILT_IN_PROVIDER: {"command_template": BUILT_IN_TEMPLATE}, **providers}}


# --- checks across sections: on the raw document, so that one bad key hides no other problem ----


def _at(data: Any, *path: str) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _tables(data: Any, *path: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The tables of an array of tables, with their paths; nothing when the shape is wrong."""
    found = _at(data, *path)
    for index, table in enumerate(found if isinstance(found, list) else []):
        if isinstance(table, dict):
            yield (*path, index), table


def _named_providers(data: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Each place that picks a provider, and the name it gives. A `[[models]]` entry only describes one."""
    yield ("llm", "provider"), _at(data, "llm", "provider") or LlmSettings().provider
    yield ("routing", "default_provider"), _at(data, "routing", "default_provider")
    for path, rule in _tables(data, "routing", "rules"):
        yield (*path, "provider"), rule.get("provider")
    workflows = _at(data, "workflows")
    for name in workflows if isinstance(workflows, dict) else ():
        for path, stage in _tables(data, "workflows", name, "stages"):
            yield (*path, "provider"), stage.get("provider")


def _cross_checks(data: dict[str, Any]) -> list[_Problem]:
    return [
        *_unusable_names(data),
        *_unknown_providers(data),
        *_repeated_models(data),
        *_repeated_repositories(data),
        *_token_for_workers(data),
        *_own_labels(data),
    ]


def _unusable_names(data: dict[str, Any]) -> Iterator[_Problem]:
    """Providers and workflows are named in logs, tables and command lines."""
    for section in ("providers", "workflows"):
        tables = _at(data, section)
        for name in tables if isinstance(tables, dict) else ():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                rule = "a name has letters, digits, dots, dashes and underscores, at most 64 of them"
                yield _Problem((section, name), f"[{section}] cannot have the name {_shown(name)}: {rule}.")


def _unknown_providers(data: dict[str, Any]) -> Iterator[_Problem]:
    providers = _at(data, "providers") or {}
    if not isinstance(providers, dict):
        return
    known = dict.fromkeys([*providers, BUILT_IN_PROVIDER])
    for path, name in _named_providers(data):
        if isinstance(name, str) and name.strip() and name not in known:
            hint = _suggestion(name, known, what="configured are")
            text = f"{_label_of(path, data)} names {_shown(name)}, which no [providers] table has{hint}"
            yield _Problem(path, _ended(text))


def _repeated_models(data: dict[str, Any]) -> Iterator[_Problem]:
    seen: dict[str, int] = {}
    for ordinal, (path, model) in enumerate(_tables(data, "models"), start=1):
        name = model.get("name")
        if isinstance(name, str) and seen.setdefault(name, ordinal) != ordinal:
            yield _Problem(
                (*path, "name"),
                f"[[models]] {_shown(name)} is there twice (number {seen[name]} and {ordinal}).",
            )


def _repeated_repositories(data: dict[str, Any]) -> Iterator[_Problem]:
    seen = set()
    github = (_at(data, "github", "repo_owner"), _at(data, "github", "repo_name"))
    places: list[tuple[Path, tuple[Any, Any]]] = [(("github", "repo_name"), github)]
    places += [
        ((*path, "name"), (t.get("owner"), t.get("name"))) for path, t in _tables(data, "repositories")
    ]
    for path, (owner, name) in places:
        if not (isinstance(owner, str) and isinstance(name, str) and owner and name):
            continue
        full_name = f"{owner}/{name}"
        if full_name.casefold() in seen:
            yield _Problem(path, f"the repository {full_name} is configured twice; keep one of the two.")
        seen.add(full_name.casefold())


def _token_for_workers(data: dict[str, Any]) -> Iterator[_Problem]:
    token = _at(data, "github", "token_env") or GitHubSettings().token_env
    providers = _at(data, "providers")
    if not isinstance(providers, dict) or not isinstance(token, str):
        return
    for name, provider in providers.items():
        path: Path = ("providers", name)
        given = {key: _at(provider, key) for key in ("pass_env", "env", "api_key_env")}
        for key, value in given.items():
            if value == token or (isinstance(value, (list, dict)) and token in value):
                yield _Problem(
                    (*path, key),
                    f"{_dotted((*path, key))} must not name {_shown(token)}: workers get no GitHub token.",
                )


def _own_labels(data: dict[str, Any]) -> Iterator[_Problem]:
    defaults = GitHubSettings()
    prefix = _at(data, "github", "status_label_prefix") or defaults.status_label_prefix
    places: list[tuple[Path, Any]] = [
        (("github", "issue_label"), _at(data, "github", "issue_label") or defaults.issue_label)
    ]
    places += [
        ((*path, "issue_label"), table.get("issue_label")) for path, table in _tables(data, "repositories")
    ]
    for path, label in places:
        if (
            isinstance(label, str)
            and isinstance(prefix, str)
            and label.casefold().startswith(prefix.casefold())
        ):
            yield _Problem(
                path,
                f"{_label_of(path, data)} must not begin with {_shown(prefix)}: labels with "
                "github.status_label_prefix are the ones the daemon sets itself.",
            )


# --- the sentences -----------------------------------------------------------------------------


def _sentences(problems: list[_Problem], source: str, lines: TomlLines) -> list[str]:
    placed = [(lines.line(problem.path), problem.text) for problem in problems]
    placed.sort(key=lambda pair: pair[0] or 0)
    return list(dict.fromkeys(f"{source}{f', line {line}' if line else ''}: {text}" for line, text in placed))


def _explain(detail: ErrorDetails, data: dict[str, Any]) -> _Problem:
    """Turn one of pydantic's findings into a sentence about the file."""
    path: Path = tuple(detail["loc"])
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _Problem(path, _unknown_key(path, data))
    if kind == "missing":
        return _Problem(path[:-1], f'{_table_name(path[:-1], data)} has no "{path[-1]}", which it needs.')
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return _Problem(path, _not_a_table(path, value, data))
    if kind == "tuple_type":
        return _Problem(path, _not_a_list(path, value, data))
    text = detail["msg"]
    if kind == "in_table":
        return _Problem(path, _ended(f"{_table_name(path, data)} {text}"))
    if kind == "must_be":
        return _Problem(path, f"{_label_of(path, data)} must be {text}, not {_shown(value)}.")
    return _Problem(path, _ended(f"{_label_of(path, data)} {text}"))


def _unknown_key(path: Path, data: dict[str, Any]) -> str:
    key, parent = str(path[-1]), path[:-1]
    known = _keys_of(parent)
    if not parent:
        return _unknown_section(key, data.get(key), known)
    hint = _nearest(key, known)
    home = [section for section in _SECTIONS_WITH_KEYS if key in _SECTIONS_WITH_KEYS[section]]
    text = f"{_table_name(parent, data)} has no key {_shown(key)}"
    if hint:
        return f'{text}; did you mean "{hint}"?'
    if home:
        return f"{text}; it belongs into [{home[0]}]."
    return f"{text}; its keys are {', '.join(known)}."


def _unknown_section(key: str, value: Any, known: list[str]) -> str:
    hint = _nearest(key, known)
    if isinstance(value, (dict, list)) and hint:
        return f"there is no section [{_quoted(key)}]; did you mean [{hint}]?"
    if isinstance(value, (dict, list)):
        return f"there is no section [{_quoted(key)}]; the sections are {', '.join(known)}."
    home = [section for section in _SECTIONS_WITH_KEYS if key in _SECTIONS_WITH_KEYS[section]]
    if home:
        return f"the key {_shown(key)} stands outside every section; it belongs into [{home[0]}]."
    return f"there is no key {_shown(key)} outside the sections; the sections are {', '.join(known)}."


def _not_a_table(path: Path, value: Any, data: dict[str, Any]) -> str:
    name = ".".join(_quoted(part) for part in path if isinstance(part, str))
    if isinstance(value, list):
        return f"{name} must be a table with one pair of brackets: write [{name}], not [[{name}]]."
    return f"{_label_of(path, data)} must be a table ([{name}]), not {_shown(value)}."


def _not_a_list(path: Path, value: Any, data: dict[str, Any]) -> str:
    name = ".".join(_quoted(part) for part in path if isinstance(part, str))
    if name in {"repositories", "models", "routing.rules"}:
        return f"{name} must be written with two pairs of brackets: [[{name}]]."
    return f"{_label_of(path, data)} must be a list in brackets, not {_shown(value)}."


def _keys_of(path: Path) -> list[str]:
    """The valid keys of the table at `path`."""
    heads: dict[Path, type[Section]] = {
        ("repositories",): RepositorySettings,
        ("providers",): ProviderSettings,
        ("models",): ModelSettings,
        ("routing", "rules"): RuleSettings,
    }
    for head, section in heads.items():
        if path[: len(head)] == head:
            return list(section.model_fields)
    if path[:1] == ("workflows",):
        return list((WorkflowSettings if len(path) == 2 else StageSettings).model_fields)
    return _SECTIONS_WITH_KEYS[str(path[0])] if path else list(Settings.model_fields)


_SECTIONS_WITH_KEYS: dict[str, list[str]] = {
    "coordinator": list(CoordinatorSettings.model_fields),
    "retries": list(RetrySettings.model_fields),
    "github": list(GitHubSettings.model_fields),
    "llm": list(LlmSettings.model_fields),
    "worktree": list(WorktreeSettings.model_fields),
    "routing": list(RoutingSettings.model_fields),
}


def _nearest(name: str, known: Any) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def _suggestion(name: str, known: Any, *, what: str = "known are") -> str:
    """How an unknown name's sentence goes on: the nearest valid name, or all of them."""
    hint = _nearest(name, known)
    if hint:
        return f"; did you mean {_shown(hint)}?"
    return f"; {what} {', '.join(map(_shown, known))}"


def _ended(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _in_quotes(text: str) -> str:
    """As the file would spell it, and on one line whatever the text holds."""
    spelled = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in spelled)


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _in_quotes(part)


def _dotted(path: Path) -> str:
    return ".".join(_quoted(part) if isinstance(part, str) else f"#{part + 1}" for part in path)


def _label_of(path: Path, data: Any) -> str:
    """A key for people: `coordinator.timezone`, `routing.rules[docs-haiku].model`, `models[#2].provider`."""
    label = ""
    for part in path:
        data = _child(data, part)
        if isinstance(part, int):
            label += f"[{_entry_name(data, part)}]"
        else:
            label += f".{_quoted(part)}" if label else _quoted(part)
    return label


def _child(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _entry_name(entry: Any, index: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name[:60] if isinstance(name, str) and name.strip() and name.isprintable() else f"#{index + 1}"


def _table_name(path: Path, data: Any) -> str:
    """A table for people: `[routing]`, `[[routing.rules]] "docs-haiku"`, `[[models]] number 2`."""
    name = ".".join(_quoted(part) for part in path if isinstance(part, str))
    if not path or not isinstance(path[-1], int):
        return f"[{name}]"
    entry = data
    for part in path:
        entry = _child(entry, part)
    called = _entry_name(entry, path[-1])
    return f"[[{name}]] number {path[-1] + 1}" if called.startswith("#") else f'[[{name}]] "{called}"'


def _shown(value: Any) -> str:
    """A value as it may be repeated in a sentence: short, on one line, and never a secret."""
    if isinstance(value, str):
        if _SECRET.search(value) or _PASSWORD_IN_URL.search(value):
            return "a text that looks like a secret (not shown)"
        return _in_quotes(value if len(value) <= 60 else f"{value[:57]}…")
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return _short_number(value)


def _short_number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return str(value)[:40]


def _shown_list(value: Any) -> str:
    return f"[{', '.join(_shown(item) for item in value[:5])}]" if isinstance(value, list) else _shown(value)


# --- what a reload changes ---------------------------------------------------------------------

# Keys that a running daemon cannot take over: places and identities that open files, connections,
# worktrees and task names already depend on. Every other key is in force from the next decision.
RESTART_KEYS = frozenset(
    {
        "coordinator.state_dir",
        "coordinator.database_url",
        "coordinator.log_dir",
        "github.repo_owner",
        "github.repo_name",
        "github.api_url",
        "github.remote_url",
        "github.token_env",
        "github.request_timeout_seconds",
        "github.writes_per_minute",
        "github.git_user_name",
        "github.git_user_email",
        "repositories.remote_url",
        "worktree.base_dir",
    }
)


def needs_restart(key: str) -> bool:
    """Whether a change of this key (`github.api_url`, `repositories[a/b].remote_url`) waits for a restart."""
    return re.sub(r"\[[^\]]*\]", "", key) in RESTART_KEYS


def settings_diff(old: Settings, new: Settings) -> list[str]:
    """One line for each value that differs, such as `coordinator.max_attempts: 3 -> 5 (live)`.

    Secrets in it are masked. "(restart)" marks what stays as it was until the daemon starts again.
    """
    before, after = _flat(old), _flat(new)
    keys = list(dict.fromkeys([*before, *after]))
    groups = _groups(before) ^ _groups(after)
    lines = [_change(group, group in _groups(before), group in _groups(after)) for group in sorted(groups)]
    for key in keys:
        if _group(key) not in groups and before.get(key) != after.get(key):
            effect = "restart" if needs_restart(key) else "live"
            lines.append(
                f"{key}: {_masked(key, before.get(key))} -> {_masked(key, after.get(key))} ({effect})"
            )
    return lines + _moved_rules(old, new)


def pin_restart_keys(running: Settings, new: Settings) -> Settings:
    """The settings in force after a reload: `new`, but with the running values of what needs a restart."""
    update: dict[str, Any] = {}
    for section in ("coordinator", "github", "worktree"):
        kept = {
            key: getattr(getattr(running, section), key)
            for key in _SECTIONS_WITH_KEYS[section]
            if needs_restart(f"{section}.{key}")
        }
        update[section] = getattr(new, section).model_copy(update=kept)
    update["repositories"] = tuple(_pinned_repositories(running, new))
    return new.model_copy(update=update)


def _pinned_repositories(running: Settings, new: Settings) -> Iterator[RepositorySettings]:
    primary = f"{running.github.repo_owner}/{running.github.repo_name}".casefold()
    remotes = {_repository_key(entry).casefold(): entry.remote_url for entry in running.repositories}
    for entry in new.repositories:
        key = _repository_key(entry).casefold()
        if key == primary:
            continue  # it moves here from [github] with the restart; until then it must not be there twice
        yield entry.model_copy(update={"remote_url": remotes[key]}) if key in remotes else entry


def _change(group: str, was: bool, becomes: bool) -> str:
    word = "added" if becomes and not was else "removed"
    return f"{group}: {word} (live)"


def _moved_rules(old: Settings, new: Settings) -> list[str]:
    before, after = list(_keyed(old.routing.rules, "name")), list(_keyed(new.routing.rules, "name"))
    moved = [key for key in before if key in after] != [key for key in after if key in before]
    return ["routing.rules: order in the file changed (live)"] if moved else []


def _group(key: str) -> str | None:
    """The table that comes and goes as a whole: `providers.claude-cli`, `routing.rules[docs-haiku]`."""
    found = re.match(r'[a-z.]+\[[^\]]*\]|(?:providers|workflows)\.(?:"[^"]*"|[^".]+)', key)
    return found[0] if found else None


def _groups(flat: dict[str, Any]) -> set[str]:
    return {group for key in flat if (group := _group(key))}


def _repository_key(entry: RepositorySettings) -> str:
    return f"{entry.owner}/{entry.name}"


def _keyed(entries: tuple[Section, ...], attribute: str | None) -> dict[str, Section]:
    """Entries of an array of tables by name, so that inserting one does not rename all that follow."""
    keyed: dict[str, Section] = {}
    used: Counter[str] = Counter()
    for index, entry in enumerate(entries):
        name = getattr(entry, attribute) if attribute else _repository_key(entry)  # type: ignore[arg-type]  # the only other array
        name = (name or f"#{index + 1}").replace("]", "")
        used[name] += 1
        keyed[name if used[name] == 1 else f"{name}, {used[name]}"] = entry
    return keyed


def _flat(settings: Settings) -> dict[str, Any]:
    """Every value by its dotted key."""
    flat: dict[str, Any] = {}
    for section in ("coordinator", "retries", "github", "llm", "worktree"):
        _fill(flat, section, getattr(settings, section))
    for name, entry in _keyed(settings.repositories, None).items():
        _fill(flat, f"repositories[{name}]", entry)
    for name, provider in settings.providers.items():
        _fill(flat, _dotted(("providers", name)), provider)
    flat |= {
        f"routing.{key}": getattr(settings.routing, key)
        for key in RoutingSettings.model_fields
        if key != "rules"
    }
    for name, entry in _keyed(settings.routing.rules, "name").items():
        _fill(flat, f"routing.rules[{name}]", entry)
    for name, entry in _keyed(settings.models, "name").items():
        _fill(flat, f"models[{name}]", entry)
    for name, workflow in settings.workflows.items():
        _fill(flat, _dotted(("workflows", name)), workflow)
    return flat


def _fill(flat: dict[str, Any], prefix: str, section: Section) -> None:
    for key, value in section:
        if key == "env" and isinstance(value, dict):
            flat |= {f"{prefix}.env.{name}": content for name, content in value.items()}
            continue
        flat[f"{prefix}.{key}"] = value


def _is_secret(name: str, value: str) -> bool:
    return bool(_SECRET_NAME.search(name) or _SECRET.search(value) or _PASSWORD_IN_URL.search(value))


def _masked(key: str, value: Any) -> str:
    in_environment = re.search(r"\.env\.([^.]+)$", key)
    if in_environment and isinstance(value, str) and _is_secret(in_environment[1], value):
        return "***"
    return _PASSWORD_IN_URL.sub(r"\1***@", _SECRET.sub("***", _toml(value)))


def _toml(value: Any) -> str:
    """A value as the file would spell it; unset keys say so."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return _in_quotes(value)
    if isinstance(value, Section):
        return _toml({key: inner for key, inner in value if inner is not None})
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_quoted(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(inner) for inner in value)}]"
    return str(value)


# --- where a key stands in the text ------------------------------------------------------------


class TomlLines:
    """Finds the line of a table or key in a valid TOML text; tomllib tells it for syntax errors only.

    Paths are as pydantic gives them: table names and keys, and the index in an array (also of tables).
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        self._at = 0
        self._table: Path = ()
        self._last: dict[Path, int] = {}  # arrays of tables: the index of the entry being written
        self._lines: dict[Path, int] = {}
        self._scan()

    def line(self, path: Path) -> int | None:
        """The line of the key, or of the nearest table around it that the text has; from 1."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def _scan(self) -> None:
        while self._skip_blank():
            if self._text[self._at] == "[":
                self._header()
            else:
                self._pair(self._table)

    def _mark(self, path: Path) -> None:
        self._lines.setdefault(path, bisect_right(self._starts, self._at))

    def _skip(self, pattern: str) -> str:
        found = re.compile(pattern).match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found[0] if found else ""

    def _skip_blank(self) -> bool:
        """Go over white space, line ends and comments; False at the end of the text."""
        self._skip(r"(?:[ \t\n]+|#[^\n]*)*")
        return self._at < len(self._text)

    def _header(self) -> None:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        keys = self._dotted_key()
        end = self._at + brackets
        self._at = start
        self._table = self._enter(keys, is_array=brackets == 2)
        self._at = end

    def _enter(self, keys: list[str], *, is_array: bool) -> Path:
        path: Path = ()
        for position, key in enumerate(keys, start=1):
            path = (*path, key)
            self._mark(path)
            if is_array and position == len(keys):
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:
                path = (*path, self._last[path])
                self._mark(path)
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        keys = self._dotted_key()
        end = self._at + len("=")
        self._at = start
        path = table
        for key in keys:
            path = (*path, key)
            self._mark(path)
        self._at = end
        self._skip(r"[ \t]*")
        self._value(path)

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._skip(r"[ \t]*")
            raw = self._string() if self._text[self._at] in "\"'" else self._skip(r"[A-Za-z0-9_-]+")
            keys.append(tomllib.loads(f"key = {raw}")["key"] if raw[:1] in "\"'" else raw)
            self._skip(r"[ \t]*")
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(r"[^,\]}\n#]+")

    def _string(self) -> str:
        for quotes in ('"""', "'''"):
            if self._text.startswith(quotes, self._at):
                body = r"(?:\\[\s\S]|[^\\])*?" if quotes == '"""' else r"[\s\S]*?"
                return self._skip(f"{quotes}{body}{quotes[0]}{{3,5}}")
        return self._skip(r'"(?:\\.|[^"\\\n])*"' if self._text[self._at] == '"' else r"'[^'\n]*'")

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._text[self._at] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._mark((*path, index))
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip_blank() and self._text[self._at] != "}":
            if self._text[self._at] == ",":
                self._at += 1
            else:
                self._pair(path)
        self._at += 1
