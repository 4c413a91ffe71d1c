"""Whether this host can put workers into a sandbox: finds bubblewrap, and starts it once to see.

Must not build the view of a run (`sandbox.py`), nor start any agent.
"""

from __future__ import annotations
