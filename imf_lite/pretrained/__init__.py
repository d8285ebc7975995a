"""Trained networks: files of our own and of the authors, export to ONNX, and what ships with the package.

May import: the method, networks, data, system. Does not use training, evaluation or the command line.
"""
