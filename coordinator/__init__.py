"""The daemon: everything that touches the world. Start at `daemon.py`."""
