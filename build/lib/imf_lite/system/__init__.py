"""What a run asks of the machine: files, paths, devices, processes, streams of random numbers.

May import: configs, and nothing else of the project.
"""
