"""Start a command on several ranks from a notebook, and follow what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile


def launch(ranks: int, *arguments: object) -> Iterator[str]:
    """Run `imf-lite ARGUMENTS` on `ranks` processes of this machine by torchrun, yielding lines as they come.

    Stopping to listen stops the command. Raises RuntimeError with its last lines if it fails.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "--", "imf_lite.cli", *map(str, arguments)]  # --: torchrun would take --run for its own
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last: list[str] = []
    try:
        for line in process.stdout:  # text mode: a progress bar's carriage returns end lines, too
            last = [*last[-200:], line.rstrip()]
            yield last[-1]
        if process.wait():
            said = takewhile(lambda line: "torch/distributed" not in line, last)  # then torchrun speaks of itself
            raise RuntimeError("\n".join([f"`imf-lite {' '.join(map(str, arguments))}` failed:", *said]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
