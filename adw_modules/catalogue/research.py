"""What the weekly research asks OpenRouter, and what of the answers is kept.

Owns the list of questions and the reading of the answers, which is as tolerant as that of the catalogue.
Tokens and shares are those of everybody who uses OpenRouter: interest, not quality.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from adw_modules.catalogue.model import CatalogueModel

# The categories by which OpenRouter sorts requests, as its interface spells them.
CATEGORIES = (
    "programming",
    "roleplay",
    "marketing",
    "marketing/seo",
    "technology",
    "science",
    "translation",
    "legal",
    "finance",
    "health",
    "trivia",
    "academia",
)
KEPT = 50  # of each list
CAPABILITY_MATRIX = "capabilities"  # made of the catalogue, not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request of the research; `source` is what the answer is stored under."""

    source: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)


def questions() -> list[Question]:
    """All of one research: 16 requests, of 30 a minute and 500 a day that a key has."""
    rankings = "/datasets/rankings-daily"
    return [
        Question(source="rankings", path=rankings, params={"period": "week"}),
        Question(
            source="rankings:tool_calling",
            path=rankings,
            params={"period": "week", "modality": "tool_calling"},
        ),
        *(
            Question(source=f"rankings:{name}", path=rankings, params={"period": "week", "category": name})
            for name in CATEGORIES
        ),
        Question(source="benchmarks", path="/benchmarks"),
        Question(source="tasks", path="/classifications/task", params={"window": "7d"}),
    ]


def digest(question: Question, answer: Any) -> list[dict[str, str]] | None:
    """What is kept of an answer, best first; None when nothing in it can be used."""
    data = answer.get("data") if isinstance(answer, Mapping) else None
    if question.source == "tasks":
        rows = data.get("classifications") if isinstance(data, Mapping) else None
        return [each for row in _rows(rows) for each in _task(row)] or None
    read = _benchmark if question.source == "benchmarks" else _ranked
    return read(_rows(data))[:KEPT] or None


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _ranked(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Tokens of each model over the days of the answer."""
    tokens: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        model, count = row.get("model_permaslug"), _number(row.get("total_tokens"))
        if isinstance(model, str) and model != "other" and count is not None:
            tokens[model] += count
    ordered = sorted(tokens.items(), key=lambda each: (-each[1], each[0]))
    return [{"model": model, "tokens": format(count, "f")} for model, count in ordered]


def _benchmark(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    found = []
    for row in rows:
        model, scores = row.get("model_permaslug"), {}
        for key in ("intelligence_index", "coding_index", "agentic_index", "score", "elo"):
            score = _number(row.get(key))
            if score is not None:
                scores[key] = format(score, "f")
        if isinstance(model, str) and scores:
            found.append({"model": model, "source": str(row.get("source", "")), **scores})
    return sorted(found, key=lambda each: (-Decimal(each.get("coding_index", "0")), each["model"]))


def _task(row: Mapping[str, Any]) -> list[dict[str, str]]:
    tag = row.get("tag")
    if not isinstance(tag, str):
        return []
    found = []
    for each in _rows(row.get("models"))[:10]:
        model, share = each.get("id"), _number(each.get("tag_usage_share"))
        if isinstance(model, str) and share is not None:
            found.append({"task": tag, "model": model, "share": format(share, "f")})
    return found


def capability_matrix(models: Iterable[CatalogueModel]) -> dict[str, list[str]]:
    """Which model can do what."""
    return {model.model_id: list(model.capabilities.names) for model in models}


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value)[:40])
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 30 else None
