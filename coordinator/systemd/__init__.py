"""Everything that knows how systemd is spoken to: its journal, its service manager, and its unit files.

Works without it as well: nothing here is needed unless the daemon runs as a service or starts runs as units.
"""
