"""Labels by which people ask for a target: `provider:NAME`, `model:NAME`. Pure.

Who put a label there, and whether that person may, is found out by intake. Must not choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adw_modules.tasks.model import Override

ATTRIBUTE = "override"  # where a decision finds it among the attributes; no rule can ask for it

Prefixes = Mapping[str, str]  # kind -> what its labels begin with; "" is none


def asking(labels: Iterable[str], prefixes: Prefixes) -> list[str]:
    """The labels that ask for something."""
    return [label for label in labels if _parsed(label, prefixes)]


def wanted(overrides: Iterable[Override], labels: Iterable[str], prefixes: Prefixes) -> dict[str, Any] | None:
    """What is asked for by labels that are still there; None when nobody asks.

    The first permitted label of each kind counts. `refused` names those that nobody permitted put there.
    """
    present = set(asking(labels, prefixes))
    found: dict[str, Any] = {"labels": [], "by": [], "refused": []}
    for override in overrides:
        kind, name = _parsed(override.label, prefixes) or ("", "")
        if override.label not in present or not kind:
            continue
        if not override.permitted:
            found["refused"].append(f"{override.label} (by {override.by or 'nobody known'})")
        elif kind not in found:
            found[kind] = name
            found["labels"].append(override.label)
            found["by"].append(override.by)
    return found if found["labels"] or found["refused"] else None


def _parsed(label: str, prefixes: Prefixes) -> tuple[str, str] | None:
    for kind, prefix in prefixes.items():
        if prefix and label.casefold().startswith(prefix.casefold()) and label[len(prefix) :].strip():
            return kind, label[len(prefix) :].strip()
    return None
