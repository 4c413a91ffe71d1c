"""`coordinator route`: why a task goes where it goes, and what is wrong with the rules."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coordinator.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, print_json

if TYPE_CHECKING:
    from adw_modules.config import Settings
    from adw_modules.providers import ProviderManager
    from adw_modules.routing import ModelRouter, NoRoute, Resolver, RoutingDecision
    from adw_modules.routing.chains import Listing
    from adw_modules.routing.circuits import Circuits, Live
    from adw_modules.routing.rates import Window
    from adw_modules.tasks.model import Run, Task
    from coordinator.budgeting import Gate
    from coordinator.settings import LoadedSettings
    from coordinator.store import DecisionRecord, Store

route = typer.Typer(help="Look at routing rules and decisions.", no_args_is_help=True)

_TIMES = ("%H:%M", "%H:%M:%S")


def register(app: typer.Typer) -> None:
    from coordinator.cli.replay import replay

    route.command()(replay)
    app.add_typer(route, name="route")


@route.command()
def explain(
    issue: Annotated[
        str | None, typer.Argument(help="12, gh-12 or owner/name#12", show_default=False)
    ] = None,
    attrs: Annotated[
        str | None,
        typer.Option("--attrs", help='A task as JSON, such as \'{"priority": "high", "task.id": "gh-10"}\'.'),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Decide as at that time: 22:30 or 2026-03-29T02:30."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show each rule and why it matched or not, each target and why not, and the decision."""
    from coordinator.clock import utc_now

    if (issue is None) is (attrs is None):
        raise typer.BadParameter("give either an ISSUE or --attrs", param_hint="ISSUE")
    if issue is None:
        facts = _of_attributes(_attributes(attrs or ""), config, at, utc_now())
    else:
        facts = _of_issue(issue, config, at, utc_now())
    if as_json:
        print_json(facts)
    else:
        _print(facts)


