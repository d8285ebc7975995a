"""Ranks that start warm: forked from a process that has imported torch and the project already.

A fresh interpreter takes seconds to import them, and the tests of several ranks start dozens.
"""

import os
import runpy
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
WHERE = os.pathsep.join([str(HERE), str(HERE.parent)])
"""where the server finds what it is to import: Python 3.11 does not hand it sys.path"""
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["rank", "torch._dynamo"])


def job(env: dict[str, str], said: str, args: tuple[str, ...]) -> None:
    """In the child: what tests/rank.py is told to do, in this environment, with its messages in a file."""
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(said, os.O_WRONLY), 2)
    sys.argv = ["rank.py", *args]
    runpy.run_module("rank", run_name="__main__")


class Rank:
    """A process with those parts of subprocess.Popen that the tests use."""

    def __init__(self, env: dict[str, str], args: tuple[str, ...]):
        file, self.said = tempfile.mkstemp()
        os.close(file)
        self.process = CONTEXT.Process(target=job, args=(env, self.said, args))
        with mock.patch.dict(os.environ, PYTHONPATH=WHERE):  # the first start starts the server, too
            self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"the process still runs after {timeout} s; it says: {Path(self.said).read_text()}")
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        said = Path(self.said).read_text()
        Path(self.said).unlink()
        return None, said

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        Path(self.said).unlink(missing_ok=True)
