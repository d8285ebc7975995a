"""Atomic reading and writing of files, with checksums: a file is whole or not there.

Everything is written to a temporary file, brought to the disk and renamed. Tensors are safetensors with a
SHA-256 of all contents in the header: never pickle.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class DamagedFileError(RuntimeError):
    """A file whose contents cannot be trusted; the message says what to do."""

    def __init__(self, path: Path, reason: str, remedy: str = ""):
        super().__init__(f"{path} is damaged ({reason}). Delete it{remedy}, then run the same command.")
        self.path, self.reason = path, reason


def write_tensors(path: Path, tensors: dict[str, Tensor], counters: dict[str, Any] | None = None) -> None:
    """Write tensors and counters (JSON) as one checked safetensors file, atomically. Raises OSError where it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps(counters or {})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        parts = json.dumps(
            {part: digest(of_part(tensors, part)) for part in sorted({part_of(name) for name in tensors})}
        )
        save_file(tensors, temporary, {"counters": text, "parts": parts, "sha256": digest({}, text + parts)})
        replace(temporary, path)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error}): make room, or choose another folder") from error


def part_of(name: str) -> str:
    """What stands before the first slash of a tensor's name, as in part/name; nothing where there is no slash."""
    return name.partition("/")[0] if "/" in name else ""


def of_part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part; in older files, a name without a slash is a part of its own."""
    return {name: tensor for name, tensor in tensors.items() if part in (part_of(name), name)}


def read_tensors(path: Path, part: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and counters of a file that `write_tensors` made; part: only the tensors of part/name, and no others are
    read (in older files, which have one checksum for all, all are).

    Raises DamagedFileError if it is damaged, ValueError for a whole safetensors file that something else wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            alone = part is not None and "parts" in header
            wanted = [k for k in file.keys() if not alone or part_of(k) == part]  # noqa: SIM118 (not a dict)
            tensors = {k: file.get_tensor(k) for k in wanted}
    except Exception as error:  # safetensors raises its own, OSError, or UnicodeDecodeError: all mean the same
        raise DamagedFileError(path, str(error)) from error
    if "sha256" not in header:
        raise ValueError(
            f"{path} is a whole safetensors file, but not of imf_lite: its header has no SHA-256 of the contents "
            f"(it holds {len(tensors)} tensors, such as {next(iter(tensors), 'none')!r})."
        )
    counters = header.get("counters", "")
    if "parts" in header:
        known = json.loads(header["parts"]) if digest({}, counters + header["parts"]) == header["sha256"] else {}
        found = {k: of_part(tensors, k) for k in known if not alone or k == part}
        covered = set().union(*found.values()) == tensors.keys()
        whole = bool(known) and covered and all(known[k] == digest(some) for k, some in found.items())
    else:
        whole = digest(tensors, counters) == header["sha256"]
    if not whole:
        raise DamagedFileError(path, "its contents do not match its SHA-256")
    return tensors if part is None else of_part(tensors, part), json.loads(counters)


def cached_tensors(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of a file in the cache folder; made and written first where there is none, or none that can be read."""
    if path.exists():
        try:
            return read_tensors(path)[0]
        except (DamagedFileError, ValueError) as error:
            reason = error.reason if isinstance(error, DamagedFileError) else error
            warnings.warn(f"{path} is damaged ({reason}): it is made again.", stacklevel=2)
    write_tensors(path, make())
    return read_tensors(path)[0]


def digest(tensors: dict[str, Tensor], counters: str = "") -> str:
    """SHA-256 over counters, names, dtypes, shapes and values."""
    sha = hashlib.sha256(counters.encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def short(described: dict[str, Any]) -> str:
    """Eight hexadecimal digits that stand for a description, which is JSON."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def read_json(path: Path, remedy: str = "", keys: Sequence[str] = ()) -> dict:
    """A JSON object of ours. Raises DamagedFileError for a file that is empty, cut short or lacks one of the keys."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedFileError(path, f"not JSON: {error}", remedy) from error
    if not isinstance(content, dict):
        raise DamagedFileError(path, f"a JSON {type(content).__name__}, not an object", remedy)
    if missing := [key for key in keys if key not in content]:
        raise DamagedFileError(path, f"it has no {missing[0]!r}", remedy)
    return content


def read_json_lines(path: Path, keys: Sequence[str] = ("step",)) -> list[dict]:
    """The JSON objects of a file of lines; [] where there is none. A line half written at the end is left out.

    A broken line elsewhere is left out, too, with a warning that names it.
    """
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
            if missing := [key for key in keys if key not in row]:
                raise ValueError(f"it has no {missing[0]!r}")
        except ValueError as error:
            if line.endswith("\n"):
                warnings.warn(f"{path}, line {number}, is broken ({error}): it is left out.", stacklevel=2)
            continue
        if line.endswith("\n"):
            rows.append(row)
    return rows


def read_pickled(path: Path) -> Any:
    """Load what torch.save wrote, but only tensors and plain containers, so that no file can run code.

    Raises FileNotFoundError, or ValueError for a file that is damaged or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # an unpickler fails in many ways: all mean the same
        reason = f"{type(error).__name__}: it is damaged, or holds Python objects, which are never loaded"
        raise ValueError(f"{path} cannot be read as a file of weights ({reason}).") from error


def read_csv(path: Path, text: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a CSV, with numbers as int or float and empty cells as None; [] where there is no file.

    text: columns that stay text, such as hashes, of which some look like numbers.
    """
    if not path.exists():
        return []
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]  # whole ones
    return [{k: v if k in text else number(v) for k, v in row.items()} for row in rows]


def number(text: str) -> str | int | float | None:
    """A cell as a number, if it is one; None where it is empty."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None


def write_csv(path: Path, rows: Sequence[dict[str, Any]], digits: int | None = 8) -> None:
    """Rows as CSV, atomically, each with every column that any of them has.

    digits: significant digits of floats; None: all, so that values are read back unchanged.
    """
    text, columns = io.StringIO(), list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    short = (lambda x: repr(x)) if digits is None else (lambda x: f"{x:.{digits}g}")
    writer.writerows({k: short(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    write_bytes(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder. Raises OSError, naming it, where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made ({error}): choose another place.") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically. Raises OSError, naming it, where it cannot be written."""
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error}): make room, or choose another place.") from error


def replace(temporary: Path, path: Path) -> None:
    """Make a finished file visible under its name: first flush it to the disk, then rename it."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot: the file is in place already
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
