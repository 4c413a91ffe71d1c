"""Our own `tools/openrouter-cli.py`: an agent on OpenRouter that prints what Claude Code prints.

Owns its command. Its records are Claude's and are read as such; the one difference is that its
`total_cost_usd` is what OpenRouter charged, not a price list's estimate.
"""

from __future__ import annotations

from adw_modules.agents.claude import ClaudeStream
from adw_modules.agents.dialect import Dialect

DIALECT = Dialect(
    name="openrouter-cli",
    parser=ClaudeStream,
    programs=("openrouter-cli.py", "openrouter-cli"),
    template=(
        "tools/openrouter-cli.py",
        "-p",
        "{prompt_file}",
        "--model",
        "{model}",
        "--output-file",
        "{output_file}",
        "--output-format",
        "stream-json",
    ),
    max_cost="--max-cost",
    max_tokens="--max-tokens",
    reports_charge=True,
)
