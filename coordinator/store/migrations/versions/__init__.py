"""One file per schema revision. Each spells its tables out: it must not follow changes of `tables.py`."""
