"""Experiments, one file a command: `python -m toy_experiments.experiments.NAME`. May import: all but report."""
