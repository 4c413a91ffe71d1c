#!/usr/bin/env python3
"""Work on a task with a model of OpenRouter, as other agent programs do; or just ask it (--tools none)."""

import sys

import _bootstrap


def main() -> int:
    from coordinator.openrouter_agent.command import main as agent

    return agent()


if __name__ == "__main__":
    try:
        _bootstrap.enter("httpx_sse")
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still loading: no run, so no result
        sys.exit(1)
