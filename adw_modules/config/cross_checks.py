"""What no single value can get wrong: names that are not there, or there twice, or in each other's way.

All of it looks at the raw document, of any shape, so that one bad key hides no other problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from adw_modules.config.problems import Problem, label_of, value_at
from adw_modules.config.schema import BUILT_IN_PROVIDER, GitHubSettings, LlmSettings, Settings
from adw_modules.config.toml_lines import KeyPath
from adw_modules.config.wording import dotted, ended, shown, suggestion


def cross_checks(document: dict[str, Any]) -> list[Problem]:
    """Every problem between sections, or between the entries of one."""
    return [
        *_unusable_names(document),
        *_unknown_providers(document),
        *_unknown_statuses(document),
        *_repeated_models(document),
        *_repeated_budgets(document),
        *_repeated_repositories(document),
        *_repeated_experiments(document),
        *_wrong_preferences(document),
        *_token_for_workers(document),
        *_token_and_app(document),
        *_own_labels(document),
    ]


def chain_checks(tables: dict[str, Any], document: dict[str, Any]) -> Iterator[Problem]:
    """For tables that are valid: a target that stands in a chain twice is asked again after it failed."""
    from adw_modules.routing import preferences
    from adw_modules.routing.chains import loops

    for place, target in preferences.loops(tables):
        sentence = f"{target} stands in a chain of targets twice; keep one of them."
        yield Problem(place, f"{label_of(place, document)}: {sentence}")
    for index, target in loops(tables):
        path: KeyPath = ("routing", "fallbacks") if index is None else ("routing", "rules", index)
        sentence = f"{target} stands in its chain of targets twice; keep one of them."
        yield Problem(path, f"{label_of(path, document)}: {sentence}")


def named_providers(document: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Each place that picks a provider, and the name it gives. A `[[models]]` entry only describes one."""
    yield ("llm", "provider"), value_at(document, ("llm", "provider")) or LlmSettings().provider
    yield _value(document, "routing", "default_provider")
    for path, table in (*_rules(document), *_arms(document)):
        yield (*path, "provider"), table.get("provider")
    yield from _in_each(document, "default_provider", "preferences")
    yield from _targets(document)
    for name in _named_tables(document, "workflows"):
        yield from _in_each(document, "provider", "workflows", name, "stages")


# --- looking at a document of any shape ---------------------------------------------------------


def _value(document: dict[str, Any], *path: str) -> tuple[KeyPath, Any]:
    return path, value_at(document, path)


def _named_tables(document: dict[str, Any], section: str) -> dict[str, Any]:
    """The tables of `[section.NAME]` by name; none when the shape is wrong."""
    tables = document.get(section)
    return tables if isinstance(tables, dict) else {}


def _entries(document: dict[str, Any], *path: str | int) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """The tables of an array of tables, with their paths; none when the shape is wrong."""
    found = value_at(document, path)
    for index, entry in enumerate(found if isinstance(found, list) else []):
        if isinstance(entry, dict):
            yield (*path, index), entry


def _in_each(document: dict[str, Any], key: str, *path: str) -> Iterator[tuple[KeyPath, Any]]:
    """One key of every entry of an array of tables."""
    for entry_path, entry in _entries(document, *path):
        yield (*entry_path, key), entry.get(key)


