#!/usr/bin/env python3
"""Check OpenRouter for a monitor: the service, the key, and for each top model its endpoints and a ping.

Exit codes: 0 all is fine, 1 a model failed, 2 wrong usage or no usable key, 3 the service cannot be reached,
69 not set up, 78 the configuration cannot be used.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import _bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adw_modules.catalogue import CatalogueModel
    from adw_modules.config import Settings
    from adw_modules.openrouter.directory import Directory
    from coordinator.settings import LoadedSettings

FINE, FAILED, NO_KEY, UNREACHABLE = 0, 1, 2, 3
AT_ONCE = 4
PING_TIMEOUT_SECONDS = 60.0


class Ended(Exception):
    """Nothing more can be checked: the sentence, and the exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        self.code = code
        super().__init__(sentence)


def main() -> str:
    from coordinator.settings import SettingsSource

    args = _options().parse_args()
    loaded = SettingsSource(args.config).current
    try:
        report = asyncio.run(_check(loaded, args))
    except Ended as end:
        print(end, file=sys.stderr)
        if args.json:
            print(json.dumps({"ok": False, "problem": str(end), "models": []}, indent=2))
        raise SystemExit(end.code) from None
    _exit.code = FINE if report["ok"] else FAILED
    return json.dumps(report, indent=2, default=str) if args.json else as_text(report)


class _Exit:
    code = FINE


_exit = _Exit()


def _options() -> argparse.ArgumentParser:
    parser = _bootstrap.options(__doc__.splitlines()[0])
    parser.add_argument("--top", type=_count, default=5, metavar="N", help="how many models (default: 5)")
    parser.add_argument("--models", type=_names, default=[], metavar="A,B", help="these models instead")
    parser.add_argument("--no-ping", action="store_true", help="no completions: free of charge, needs no key")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return int(text)


def _names(text: str) -> "list[str]":
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name at least one model")
    return list(dict.fromkeys(names))


# --- what is checked ----------------------------------------------------------------------------


async def _check(loaded: "LoadedSettings", args: argparse.Namespace) -> "dict[str, Any]":
    from coordinator.catalogue import access

    reached = access(loaded.settings, os.environ)
    if reached.key is None and not args.no_ping:
        raise Ended("No key: export OPENROUTER_API_KEY, or check without completions (--no-ping).", NO_KEY)
    async with reached.directory() as directory:
        catalogue = await _catalogue(directory)
        key = await _key(directory) if reached.key is not None else None
        names = args.models or _top(loaded, catalogue, args.top)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> "dict[str, Any]":
            async with gate:
                return await _model(directory, catalogue, name, ping=not args.no_ping)

        models = await asyncio.gather(*(one(name) for name in names))
    return {
        "ok": all(model["ok"] for model in models),
        "base_url": reached.base_url,
        "catalogue_models": len(catalogue),
        "key": key,
        "models": models,
    }


async def _catalogue(directory: "Directory") -> "dict[str, CatalogueModel]":
    from adw_modules.catalogue import parse_listing
    from adw_modules.openrouter.directory import DirectoryError

    try:
        listing = parse_listing((await directory.models()).data)
    except DirectoryError as error:
        raise Ended(str(error), UNREACHABLE) from error
    return {model.model_id: model for model in listing.models}


async def _key(directory: "Directory") -> "dict[str, Any]":
    from adw_modules.openrouter.directory import DirectoryError

    try:
        data = (await directory.key()).data.get("data")
    except DirectoryError as error:
        refused = error.status in (401, 403)
        sentence = f"The key is refused ({error})." if refused else str(error)
        raise Ended(sentence, NO_KEY if refused else UNREACHABLE) from error
    facts = data if isinstance(data, dict) else {}
    return {name: facts.get(name) for name in ("label", "limit", "limit_remaining", "usage", "is_free_tier")}


async def _model(
    directory: "Directory", catalogue: "Mapping[str, CatalogueModel]", name: str, *, ping: bool
) -> "dict[str, Any]":
    known = catalogue.get(name)
    real = (known.alias_target if known else None) or name
    facts: dict[str, Any] = {"model": name, "listed": known is not None, **await _endpoints(directory, real)}
    if ping:
        facts |= await _ping(directory, name)
    facts["ok"] = not facts["problems"] and not facts.get("ping_problem")
    return facts


async def _endpoints(directory: "Directory", name: str) -> "dict[str, Any]":
    """How many providers serve it now; status 0 is well, a negative one is not."""
    from adw_modules.openrouter.directory import DirectoryError

    try:
        data = (await directory.endpoints(name)).data.get("data")
    except DirectoryError as error:
        return {"endpoints": None, "well": None, "uptime": None, "problems": [str(error)]}
    rows = data.get("endpoints") if isinstance(data, dict) else None
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    well = [row for row in rows if row.get("status") in (None, 0)]
    uptimes = [float(row["uptime_last_30m"]) for row in well if _is_number(row.get("uptime_last_30m"))]
    problem = "nobody serves it" if not rows else "no endpoint is up" if not well else None
    return {
        "endpoints": len(rows),
        "well": len(well),
        "uptime": max(uptimes, default=None),
        "problems": [problem] if problem else [],
    }


