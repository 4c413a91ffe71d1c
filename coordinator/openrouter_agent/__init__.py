"""The agent behind tools/openrouter-cli.py: a model of OpenRouter that works in one directory with tools.

It is a program of its own that the daemon starts like any other agent; nothing of the daemon is used here
and the daemon imports nothing from here. Start at `command.py`. Its start is measured, so heavy imports
wait until the first request.
"""
