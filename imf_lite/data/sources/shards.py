"""Images in parquet shards, as data sets are stored on the Hub: a column of encoded images and one of labels."""

from __future__ import annotations

import bisect
import io
import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from torch import Tensor

from ..images import read_image

IMAGES, LABELS = ("image", "img", "jpg"), ("label", "labels", "fine_label", "cls")


class ParquetShards:
    """Rows of parquet files, whose order is that of the files' names. Needs pyarrow (the `shards` extra).

    The class of a row is the number in its label column; the names are those that the files carry, if any. Without
    such a column the images have no classes.
    Raises ValueError for files without a column of images, or damaged ones.
    """

    def __init__(self, files: Sequence[Path], size: int = 256):
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError("parquet shards are read by pyarrow: `pip install 'imf-lite[shards]'`.") from error
        self.shape, self.size, self.paths = (3, size, size), size, list(files)
        try:
            self.files = [parquet.ParquetFile(path, memory_map=True) for path in files]
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{files[0].parent} holds a parquet file that cannot be read ({error}).") from error
        schema = self.files[0].schema_arrow
        self.image = next((name for name in IMAGES if name in schema.names), None)
        label = next((name for name in LABELS if name in schema.names), None)
        if self.image is None:
            raise ValueError(f"{files[0]} has columns {', '.join(schema.names)}: none is called {' or '.join(IMAGES)}.")
        self.groups = [(f, g) for f, file in enumerate(self.files) for g in range(file.num_row_groups)]
        self.ends = list(accumulate(self.files[f].metadata.row_group(g).num_rows for f, g in self.groups))
        self.labels = [-1] * len(self)
        if label is not None:
            cells = (k for file in self.files for k in file.read([label])[label].to_pylist())
            self.labels = [-1 if k is None else k for k in cells]
        top = max(self.labels, default=-1)
        names = label_names(schema.metadata or {}, label)
        self.classes = names if len(names) > top >= 0 else [str(k) for k in range(top + 1)]
        self.group = lru_cache(maxsize=2)(self.read_group)
        files_ = f"{files[0].name} to {files[-1].name}" if len(files) > 1 else files[0].name
        self.description = f"{files_}, {len(self)} rows, cropped to {size} as by ADM"

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        k = bisect.bisect_right(self.ends, i)
        cell = self.group(k)[i - (self.ends[k - 1] if k else 0)]
        content = cell["bytes"] if isinstance(cell, dict) else cell
        if content is None:
            raise ValueError(f"the row holds no image, but a path, {cell.get('path')!r}")
        if self.classes and self.labels[i] < 0:
            raise ValueError("the row has no label, though others have one")
        return read_image(io.BytesIO(content), self.size), max(self.labels[i], 0)

    def read_group(self, k: int) -> list:
        """The images of one row group, still encoded."""
        file, group = self.groups[k]
        return self.files[file].read_row_group(group, [self.image])[self.image].to_pylist()

    def name(self, i: int) -> str:
        file, _ = self.groups[bisect.bisect_right(self.ends, i)]
        return f"{self.paths[file]}, row {i} of all"

    def __getstate__(self) -> dict:
        """What worker processes are sent: neither open files nor the cache."""
        return {"paths": self.paths, "size": self.size}

    def __setstate__(self, state: dict) -> None:
        ParquetShards.__init__(self, state["paths"], state["size"])


def label_names(metadata: dict[bytes, bytes], label: str | None) -> list[str]:
    """Names of the classes from the features that the datasets library writes into a parquet file's schema."""
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return features.get(label, {}).get("names") or []