def _rules(document: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every rule, also those of authors and repositories."""
    yield from _entries(document, "routing", "rules")
    for path, _ in _entries(document, "preferences"):
        yield from _entries(document, *path, "rules")


def _arms(document: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    for path, _ in _entries(document, "experiments"):
        yield from _entries(document, *path, "arms")


def _budgeted_providers(document: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    for path, entry in _entries(document, "budgets"):
        only = entry.get("only")
        if entry.get("scope") == "provider" and isinstance(only, list):
            for index, name in enumerate(only):
                yield (*path, "only", index), name


def _targets(document: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """The providers that targets and fallbacks name, in any of their spellings."""
    places: list[tuple[KeyPath, Any]] = [
        (("routing", "fallbacks"), value_at(document, ("routing", "fallbacks")))
    ]
    for path, rule in (*_rules(document), *_arms(document)):
        places += [((*path, key), rule.get(key)) for key in ("targets", "fallbacks")]
        places.append(((*path, "target"), [rule.get("target")]))
    for path, written in places:
        for each in written if isinstance(written, list) else ():
            if isinstance(each, dict):
                yield path, each.get("provider")
            listed = each.get("candidates") if isinstance(each, dict) else [each]
            for text in listed if isinstance(listed, list) else ():
                if isinstance(text, str) and "/" in text:
                    yield path, text.partition("/")[0].strip()


# --- the checks ---------------------------------------------------------------------------------


def _unusable_names(document: dict[str, Any]) -> Iterator[Problem]:
    """Providers and workflows are named in logs, tables and command lines."""
    for section in ("providers", "workflows"):
        for name in _named_tables(document, section):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                rule = "a name has letters, digits, dots, dashes and underscores, at most 64 of them"
                yield Problem((section, name), f"[{section}] cannot have the name {shown(name)}: {rule}.")


def _unknown_providers(document: dict[str, Any]) -> Iterator[Problem]:
    if not isinstance(document.get("providers") or {}, dict):
        return  # that is the problem to mend first
    known = dict.fromkeys([*_named_tables(document, "providers"), BUILT_IN_PROVIDER])
    for path, name in (*named_providers(document), *_budgeted_providers(document)):
        if isinstance(name, str) and name.strip() and name not in known:
            hint = suggestion(name, known, what="configured are")
            label = label_of(path, document)
            yield Problem(path, ended(f"{label} names {shown(name)}, which no [providers] table has{hint}"))


def _unknown_statuses(document: dict[str, Any]) -> Iterator[Problem]:
    """Conditions that ask how a provider is that does not exist: they would never hold."""
    known = dict.fromkeys([*_named_tables(document, "providers"), BUILT_IN_PROVIDER])
    for path, rule in (*_rules(document), *_entries(document, "experiments")):
        for key, name in _asked_providers(rule):
            if name not in known:
                hint = suggestion(name, known, what="configured are")
                sentence = f"asks for the status of {shown(name)}, which no [providers] table has{hint}"
                label = label_of((*path, key), document)
                yield Problem((*path, key), _pointed(ended(f"{label} {sentence}"), rule[key], name))


def _asked_providers(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The key of the rule and the name of each provider it asks about; none of what cannot be read."""
    from adw_modules.routing.conditions import ConditionError, compile_condition

    statuses = value_at(rule, ("conditions", "provider_status"))
    yield from (("conditions", name) for name in (statuses if isinstance(statuses, dict) else ()))
    text = rule.get("condition")
    try:
        paths = compile_condition(text).paths if isinstance(text, str) else ()
    except ConditionError:
        return  # said elsewhere
    yield from (("condition", str(path[1])) for path in paths if path[0] == "provider_status" and path[1:])


def _pointed(sentence: str, written: Any, name: str) -> str:
    from adw_modules.routing.conditions import pointer

    return "\n".join([sentence, *(pointer(written, written.find(name)) if isinstance(written, str) else ())])


def _repeated_models(document: dict[str, Any]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for ordinal, (path, name) in enumerate(_in_each(document, "name", "models"), start=1):
        if isinstance(name, str) and seen.setdefault(name, ordinal) != ordinal:
            both = f"number {seen[name]} and {ordinal}"
            yield Problem(path, f"[[models]] {shown(name)} is there twice ({both}).")


def _repeated_experiments(document: dict[str, Any]) -> Iterator[Problem]:
    seen = set()
    for path, name in _in_each(document, "name", "experiments"):
        if isinstance(name, str) and name.casefold() in seen:
            yield Problem(path, f"[[experiments]] {shown(name)} is there twice.")
        seen.add(name.casefold() if isinstance(name, str) else None)


def _wrong_preferences(document: dict[str, Any]) -> Iterator[Problem]:
    """Those of somebody who has some already, or of a repository that is not watched."""
    seen = set()
    watched = {name.casefold(): name for _, name in _repositories(document)}
    for path, table in _entries(document, "preferences"):
        for whose in ("author", "repository"):
            name = table.get(whose)
            if not isinstance(name, str):
                continue
            if (whose, name.casefold()) in seen:
                yield Problem(
                    (*path, whose), f"[[preferences]] of the {whose} {shown(name)} are there twice."
                )
            elif whose == "repository" and watched and name.casefold() not in watched:
                hint = suggestion(name, watched.values(), what="configured are")
                label = label_of((*path, whose), document)
                yield Problem(
                    (*path, whose), ended(f"{label} names {shown(name)}, which is not watched{hint}")
                )
            seen.add((whose, name.casefold()))


def _repeated_budgets(document: dict[str, Any]) -> Iterator[Problem]:
    """A budget is named on the command line, and warned of by its name."""
    seen: dict[str, int] = {}
    for ordinal, (path, name) in enumerate(_in_each(document, "name", "budgets"), start=1):
        if isinstance(name, str) and seen.setdefault(name, ordinal) != ordinal:
            both = f"number {seen[name]} and {ordinal}"
            yield Problem(path, f"[[budgets]] {shown(name)} is there twice ({both}).")


def _repositories(document: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Each repository as `owner/name`, with the place of its name."""
    github = value_at(document, ("github",))
    places: list[tuple[KeyPath, Any, Any]] = [
        (("github", "repo_name"), value_at(github, ("repo_owner",)), value_at(github, ("repo_name",))),
        *(
            ((*path, "name"), entry.get("owner"), entry.get("name"))
            for path, entry in _entries(document, "repositories")
        ),
    ]
    for path, owner, name in places:
        if isinstance(owner, str) and isinstance(name, str) and owner and name:
            yield path, f"{owner}/{name}"


def _repeated_repositories(document: dict[str, Any]) -> Iterator[Problem]:
    seen = set()
    for path, full_name in _repositories(document):
        if full_name.casefold() in seen:
            yield Problem(path, f"the repository {full_name} is configured twice; keep one of the two.")
        seen.add(full_name.casefold())


def _token_for_workers(document: dict[str, Any]) -> Iterator[Problem]:
    for secret, what in _own_secrets(document):
        for name in _named_tables(document, "providers"):
            for key in ("pass_env", "env", "api_key_env"):
                path, value = _value(document, "providers", name, key)
                if value == secret or (isinstance(value, (list, dict)) and secret in value):
                    yield Problem(
                        path, f"{dotted(path)} must not name {shown(secret)}: workers get no {what}."
                    )


def _own_secrets(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The variables that hold what only the daemon may know."""
    defaults = Settings()
    places = [
        (value_at(document, ("github", "token_env")) or defaults.github.token_env, "GitHub token"),
        (value_at(document, ("github", "app", "private_key_env")), "key of the GitHub App"),
        (
            value_at(document, ("webhook", "secret_env")) or defaults.webhook.secret_env,
            "secret of the webhook",
        ),
    ]
    yield from ((name, what) for name, what in places if isinstance(name, str))


def _token_and_app(document: dict[str, Any]) -> Iterator[Problem]:
    path: KeyPath = ("github", "token_env")
    app = value_at(document, ("github", "app"))
    if isinstance(app, dict) and app and value_at(document, path) is not None:
        yield Problem(
            path,
            "[github] has a token_env and an [github.app]: GitHub is spoken to either with a token or as an "
            "App; take one of them out.",
        )


def _own_labels(document: dict[str, Any]) -> Iterator[Problem]:
    defaults = GitHubSettings()
    prefix = value_at(document, ("github", "status_label_prefix")) or defaults.status_label_prefix
    path, label = _value(document, "github", "issue_label")
    places = [(path, label or defaults.issue_label), *_in_each(document, "issue_label", "repositories")]
    approval, word = _value(document, "content", "approval_label")
    if isinstance(word, str) and word.casefold() in {
        each.casefold() for _, each in places if isinstance(each, str)
    }:
        yield Problem(
            approval,
            f"{label_of(approval, document)} must differ from the label that starts work: {shown(word)}.",
        )
    places.append((approval, word))
    if not isinstance(prefix, str):
        return
    for path, label in places:
        if isinstance(label, str) and label.casefold().startswith(prefix.casefold()):
            yield Problem(
                path,
                f"{label_of(path, document)} must not begin with {shown(prefix)}: labels with "
                "github.status_label_prefix are the ones the daemon sets itself.",
            )
