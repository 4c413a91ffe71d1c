"""`[workflows.NAME]`: named ways to do a task, as far as a single run can follow them. Pure.

Owns which stage of a workflow a run does. A run does one stage: the only one there is, else the one that is
called `implement`. Must not choose targets: a stage says which halves of one it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adw_modules.routing.attributes import show, suggestion

WORK = "implement"  # of several stages, the one that does the work
TEMPLATE = "implement"  # the prompt template of every run that no stage says otherwise for


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """What a run does of a workflow. `left_out` names the stages that nobody does."""

    name: str
    stage: str
    provider: str | None
    model: str | None
    prompt: str
    left_out: tuple[str, ...]

    def stored(self) -> dict[str, Any]:
        """As it is kept with the decision, and shown."""
        return {**asdict(self), "left_out": list(self.left_out)}


def workflow_called(tables: Mapping[str, Any], name: str) -> Workflow | str:
    """The workflow of that name in any letters, or the sentence that says why no run can follow it."""
    written = tables.get("workflows") or {}
    known = next((each for each in written if each.casefold() == name.casefold()), None)
    if known is None:
        hint = suggestion(name, written) if written else "the configuration has none"
        return f"there is no [workflows.{name}]; {hint}"
    return _read(known, written[known])


def said(tables: Mapping[str, Any]) -> Iterator[str]:
    """What an operator should know of each workflow: the stages that are not run, or why none can be."""
    for name, table in (tables.get("workflows") or {}).items():
        found = _read(name, table)
        if isinstance(found, str):
            yield found
        elif found.left_out:
            yield (
                f"workflows.{name}: a task is one run, which does the stage {show(found.stage)}; "
                f"nobody does {', '.join(map(show, found.left_out))}."
            )


def _read(name: str, table: Mapping[str, Any]) -> Workflow | str:
    stages: Sequence[Mapping[str, Any]] = table.get("stages") or []
    works = stages if len(stages) == 1 else [each for each in stages if each["name"].casefold() == WORK]
    if len(works) != 1:
        why = f'has {len(stages)} stages, and not exactly one of them is called "{WORK}"'
        return f"workflows.{name}: no task can ask for it, because it {why if stages else 'has no stages'}."
    stage = works[0]
    return Workflow(
        name=name,
        stage=stage["name"],
        provider=stage.get("provider"),
        model=stage.get("model"),
        prompt=stage.get("prompt") or TEMPLATE,
        left_out=tuple(each["name"] for each in stages if each is not stage),
    )
