"""OpenRouter for programs: chat completions with tools, prices as charged, preferences among its providers.

Owns the wire to one service: what is sent, how every answer is read, and one exception for each way to fail.
Must not know tasks, runs or the store, must not read the environment or a clock, and imports nothing
heavy here: a command line starts in a fraction of a second. `client.py` is the client, `provider.py` its
short form.
"""
