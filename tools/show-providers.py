#!/usr/bin/env python3
"""Show the configured providers, and why those that cannot be used cannot."""

import json
import os
from typing import TYPE_CHECKING

import _bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adw_modules.providers import Availability
    from adw_modules.routing import Target

RULER = "=" * 70


def main() -> str:
    from adw_modules.providers import ProviderManager
    from adw_modules.routing import ModelRouter
    from coordinator.settings import SettingsSource

    args = _bootstrap.options(__doc__).parse_args()
    loaded = SettingsSource(args.config).current
    providers = ProviderManager(loaded.settings, environ=os.environ, project_root=loaded.project_root)
    default = ModelRouter(loaded.settings).default
    statuses = {name: providers.availability(name) for name in providers.names}
    return as_json(statuses, default) if args.json else as_text(statuses, default)


def as_text(statuses: "Mapping[str, Availability]", default: "Target") -> str:
    available = [f"  ✓ {name}" for name, status in statuses.items() if status.available]
    lines = [
        "",
        RULER,
        "🔌 Configured AI Providers",
        RULER,
        "",
        "Provider Status:",
        *([_line(name, status) for name, status in statuses.items()] or ["  (none configured)"]),
        "",
        RULER,
        "Available Providers:",
        *(available or ["  (none)"]),
        "",
        "Current default:",
        f"  Provider: {default.provider}",
        f"  Model: {default.model}",
        RULER,
    ]
    return "\n".join(lines)


def _line(name: str, status: "Availability") -> str:
    return f"  ✓ {name}" if status.available else f"  ✗ {name:<20} ({status.reason})"


def as_json(statuses: "Mapping[str, Availability]", default: "Target") -> str:
    facts = {
        "providers": [
            {"name": name, "available": s.available, "reason": s.reason, "program": s.program}
            for name, s in statuses.items()
        ],
        "available": [name for name, status in statuses.items() if status.available],
        "default": {"provider": default.provider, "model": default.model},
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    _bootstrap.run(main)
