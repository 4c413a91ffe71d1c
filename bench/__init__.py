"""Measurements as ratios within one run: `make bench` writes bench/RESULTS.md."""
