"""Reading and writing files that are either whole or not there.

Everything is written to a temporary file, brought to the disk and renamed. Tensors are safetensors with a
SHA-256 of all contents in the header: never pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


class DamagedFileError(RuntimeError):
    """A file whose contents cannot be trusted; the message says what to do."""

    def __init__(self, path: Path, reason: str, remedy: str = ""):
        super().__init__(f"{path} is damaged ({reason}). Delete it{remedy}, then run the same command.")
        self.path, self.reason = path, reason


def write_tensors(path: Path, tensors: dict[str, Tensor], counters: dict[str, int] | None = None) -> None:
    """Write tensors and counters as one checked safetensors file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps(counters or {})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"counters": text, "sha256": digest(tensors, text)})
    replace(temporary, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors and counters of a file that `write_tensors` made. Raises DamagedFileError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors raises its own, OSError, or UnicodeDecodeError: all mean the same
        raise DamagedFileError(path, str(error)) from error
    if digest(tensors, header.get("counters", "")) != header.get("sha256"):
        raise DamagedFileError(path, "its contents do not match its SHA-256")
    return tensors, json.loads(header["counters"])


def digest(tensors: dict[str, Tensor], counters: str = "") -> str:
    """SHA-256 over counters, names, dtypes, shapes and values."""
    sha = hashlib.sha256(counters.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
    return sha.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    replace(temporary, path)


def replace(temporary: Path, path: Path) -> None:
    """Make a finished file visible under its name: first bring it to the disk, then rename it."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
