"""What a single value may be: one type for each kind, with the words for everything else.

A validator says what is wrong as the rest of a sentence; `problems.py` puts the key before it. Knows no key
and no default.
"""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from adw_modules.config.wording import ended, holds_password, holds_token, nearest, shown, suggestion
from adw_modules.openrouter.wire import MOST_CATEGORIES
from adw_modules.providers import PLACEHOLDERS
from adw_modules.security.admission import NEVER_ROLES
from adw_modules.security.network import parse_place

YEAR_SECONDS = 31_536_000  # longer waits are slips of the pen, and overflow dates further on


# --- the three ways to complain -----------------------------------------------------------------


def must_be(phrase: str) -> PydanticCustomError:
    """The value is not `phrase`; the sentence goes on with what stands there instead."""
    return PydanticCustomError("must_be", "{text}", {"text": phrase})


def wrong(text: str) -> PydanticCustomError:
    """The rest of a sentence that begins with the key."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


def in_table(text: str) -> PydanticCustomError:
    """The rest of a sentence that begins with the name of the table."""
    return PydanticCustomError("in_table", "{text}", {"text": text})


# --- texts, flags, numbers ----------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise must_be("a text in quotes")
    if "\0" in value:
        raise wrong("must not contain a NUL character")
    return value


def _filled_text(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise wrong("must not be empty")
    if not text.isprintable():
        raise wrong("must be on one line, without control characters")
    return text


def _folder(value: Any) -> str:
    text = _filled_text(value)
    if text.startswith("~"):
        raise wrong('must not begin with "~", which only a shell understands; write the whole path')
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise must_be("true or false")
    return value


def one_of(*words: str) -> Any:
    """A validator for one word of a few."""

    def check(value: Any) -> str:
        if value not in words:
            raise must_be(" or ".join(f'"{word}"' for word in words))
        return str(value)

    return BeforeValidator(check)


def _span(least: float | None, above: float | None) -> str:
    if above is not None:
        return f" greater than {above:g}"
    return f" of {least:g} or more" if least is not None else ""


def _as_number(value: Any, phrase: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise must_be(phrase)
    number = Decimal(value)
    if not number.is_finite():
        raise must_be(phrase)
    return number


def number(*, least: float | None = None, above: float | None = None, most: float = YEAR_SECONDS) -> Any:
    """A validator for a finite number within the given limits."""
    phrase = f"a number{_span(least, above)}"

    def check(value: Any) -> float:
        found = _as_number(value, phrase)
        if (least is not None and found < least) or (above is not None and found <= above):
            raise must_be(phrase)
        if found > most:
            raise must_be(f"at most {most:g}")
        return float(found)

    return BeforeValidator(check)


def whole(*, least: int | None = None, most: int = 1_000_000_000) -> Any:
    """A validator for a whole number within the given limits."""
    phrase = f"a whole number{_span(least, None)}"
    lowest = -most if least is None else least

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise must_be(phrase)
        if value > most:
            raise must_be(f"at most {most}")
        return value

    return BeforeValidator(check)


def _price(value: Any) -> Decimal:
    found = _as_number(value, "a number of 0 or more")
    if found < 0:
        raise must_be("a number of 0 or more")
    if found > 1_000_000:
        raise must_be("at most 1000000")
    return found


def _amount(value: Any) -> Decimal:
    found = _as_number(value, "a number greater than 0")
    if found <= 0:
        raise must_be("a number greater than 0")
    if found > 1_000_000_000:
        raise must_be("at most 1000000000")
    return found


def _shares(value: Any) -> list[float]:
    phrase = "a list of shares greater than 0 and at most 1, such as [0.8, 1]"
    if not isinstance(value, list | tuple):
        raise must_be(phrase)
    found = [_as_number(entry, phrase) for entry in value]
    if any(share <= 0 or share > 1 for share in found):
        raise must_be(phrase)
    return sorted({float(share) for share in found})


Text = Annotated[str, BeforeValidator(_text)]


def _memory_size(value: Any) -> str:
    """As systemd reads it: bytes with a suffix to the base of 1024, or a share of the machine's memory."""
    text = value.strip().upper() if isinstance(value, str) else ""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([MGT]|%)", text)
    if found is None or (found[2] == "%" and int(found[1]) > 100):
        raise must_be('a size such as "512M" or "2G", or a share of the memory such as "25%"')
    return text


def _short_name(value: Any) -> str:
    text = _filled_text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise must_be("a name of letters, digits, dots, dashes and underscores, at most 64 of them")
    return text