@route.command("lint")
def find_mistakes(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Find rules that can never be chosen, and targets that cannot run. Exit code 1 if there are any."""
    from adw_modules.routing import ModelRouter
    from adw_modules.routing.lint import lint
    from coordinator.cli.common import settings_source

    loaded = settings_source(config).current
    providers = _providers(loaded)
    router = ModelRouter(loaded.settings)
    found = lint(router, lambda name: providers.availability(name).reason)
    if as_json:
        print_json(
            {"config": str(config), "rules": len(router.rules), "findings": [asdict(f) for f in found]}
        )
    else:
        for finding in found:
            _marked("✗", "red", f"{finding.kind}: {finding.text}.")
        if not found:
            rules = f"{len(router.rules)} rule{'' if len(router.rules) == 1 else 's'}"
            typer.echo(f"{config}: nothing is wrong with the {rules} and their targets.")
    if found:
        raise typer.Exit(1)


# --- what is explained --------------------------------------------------------------------------


def _of_attributes(
    attributes: Mapping[str, Any], config: Any, at: str | None, now: datetime
) -> dict[str, Any]:
    from coordinator.cli.common import settings_source

    loaded = settings_source(config).current
    moment = _moment(at, loaded.settings, now)
    with _maybe_reading(loaded) as store:
        return {"task": None, "runs": [], "now": _decided(loaded, attributes, moment, store=store)}


@contextmanager
def _maybe_reading(loaded: LoadedSettings) -> Iterator[Store | None]:
    """The store where it is needed and there, for selections and the catalogue; other rules do without."""
    from adw_modules.routing.market import listing_providers
    from adw_modules.routing.picking import selections
    from coordinator.cli.common import has_state, reading

    is_needed = selections(loaded.settings) or listing_providers(loaded.settings)
    if not is_needed or not has_state(loaded):
        yield None
        return
    with reading(loaded) as store:
        yield store


def _of_issue(issue: str, config: Any, at: str | None, now: datetime) -> dict[str, Any]:
    from adw_modules.tasks.planning import attributes
    from coordinator.breakers import recent_windows
    from coordinator.budgeting import gate_of
    from coordinator.cli.common import find_task, reading, settings_in_force
    from coordinator.planner import working_context

    loaded = settings_in_force(config).loaded
    settings = loaded.settings
    moment = _moment(at, settings, now)
    with reading(loaded) as store:
        task = find_task(store, issue)
        runs = [_recorded(run, store.decision_of(run.run_id)) for run in store.runs_of(task.task_id)]
        live, circuits, gate = _live_without(store, task), store.circuits(), gate_of(store, settings, moment)
        asked = attributes(
            task,
            settings.github.status_label_prefix,
            override_labels=settings.routing.override_labels,
            working_context=working_context(settings),
            now=moment,
        )
        if gate is not None:
            asked["budget_left"] = gate.left(task)
        windows = recent_windows(store, moment)
        decided = _decided(
            loaded,
            asked,
            moment,
            task=task,
            live=live,
            circuits=circuits,
            windows=windows,
            store=store,
            gate=gate,
        )
    return {"task": task.name, "runs": runs, "now": decided}


def _live_without(store: Store, task: Task) -> list[Live]:
    """The live runs but for the task's own: it would have to end before another decision."""
    from adw_modules.routing.circuits import Live

    runs = [run for other, run in store.open_runs() if other.task_id != task.task_id]
    return [Live(run.provider, run.model, run.claimed_at) for run in runs]


def _recorded(run: Run, decision: DecisionRecord | None) -> dict[str, Any]:
    return {
        "run": run.token,
        "attempt": run.attempt,
        "at": run.claimed_at,
        "provider": run.provider,
        "model": run.model,
        "rule": run.rule,
        "reason": decision.reason if decision else "",
        "config_version": run.config_version,
        "rules": decision.rules if decision else [],
        "targets": decision.targets if decision else [],
        "selected": decision.selected if decision else [],
        "workflow": decision.workflow if decision else None,
        "attrs": decision.attrs if decision else None,
    }


def _decided(
    loaded: LoadedSettings,
    attributes: Mapping[str, Any],
    at: datetime,
    *,
    task: Task | None = None,
    live: Sequence[Live] = (),
    circuits: Circuits | None = None,
    windows: Mapping[str, Window] | None = None,
    store: Store | None = None,
    gate: Gate | None = None,
) -> dict[str, Any]:
    """The decision with all that led to it, as data."""
    from adw_modules.routing import ModelRouter, RoutingDecision
    from adw_modules.tasks.planning import Supply, eligibility
    from coordinator.planner import estimate_for, limits_of, statuses_of
    from coordinator.selecting import listing_of, picker_of

    providers, known = _providers(loaded), circuits or {}
    picker = picker_of(loaded.settings, store, lambda: at)
    resolvers, listing = picker.resolvers, listing_of(loaded.settings, store)
    router = ModelRouter(
        loaded.settings,
        providers=providers,
        now=lambda: at,
        statuses=lambda: statuses_of(router, providers, known, at),
        resolvers=resolvers,
        listing=listing,
    )
    checks = (gate.checker,) if gate else ()
    supply = Supply(
        circuits=known, windows=windows or {}, context_window=router.chains.context_window, checks=checks
    )
    eligible = eligibility(task, live, limits=limits_of(loaded.settings), supply=supply, now=at)
    estimate = estimate_for(router, picker, at)
    if task is not None and estimate is not None:
        attributes = {**attributes, "estimated_tokens": estimate(attributes)}
    decision = router.decide(attributes, eligible)
    facts = {
        "at": at.astimezone(UTC).astimezone(router.timezone),  # through UTC: some local times never come
        "config_version": loaded.version,
        "enabled": router.enabled,
        "attrs": dict(decision.known),
        "rules": [asdict(tried) for tried in decision.trace],
        "not_asked": [rule.name for rule in router.rules[len(decision.trace) :]],
        "targets": [asdict(target) for target in decision.targets],
        "selected": list(decision.selected),
        "workflow": _workflow(decision),
        "line": _headline(decision),
        "attrs_line": decision.attrs_line if isinstance(decision, RoutingDecision) else None,
        "reason": decision.reason,
        "if_enabled": None
        if router.enabled
        else _headline(_enabled(loaded, at, resolvers, listing).decide(attributes, eligible)),
    }
    chosen = ("provider", "model", "rule")
    return {**{name: getattr(decision, name, None) for name in chosen}, **facts}


def _workflow(decision: RoutingDecision | NoRoute) -> dict[str, Any] | None:
    workflow = getattr(decision, "workflow", None)
    return workflow.stored() if workflow else None


def _enabled(
    loaded: LoadedSettings, at: datetime, resolvers: Mapping[str, Resolver], listing: Listing | None
) -> ModelRouter:
    from adw_modules.routing import ModelRouter

    return ModelRouter(
        loaded.settings,
        providers=_providers(loaded),
        now=lambda: at,
        enabled=True,
        resolvers=resolvers,
        listing=listing,
    )


def _headline(decision: RoutingDecision | NoRoute) -> str:
    from adw_modules.routing import NoRoute

    if isinstance(decision, NoRoute):
        return f"✗ No target can be used: {decision.reason}"
    return decision.log_line


def _providers(loaded: LoadedSettings) -> ProviderManager:
    """With an installed service's environment where there is one: that is what its runs get."""
    from adw_modules.providers import ProviderManager
    from coordinator.cli.service import installed

    service = installed.find(loaded, pid=None)
    environ = {**os.environ, **((service.environ or {}) if service else {})}
    return ProviderManager(loaded.settings, environ=environ, project_root=loaded.project_root)


# --- reading the options ------------------------------------------------------------------------


def _attributes(text: str) -> dict[str, Any]:
    """The task of `--attrs`; `"task.id": …` is short for a table in it."""
    try:
        written = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is no JSON: {error}", param_hint="--attrs") from None
    if not isinstance(written, dict):
        raise typer.BadParameter('it has to be an object, such as {"priority": "high"}', param_hint="--attrs")
    found: dict[str, Any] = {}
    for name, value in written.items():
        whole, _, part = name.partition(".")
        if part and isinstance(found.setdefault(whole, {}), dict):
            found[whole][part] = value
        else:
            found[name] = value
    _refuse_unknown(found)
    return found


def _refuse_unknown(attributes: Mapping[str, Any]) -> None:
    from adw_modules.routing.attributes import suggestion
    from adw_modules.routing.vocabulary import ATTRIBUTES, TASK_FIELDS

    for name in attributes:
        if name not in ATTRIBUTES:
            raise typer.BadParameter(
                f'there is no attribute "{name}"; {suggestion(name, ATTRIBUTES)}', param_hint="--attrs"
            )
    task = attributes.get("task", {})
    for name in task if isinstance(task, dict) else ():
        if name not in TASK_FIELDS:
            raise typer.BadParameter(
                f'task has no "{name}"; {suggestion(name, TASK_FIELDS)}', param_hint="--attrs"
            )


def _moment(at: str | None, settings: Settings, now: datetime) -> datetime:
    """The time that is asked for; without a zone of its own in that of the configuration."""
    from adw_modules.routing import zone_of

    if at is None:
        return now
    zone = zone_of(settings.coordinator.timezone)
    for form in _TIMES:
        try:
            clock = datetime.strptime(at, form)  # noqa: DTZ007  the zone follows
        except ValueError:
            continue
        return datetime.combine(now.astimezone(zone).date(), clock.time(), tzinfo=zone)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise typer.BadParameter(
            f"{at!r} is not a time such as 22:30 or 2026-03-29T02:30", param_hint="--at"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


# --- printing -----------------------------------------------------------------------------------


def _print(facts: Mapping[str, Any]) -> None:
    for run in facts["runs"]:
        _print_run(run)
    now = facts["now"]
    if facts["task"]:
        typer.secho(f"{facts['task']} decided now", bold=True)
    typer.echo(f"  {now['at']:%a %Y-%m-%d %H:%M %Z}, configuration {now['config_version']}")
    _print_attributes(now["attrs"])
    _print_rules(now["rules"], now["not_asked"])
    _print_selected(now["selected"])
    _print_targets(now["targets"])
    _print_workflow(now["workflow"])
    _line(now["line"])
    if now["attrs_line"]:
        _line(now["attrs_line"])
    _line(f"  Reason: {now['reason']}")
    if now["if_enabled"]:
        _line(f"With routing.enabled = true: {now['if_enabled']}")


def _print_run(run: Mapping[str, Any]) -> None:
    rule = f"rule {run['rule']}" if run["rule"] else "the defaults"
    typer.secho(f"Run {run['run']}, attempt {run['attempt']}", bold=True)
    _line(f"  {run['at']:%a %Y-%m-%d %H:%M:%S %Z}, configuration {run['config_version']}")
    if run["attrs"] is not None:
        _print_attributes(run["attrs"])
    _print_rules(run["rules"], [])
    _print_selected(run["selected"])
    _print_targets(run["targets"])
    _print_workflow(run["workflow"])
    _line(f"  → {run['provider']}/{run['model']} by {rule}: {run['reason']}")
    typer.echo()


def _print_attributes(attributes: Mapping[str, Any]) -> None:
    from adw_modules.routing.attributes import show

    typer.echo("Attributes:")
    for name, value in attributes.items():
        if value is not None:
            _line(f"  {name:<18} {show(value)}")


def _print_rules(rules: Sequence[Mapping[str, Any]], not_asked: Sequence[str]) -> None:
    typer.echo("Rules, in the order they are tried:")
    for tried in rules:
        is_passed_over = tried["why"].startswith("passed over")
        mark, colour = (
            ("✗", "red") if not tried["matched"] else ("!", "yellow") if is_passed_over else ("✓", "green")
        )
        _marked(mark, colour, f"{tried['rule']}: {tried['why']}")
    for name in not_asked:
        _line(f"  · {name}: not asked")
    if not rules and not not_asked:
        typer.echo("  (none)")


def _print_selected(selected: Sequence[Mapping[str, Any]]) -> None:
    """What each selection compared, best first, and what it left out."""
    for each in selected:
        why = each["why"]
        if not isinstance(why, dict):
            _line(f"Selected {each['select']}: {why}")
            continue
        _line(f"Selected {each['select']}{' to learn' if why.get('explores') else ''}:")
        for place, candidate in enumerate(why["candidates"], start=1):
            _line(f"  {place}. {_candidate(candidate)}")
        if why["further"]:
            _line(f"  and {why['further']} further")
        for left_out in why["left_out"]:
            more = ", …" if left_out["count"] > len(left_out["such_as"]) else ""
            _line(
                f"  left out {left_out['count']}, {left_out['why']}: {', '.join(left_out['such_as'])}{more}"
            )


def _candidate(facts: Mapping[str, Any]) -> str:
    cost = f"${facts['expected_cost']}" if facts["expected_cost"] is not None else "unknown cost"
    text = f"{facts['target']}: {cost} expected ({facts['by']})"
    if "score" not in facts:
        return text
    judged = f"chance {facts['chance']:.0%}, {facts['hours']:.2f} h, score {facts['score']:.2f}"
    return f"{text}; {judged}, by {facts['samples']} of {facts['class']}"


def _print_workflow(workflow: Mapping[str, Any] | None) -> None:
    if workflow:
        left_out = f"; nobody does {', '.join(workflow['left_out'])}" if workflow["left_out"] else ""
        prompt = f"prompt template {workflow['prompt']}"
        _line(f"Workflow {workflow['name']}: stage {workflow['stage']}, {prompt}{left_out}")


def _print_targets(targets: Sequence[Mapping[str, Any]]) -> None:
    if targets:
        typer.echo("Targets:")
    for target in targets:
        if target["eligible"] is None:
            _line(f"  · {target['target']}: not asked")
            continue
        mark, colour = ("✓", "green") if target["eligible"] else ("✗", "red")
        until = f" (until {target['until']})" if target.get("until") else ""
        _marked(mark, colour, f"{target['target']}: {target['why'] or 'eligible'}{until}")


def _line(text: str) -> None:
    """Titles and labels are other people's: nothing in them may steer the terminal."""
    from coordinator.logs import printable

    typer.echo(printable(text))


def _marked(mark: str, colour: str, text: str) -> None:
    typer.echo(f"  {typer.style(mark, fg=colour)} ", nl=False)
    _line(text)
