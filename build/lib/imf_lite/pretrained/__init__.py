"""Trained networks: files of our own and of the authors, export to ONNX, and what ships with the package.

May import: the method, networks, data, system. Knows nothing of training, evaluation or the command line.
"""
