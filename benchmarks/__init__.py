"""Benchmarks: ratios measured in one run. `python -m benchmarks.NAME --help`. May import: everything."""
