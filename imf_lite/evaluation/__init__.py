"""Evaluation: FID, KID, precision and recall, classifiers as feature extractors, evaluators, search over guidance.

May import: the method, networks, data, system. Does not use training or the command line.
"""
