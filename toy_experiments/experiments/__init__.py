"""Experiments, one file per command: `python -m toy_experiments.experiments.NAME`; runs and trainings are shared.

May import: all but report.
"""
