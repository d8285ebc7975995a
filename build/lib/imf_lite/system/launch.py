"""Start an imf-lite command on several ranks from a notebook, and follow its output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile


def launch(ranks: int, *arguments: object) -> Iterator[str]:
    """Run `imf-lite ARGUMENTS` on `ranks` processes of this machine by torchrun, yielding lines as they come.

    Closing the iterator stops the command. Raises RuntimeError with its last lines if it fails.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "--", "imf_lite.cli", *map(str, arguments)]  # --: torchrun would take --run for its own
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    tail: list[str] = []
    try:
        for line in process.stdout or ():  # text mode: a progress bar's carriage returns end lines, too
            tail = [*tail[-200:], line.rstrip()]
            yield tail[-1]
        if process.wait():
            output = takewhile(lambda line: "torch/distributed" not in line, tail)  # then torchrun speaks of itself
            raise RuntimeError("\n".join([f"`imf-lite {' '.join(map(str, arguments))}` failed:", *output]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
