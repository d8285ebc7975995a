"""Evaluation: FID, KID, precision and recall, classifiers as feature extractors, evaluators, search over guidance.

May import: the method, networks, data, system. Knows nothing of training or the command line.
"""
