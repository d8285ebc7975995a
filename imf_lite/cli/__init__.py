"""The imf-lite command: prepare, train, sample, evaluate, search, export, recipes, weights. One file a command.

A file holds the command's options, a dataclass, and the function that does the work and imports what it needs
only then, so that help and usage errors come at once. May import: everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import tyro

from . import evaluate, export, lists, prepare, sample, search, train

COMMANDS: dict[str, tuple[type, Callable[..., None]]] = {
    "prepare": (prepare.Prepare, prepare.prepare),
    "train": (train.Train, train.train),
    "sample": (sample.Sample, sample.sample),
    "evaluate": (evaluate.Evaluate, evaluate.evaluate),
    "search": (search.Search, search.search),
    "export": (export.Export, export.export),
    "recipes": (lists.Recipes, lists.recipes),
    "weights": (lists.Weights, lists.weights),
}
"""the options and the work of each command"""


def main() -> None:
    """Parse the arguments and run the command; errors that say what to do are printed without a traceback."""
    options = tyro.extras.subcommand_cli_from_dict(
        {name: options for name, (options, _) in COMMANDS.items()},
        prog="imf-lite",
        description="One-step generation with MeanFlow and improved MeanFlow.",
        config=(tyro.conf.AvoidSubcommands, tyro.conf.CascadeSubcommandArgs),
    )
    work = next(work for kind, work in COMMANDS.values() if type(options) is kind)
    from ..system import distributed
    from ..system.files import DamagedFileError
    from ..training import NonFiniteError

    try:
        work(options)
    except (ValueError, DamagedFileError, NonFiniteError) as error:
        distributed.abort(f"imf-lite: {error}")
        sys.exit(f"imf-lite: {error}")
    except Exception:
        distributed.abort()
        raise
    distributed.destroy()
