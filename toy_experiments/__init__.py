"""Experiments small enough for a laptop, and the results that the lessons and CLAIMS.md are made of.

ground_truth: point sets, exact fields, distances. experiments: one file per command. figures: how they are drawn.
results: what the commands wrote. exercises: checks of what readers of the lessons fill in. report: CLAIMS.md and the
README's table, made from the results.
"""