Name = Annotated[str, BeforeValidator(_filled_text)]
ShortName = Annotated[str, BeforeValidator(_short_name)]
Folder = Annotated[str, BeforeValidator(_folder)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Above0 = Annotated[float, number(above=0)]
AtLeast0 = Annotated[float, number(least=0)]
AtLeast1 = Annotated[int, whole(least=1)]
MemorySize = Annotated[str, BeforeValidator(_memory_size)]
Price = Annotated[Decimal, BeforeValidator(_price)]
Money = Annotated[Decimal, BeforeValidator(_amount)]
Shares = Annotated[tuple[float, ...], BeforeValidator(_shares)]


def _absolute_path(value: Any) -> str:
    phrase = 'an absolute path, or one that begins with "~/"'
    if not isinstance(value, str) or "\0" in value or not value.startswith(("/", "~/")):
        raise must_be(phrase)
    if ".." in value.split("/"):
        raise must_be(f"{phrase}, without ..")
    return value


AbsolutePath = Annotated[str, BeforeValidator(_absolute_path)]


def _allowed_host(value: Any) -> str:
    text = _filled_text(value)
    try:
        parse_place(text)
    except ValueError as error:
        raise wrong(f"{error} (it is {shown(text)})") from error
    return text


AllowedHost = Annotated[str, BeforeValidator(_allowed_host)]


# --- the environment and the clock --------------------------------------------------------------


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _variable(value: Any) -> str:
    text = _text(value)
    if holds_token(text):
        raise wrong("must be the NAME of an environment variable; this looks like the secret itself")
    if not _VARIABLE.fullmatch(text):
        raise must_be('the name of an environment variable, such as "GITHUB_TOKEN"')
    return text


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise must_be('a table of texts, such as env = { LANG = "C.UTF-8" }')
    for name, content in value.items():
        if not _VARIABLE.fullmatch(name):
            raise wrong(f"has {shown(name)}, which is not the name of an environment variable")
        if not isinstance(content, str) or "\0" in content:
            raise wrong(f"{name} must be a text in quotes")  # never with the content: it may be a secret
    return value


def _timezone(value: Any) -> str:
    text = _text(value)
    if text == "UTC":
        return text  # must work on a machine without time zone data
    try:
        zoneinfo.ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        hint = nearest(text, sorted(zoneinfo.available_timezones()))
        known = f'; did you mean "{hint}"?' if hint else ', such as "UTC" or "Europe/Berlin"'
        raise wrong(f"{shown(text)} is not a time zone of the IANA list{known}") from None
    return text


Variable = Annotated[str, BeforeValidator(_variable)]
Variables = Annotated[dict[str, str], BeforeValidator(_variables)]
TimeZone = Annotated[str, BeforeValidator(_timezone)]


# --- GitHub's names and addresses ---------------------------------------------------------------


def _owner(value: Any) -> str | None:
    if value is None or value == "":
        return None  # the shipped file has the key with an empty value, to be filled in
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", text):
        raise must_be("the login of a user or organisation on GitHub")
    return text


def _repository_name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = _text(value)
    if "/" in text:
        raise must_be("the name of the repository alone, without owner and slash")
    if text.lower().endswith(".git"):
        raise must_be("the name of the repository without .git")
    if ".." in text or text == "." or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise must_be("the name of a repository on GitHub")
    return text


def _label(value: Any) -> str:
    text = _filled_text(value)
    if "/" in text or "," in text:
        raise wrong(f"must not contain a slash or a comma, but is {shown(text)}")
    if text != text.strip() or len(text) > 50:
        raise must_be("a label: at most 50 printable characters without spaces around them")
    return text


def _api_url(value: Any) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise must_be('an http or https address, such as "https://api.github.com"')
    if parts.username or parts.password:
        raise wrong(
            "must not contain a user or password; the token comes from the variable in github.token_env"
        )
    return text.rstrip("/")


def _remote_url(value: Any) -> str:
    text = _filled_text(value)
    # git reads a leading dash as an option, and "word::" as a helper program to run.
    if text.startswith("-") or "::" in text:
        raise must_be("the address of a git repository")
    if holds_password(text):
        raise wrong("must not contain a password; the token comes from the variable in github.token_env")
    unknown = [name for name in re.findall(r"\{([^{}]*)\}", text) if name not in {"owner", "name"}]
    if unknown:
        raise wrong(f'has an unknown placeholder "{{{unknown[0]}}}"; known are {{owner}} and {{name}}')
    return text


def _full_name(value: Any) -> str:
    text = _filled_text(value)
    owner, slash, name = text.partition("/")
    if not slash or _owner(owner) is None or _repository_name(name) is None:
        raise must_be('a repository as "owner/name"')
    return text


def _roles(value: Any) -> list[str]:
    phrase = 'a list of role names, such as ["triage"]'
    if not isinstance(value, list | tuple) or not all(isinstance(role, str) for role in value):
        raise must_be(phrase)
    for role in value:
        if role.strip().casefold() in NEVER_ROLES:
            raise wrong(f"must not name {shown(role)}: on a public repository that is everybody")
    return [role.strip() for role in value]


Roles = Annotated[tuple[str, ...], BeforeValidator(_roles)]


def _client_id(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.]{7,63}", text):
        raise must_be('the client id of a GitHub App, such as "Iv23liABCDEF01234567"')
    return text


def _listen(value: Any) -> str:
    text = _text(value)
    host, port = address(text) or ("", -1)
    if not 0 <= port <= 65_535 or not re.fullmatch(r"localhost|[0-9.]+|[0-9A-Fa-f:.]+", host):
        raise must_be('an address and a port, such as "127.0.0.1:8787"')
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise must_be('an address and a port, such as "127.0.0.1:8787"') from None
    return text


def _url_path(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]{0,199}", text):
        raise must_be('a path of letters, digits and - . _ ~, such as "/github"')
    return text


def address(text: str) -> tuple[str, int] | None:
    """Host and port of "127.0.0.1:8787" or "[::1]:8787"; None for anything else."""
    found = re.fullmatch(r"(?:\[([^][]+)\]|([^][:]+)):([0-9]{1,5})", text)
    return None if found is None else (found[1] or found[2], int(found[3]))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


ClientId = Annotated[str, BeforeValidator(_client_id)]
ListenAddress = Annotated[str, BeforeValidator(_listen)]
UrlPath = Annotated[str, BeforeValidator(_url_path)]
FullName = Annotated[str, BeforeValidator(_full_name)]
Owner = Annotated[str | None, BeforeValidator(_owner)]
RepositoryName = Annotated[str | None, BeforeValidator(_repository_name)]
Label = Annotated[str, BeforeValidator(_label)]
ApiUrl = Annotated[str, BeforeValidator(_api_url)]
RemoteUrl = Annotated[str, BeforeValidator(_remote_url)]


def _app_url(value: Any) -> str:
    text = _text(value)
    parts = urlsplit(text)
    is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
    if text and (not is_address or not text.isprintable() or not text.isascii() or " " in text):
        raise must_be('the address of a page, such as "https://example.org/our-agents"')
    if parts.username or parts.password:
        raise wrong("must not contain a user or password")
    return text


def _header_name(value: Any) -> str:
    text = _text(value)
    if not text.isprintable() or not text.isascii():
        raise wrong("must be on one line and of ASCII characters, because it is sent in a header")
    return text


def _categories(value: Any) -> list[str]:
    words = value if isinstance(value, list | tuple) else []
    named = all(isinstance(word, str) and re.fullmatch(r"[a-z0-9-]{1,30}", word) for word in words)
    if not isinstance(value, list | tuple) or not named or len(words) > MOST_CATEGORIES:
        raise must_be(f'a list of at most {MOST_CATEGORIES} categories, such as ["cli-agent"]')
    return list(words)


AppUrl = Annotated[str, BeforeValidator(_app_url)]
HeaderText = Annotated[str, BeforeValidator(_header_name)]
Categories = Annotated[tuple[str, ...], BeforeValidator(_categories)]


# --- which of OpenRouter's providers ------------------------------------------------------------


def of_provider(reader: Callable[[Any], Any]) -> Any:
    """A validator for one field of OpenRouter's `provider` object; the value stays as the file spells it."""

    def check(value: Any) -> Any:
        try:
            reader(value)
        except ValueError as error:
            # "not a table" would say nothing where a table is right and its content wrong.
            is_nested = isinstance(value, dict | list)
            raise (wrong(f"must be {error}") if is_nested else must_be(str(error))) from None
        return value

    return BeforeValidator(check)


# --- command templates --------------------------------------------------------------------------


# As in providers.py, which fills the template: braces around anything but a name are text, such as JSON.
_BRACES = re.compile(r"\$\{(?P<env>[^{}]*)\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


def _command_template(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise must_be('a list of texts, such as ["claude", "-p", "--model", "{model}"]')
    if not value or not value[0].strip():
        raise wrong("must begin with the program to run")
    if _BRACES.search(value[0]):
        raise wrong("must begin with a program, not with a placeholder")
    for word in value:
        _check_word(word)
    return value


def _check_word(word: str) -> None:
    if "\0" in word:
        raise wrong("contains a NUL character")
    if holds_token(word):
        raise wrong("contains what looks like a secret; name its variable in api_key_env or pass_env instead")
    for found in _BRACES.finditer(word):
        if found["env"] is not None:
            raise wrong(
                f'contains "{found[0]}", but every user of the machine can read a command line; '
                "name the variable in api_key_env or pass_env, and the worker gets it in its environment"
            )
        if found["name"] not in PLACEHOLDERS:
            hint = suggestion(found[0], [f"{{{name}}}" for name in PLACEHOLDERS])
            raise wrong(f'has an unknown placeholder "{found[0]}"{hint}')


CommandTemplate = Annotated[tuple[str, ...], BeforeValidator(_command_template)]


# --- conditions: which keys there are is checked here; what they may hold is for routing to say --

# Imported when a condition is met, because routing imports the schema for its defaults.


def _conditions(value: Any) -> dict[str, Any]:
    from adw_modules.routing.conditions import KEYS, ConditionError, compile_conditions

    if not isinstance(value, dict):
        raise must_be('a table, such as { priority = "critical" }')
    for key in value:
        if key not in KEYS:
            raise wrong(f"has no key {shown(key)}{suggestion(key, KEYS)}")
    plain = {key: _plain(inner) for key, inner in value.items()}
    try:
        compile_conditions(plain, only_known=True)
    except ConditionError as error:
        raise wrong(f"cannot be used: {error.message.rstrip('.')}") from error
    return plain


def _plain(value: Any) -> Any:
    """Conditions hold ordinary numbers: a Decimal there would surprise whoever prints them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def _condition(value: Any) -> str:
    from adw_modules.routing.conditions import ConditionError, compile_condition

    text = _filled_text(value)
    try:
        compile_condition(text, only_known=True)
    except ConditionError as error:
        at = 0 if error.position is None else error.position
        sentence = ended(f"is wrong at character {at + 1}: {error.message}")
        is_secret = holds_token(text) or holds_password(text)
        raise wrong("\n".join([sentence, *([] if is_secret else error.pointer())])) from error
    return text


def _target(value: Any) -> str | dict[str, Any]:
    from adw_modules.routing.clauses import ConditionError
    from adw_modules.routing.targets import target_spec

    plain = _plain(value)
    try:
        target_spec(plain)
    except ConditionError as error:
        raise wrong(f"cannot be used: {error.message.rstrip('.')}") from error
    found: str | dict[str, Any] = plain
    return found


OVERRIDES = ("provider", "model", "workflow")  # what labels can ask for


def _override_labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise must_be('a table of texts, such as { provider = "provider:", model = "" }')
    for kind, prefix in value.items():
        if kind not in OVERRIDES:
            raise wrong(f"has no key {shown(kind)}{suggestion(kind, OVERRIDES)}")
        if not isinstance(prefix, str) or not prefix.isprintable() or len(prefix) > 40:
            raise wrong(f"{kind} must be a text of at most 40 characters; an empty one is none")
    return {kind: value.get(kind, "") for kind in OVERRIDES}


def _template_name(value: Any) -> str:
    text = _filled_text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text):
        raise must_be("the name of a prompt template: letters, digits, dashes and underscores, without .md")
    return text


def _capabilities(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each.strip() for each in value
    ):
        raise must_be('a list of texts, such as ["vision"]')
    return tuple(value)


def _path_patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each.strip("/* ") and len(each) <= 500 and each.isprintable()
        for each in value
    ):
        raise must_be('a list of patterns that name more than "everything", such as ["deploy/**"]')
    return tuple(value)


PathPatterns = Annotated[tuple[str, ...], BeforeValidator(_path_patterns)]
Target = Annotated[str | dict[str, Any], BeforeValidator(_target)]
OverrideLabels = Annotated[dict[str, str], BeforeValidator(_override_labels)]
Capabilities = Annotated[tuple[str, ...], BeforeValidator(_capabilities)]
TemplateName = Annotated[str, BeforeValidator(_template_name)]
Conditions = Annotated[dict[str, Any], BeforeValidator(_conditions)]
Condition = Annotated[str, BeforeValidator(_condition)]
