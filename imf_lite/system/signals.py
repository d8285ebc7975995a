"""Stopping politely: the first signal lets the running update finish and be saved, a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
"""what asks a run to stop. SIGHUP: its terminal was closed. SIGUSR1: SLURM sends it ahead of the time limit, if asked
to by `--signal=USR1@120`"""
EXIT_CODE = 75
"""of a command that stopped because it was asked to: EX_TEMPFAIL, try again later"""


class StopRequest:
    """Whether a stop was requested (call it), and the name of the signal that did."""

    name: str | None = None

    def __call__(self) -> bool:
        return self.name is not None


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Inside, a signal is noted instead of ending the process. Signals are as before afterwards."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for name in SIGNALS if (number := getattr(signal, name, None))}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