def _is_number(value: object) -> bool:
    from decimal import Decimal

    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


async def _ping(directory: "Directory", name: str) -> "dict[str, Any]":
    from adw_modules.openrouter.directory import DirectoryError

    began = time.perf_counter()
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            data = (await directory.ping(name)).data
    except DirectoryError as error:
        return {"ping_ms": None, "ping_problem": str(error)}
    except TimeoutError:
        return {"ping_ms": None, "ping_problem": f"no answer within {PING_TIMEOUT_SECONDS:.0f} s"}
    took = round((time.perf_counter() - began) * 1000)
    usage = data.get("usage")
    cost = usage.get("cost") if isinstance(usage, dict) else None
    problem = None if data.get("choices") else "an answer without a choice"
    return {"ping_ms": took, "ping_problem": problem, "provider": data.get("provider"), "cost_usd": cost}


# --- which models -------------------------------------------------------------------------------


def _top(loaded: "LoadedSettings", catalogue: "Mapping[str, CatalogueModel]", count: int) -> "list[str]":
    """Those of the configuration, then what programmers use most, then the best benchmarks, then the rest."""
    from adw_modules.catalogue import BOOTSTRAP_FALLBACK_MODELS, exclusion
    from coordinator.clock import utc_now

    today = utc_now().date()
    candidates = [model for model in catalogue.values() if exclusion(model, today) is None]
    scored = [model for model in candidates if model.benchmarks.coding_index is not None]
    scored.sort(key=lambda model: (-(model.benchmarks.coding_index or 0), model.model_id))
    names = [
        *_configured(loaded.settings),
        *_ranked(loaded, candidates),
        *(model.model_id for model in scored),
        *(name for name in BOOTSTRAP_FALLBACK_MODELS if name in catalogue or not candidates),
    ]
    return list(dict.fromkeys([*names, *(model.model_id for model in candidates)]))[:count]


def _configured(settings: "Settings") -> "list[str]":
    """Every model that the configuration sends to OpenRouter."""
    from coordinator.catalogue import openrouter_providers

    ours = set(openrouter_providers(settings))
    default = settings.routing.default_provider or settings.llm.provider
    default_model = settings.routing.default_model or settings.llm.model_default
    named = [(default, default_model)]
    named += [(rule.provider or default, rule.model or default_model) for rule in settings.routing.rules]
    named += [(model.provider, model.name) for model in settings.models]
    return [model for provider, model in named if provider in ours]


def _ranked(loaded: "LoadedSettings", candidates: "Sequence[CatalogueModel]") -> "list[str]":
    """The programming rankings of the last research, as ids of the catalogue."""
    from adw_modules.errors import CoordinatorError
    from coordinator.cli.common import has_state, reading

    if not has_state(loaded):
        return []
    try:
        with reading(loaded) as store:
            records = store.latest_research()
    except CoordinatorError:
        return []  # a monitor has other things to say than what is wrong with the store
    rows = next((each.data for each in records if each.source == "rankings:programming" and each.data), [])
    by_slug = {model.canonical_slug: model.model_id for model in candidates if ":" not in model.model_id}
    return [by_slug[row["model"]] for row in rows if row["model"] in by_slug]


# --- how it is shown ----------------------------------------------------------------------------


def as_text(report: "Mapping[str, Any]") -> str:
    lines = [f"✓ {report['base_url']} answers: {report['catalogue_models']} models"]
    key = report["key"]
    if key is not None:
        left = key["limit_remaining"]
        lines.append(f"✓ key {key['label'] or ''}: {'no limit' if left is None else f'${left} left'}")
    width = max([5, *(len(model["model"]) for model in report["models"])])
    lines += [_line(model, width) for model in report["models"]]
    fine = sum(model["ok"] for model in report["models"])
    lines.append(f"{len(report['models'])} models: {fine} fine, {len(report['models']) - fine} failed.")
    return "\n".join(lines)


def _line(model: "Mapping[str, Any]", width: int) -> str:
    cells = [f"{'✓' if model['ok'] else '✗'} {model['model']:<{width}}"]
    if model["endpoints"] is not None:
        uptime = "" if model["uptime"] is None else f", uptime {model['uptime']:.1f} %"
        cells.append(f"{model['well']}/{model['endpoints']} endpoints{uptime}")
    if model.get("ping_ms") is not None:
        cells.append(f"ping {model['ping_ms']} ms")
    cells += model["problems"]
    if model.get("ping_problem"):
        cells.append(f"ping: {model['ping_problem']}")
    if not model["listed"]:
        cells.append("not in the catalogue")
    return "  ".join(cells)


if __name__ == "__main__":
    _bootstrap.run(main, needs="typer")
    sys.exit(_exit.code)
