"""Experiments, one file per command: `python -m toy_experiments.experiments.NAME`. May import: all but report."""
