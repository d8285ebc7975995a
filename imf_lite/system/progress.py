"""Progress: a bar on a terminal, one line every half minute in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

INTERVAL = 30.0
"""seconds between two lines of a log"""


class Progress:
    """Progress towards `total`, written to standard error; `show` says whether this process writes at all."""

    def __init__(self, total: int, unit: str, title: str = "", show: bool = True):
        self.total, self.unit, self.title, self.show = total, unit, title, show
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, unit=unit, desc=title or None, disable=not (show and self.terminal))
        self.begun = self.last = time.monotonic()
        self.done = self.first = 0
        self.details: dict[str, object] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.bar.close()
        if self.show and not self.terminal and self.done > self.first and kind is None:
            self.line()

    def start_at(self, done: int) -> None:
        """What was done before this process began: it does not count for the rate."""
        self.done = self.first = self.bar.n = self.bar.initial = done

    def to(self, done: int, **details: object) -> None:
        """Report that `done` units are done; `details` are shown beside them."""
        self.bar.total = self.total
        self.bar.update(done - self.done)
        self.done, self.details = done, details
        self.bar.set_postfix(details, refresh=False)
        now = time.monotonic()
        if self.show and not self.terminal and now - self.last >= INTERVAL:
            self.last = now
            self.line()

    def add(self, count: int) -> None:
        """Report that `count` more units are done."""
        self.to(self.done + count, **self.details)

    def write(self, text: str) -> None:
        """A line of its own, which a bar does not overwrite."""
        if self.show:
            with contextlib.suppress(OSError, ValueError):
                tqdm.write(text, file=sys.stderr)

    def line(self) -> None:
        """One line: how much of it, the rate, the time left."""
        seconds = max(time.monotonic() - self.begun, 1e-9)
        rate = (self.done - self.first) / seconds
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        details = "".join(f", {k} {v:.4g}" if isinstance(v, float) else f", {k} {v}" for k, v in self.details.items())
        title = f"{self.title}: " if self.title else ""
        say(f"{title}{self.unit} {self.done:,} of {self.total:,}, {rate:.3g}/s, {left} left{details}", sys.stderr)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line. If nobody reads the output any more (`| head`, a closed terminal), work goes on without it."""
    with contextlib.suppress(OSError, ValueError):
        stream = stream or sys.stdout
        stream.write(f"{text}\n")
        stream.flush()
