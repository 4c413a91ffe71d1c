#!/usr/bin/env python3
"""Print the states of a task and the moves between them as a Mermaid diagram."""

import argparse

import _bootstrap


def main() -> str:
    from adw_modules.tasks.lifecycle import diagram

    argparse.ArgumentParser(description=__doc__).parse_args()
    return diagram()


if __name__ == "__main__":
    _bootstrap.run(main)
