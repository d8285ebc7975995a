"""The imf-lite command: prepare, train, sample, evaluate, search, export, compare, recipes, weights.

Each file holds a command's options (a dataclass) and the function that does its work. That function imports what
it needs only when it is called, so that help and usage errors appear at once. May import: everything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn, get_args

import tyro

from ..configs import Compile
from . import evaluate, export, prepare, sample, search, show, train

COMMANDS: dict[str, tuple[type, Callable[..., None]]] = {
    "prepare": (prepare.Prepare, prepare.prepare),
    "train": (train.Train, train.train),
    "sample": (sample.Sample, sample.sample),
    "evaluate": (evaluate.Evaluate, evaluate.evaluate),
    "search": (search.Search, search.search),
    "export": (export.Export, export.export),
    "compare": (show.Compare, show.compare),
    "recipes": (show.Recipes, show.recipes),
    "weights": (show.Weights, show.weights),
}
"""the options and the work of each command"""


SHOWN: set[str] = set()
"""warnings that were shown"""

USAGE, FAILED = 2, 1
"""exit codes: of a command that was mistyped, and of one that could not do its work"""


def main() -> None:
    """Parse the arguments and run the command. An error is one line that says what went wrong and what to do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ω shows a question mark
    if "" in (word.rpartition("=")[2] for word in sys.argv[1:]):
        usage("an argument is empty: is a variable of the shell not set?")
    options = parse()
    work = next(work for kind, work in COMMANDS.values() if type(options) is kind)
    with warnings.catch_warnings():
        warnings.showwarning = plainly
        try:
            work(options)
        except Exception as error:
            fail(error)
    if "torch" in sys.modules:
        from ..system.distributed import destroy

        destroy()


def parse() -> object:
    """The options of the command that was asked for. A mistake ends the process with one line and code 2."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return tyro.extras.subcommand_cli_from_dict(
                {name: options for name, (options, _) in COMMANDS.items()},
                args=with_auto(sys.argv[1:]),
                prog="imf-lite",
                description="One-step generation with MeanFlow and improved MeanFlow.",
                config=(tyro.conf.AvoidSubcommands, tyro.conf.CascadeSubcommandArgs),
            )
    except ValueError as error:  # of a recipe's own checks, which some versions of tyro pass on
        message = str(error)
    except SystemExit as stop:
        if not stop.code:
            raise
        message = one_line(output.getvalue())
    usage(message)


def with_auto(words: list[str]) -> list[str]:
    """The arguments with "auto" after every --compile that says nothing else."""
    said: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        said += [word, "auto"] if word == "--compile" and following not in get_args(Compile) else [word]
    return said


def usage(message: str) -> NoReturn:
    """End with one line about a command that was mistyped."""
    sys.stderr.write(f"imf-lite: {message} (imf-lite --help)\n")
    sys.exit(USAGE)


def plainly(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line, each text once."""
    text = " ".join(str(message).split())
    if text not in SHOWN:
        SHOWN.add(text)
        sys.stderr.write(f"imf-lite: warning: {text}\n")


def one_line(box: str) -> str:
    """The first two parts of tyro's box: what was wrong and what was perhaps meant, without the help text."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()[1:]]  # the first is its title
    parts = re.split(r"(?m)^[-─]+$", "\n".join(lines))
    message, *others = (" ".join(part.split()) for part in parts if part.strip())
    known = next((part for part in others if part.startswith(("Available", "Perhaps"))), "")
    return re.sub(r"Error parsing __tyro\S+ ", "", message) + (f". {known}" if known else "")


def fail(error: Exception) -> NoReturn:
    """End with one line about an error: the message of our own checks, or else where the traceback was saved."""
    from ..system import distributed
    from ..system.files import DamagedFileError
    from ..system.signals import EXIT_CODE
    from ..training import NonFiniteError, StoppedError
    from .options import UsageError

    if isinstance(error, UsageError):
        usage(" ".join(str(error).split()))
    code = EXIT_CODE if isinstance(error, StoppedError) else FAILED
    if isinstance(error, BrokenPipeError):  # nobody reads any more: imf-lite recipes | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        reason = " ".join(str(error).split())[:200]
        message = f"memory does not suffice ({reason}): use a smaller batch, more parts or a smaller network."
    elif isinstance(error, (ValueError, OSError, DamagedFileError, NonFiniteError, StoppedError)):
        message = " ".join(str(error).split())
    else:
        with tempfile.NamedTemporaryFile("w", prefix="imf-lite-", suffix=".txt", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        reason = " ".join(str(error).split())[:200]
        message = f"{type(error).__name__}: {reason}. This is a fault of imf_lite: please report it with {file.name}."
    distributed.abort(f"imf-lite: {message}", code)
    if code == FAILED:
        sys.exit(f"imf-lite: {message}")  # Python writes it to standard error, and exits with 1
    sys.stderr.write(f"imf-lite: {message}\n")
    sys.exit(code)
