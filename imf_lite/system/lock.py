"""A lock on a folder, so that two processes never write to one run, one table or one cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`/.lock, a file that exists while the lock is held: it works on network file systems, too.

    A lock whose process is gone from this machine is taken over. Raises ValueError saying who holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = SoftFileLock(path, timeout=3.0)  # an empty one, of a process killed meanwhile, is taken over after two
    try:
        lock.acquire()
    except Timeout as error:
        holder = path.read_text().split() if path.exists() else []
        who = f"process {holder[0]} on {holder[1]}" if len(holder) > 1 else "another process"
        raise ValueError(
            f"{folder} is being written by {who}: wait until it has finished, or choose another folder. If that "
            f"process no longer exists, delete {path}."
        ) from error
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error}): choose another folder.") from error
    try:
        yield
    finally:
        lock.release()
