"""Tensors with one row a text, filled shard by shard, and kept in files that the kernel maps into memory.

So a corpus may be larger than the memory. The files have no name: their space is free again when the columns
and the last tensor over them are gone, however the process ends.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_AT_ONCE = 4_096
"""How many rows are worked on at a time where all of them are gone through."""


def spans(rows: int, size: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """The numbers 0 to `rows` in pieces of `size`."""
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def mapped(size: int, folder: Path) -> mmap.mmap:
    """So many zero bytes in a nameless file on the disk of `folder`.

    Raises:
        OSError: The disk is full. It is asked for all of the space at once: written to later through the
            mapping, a full disk would kill the process.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def joined(parts: Iterable[NDArray[Any]], folder: Path | None) -> NDArray[Any]:
    """Flat arrays one after the other, in a nameless file on the disk of `folder`; None: in memory."""
    if folder is None:
        return np.concatenate(list(parts))
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(part.data)
            dtype = part.dtype
        file.flush()
        return np.memmap(file, dtype=dtype, mode="r")


class Columns(Mapping[str, Tensor]):
    """Columns of n rows, by name; each has the shape and type of its first part.

    Args:
        rows: n.
        folder: On whose disk they lie; None keeps them in memory.
    """

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        self.rows = rows
        self._folder = folder
        self._columns: dict[str, Tensor] = {}
        self._mappings: list[mmap.mmap] = []

    def put(self, start: int, part: Mapping[str, Tensor]) -> None:
        """Fill the rows from `start` on; [b, ...] on the CPU, by column."""
        for name, values in part.items():
            if name not in self._columns:
                self._columns[name] = self._empty((self.rows, *values.shape[1:]), values.dtype)
            self._columns[name][start : start + len(values)] = values

    def let_go(self, rows: slice | None = None) -> None:
        """Let the kernel have the memory of these rows, or of all, where they lie in files.

        Otherwise all that was ever touched counts as this process's, until others lack memory. What is read
        again comes from the kernel's cache, or from the disk.
        """
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for mapping in self._mappings:
            row = len(mapping) // self.rows
            start, stop = (0, self.rows) if rows is None else (rows.start, rows.stop)
            first = start * row // mmap.PAGESIZE * mmap.PAGESIZE
            mapping.madvise(mmap.MADV_DONTNEED, first, stop * row - first)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._folder is None:
            return torch.zeros(shape, dtype=dtype)
        mapping = mapped(math.prod(shape) * dtype.itemsize, self._folder)
        self._mappings.append(mapping)
        return torch.frombuffer(mapping, dtype=dtype).reshape(shape)

    def __getitem__(self, name: str) -> Tensor:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def filled(
    rows: int,
    make: Callable[[slice], Mapping[str, Tensor]],
    folder: Path | None = None,
    size: int = ROWS_AT_ONCE,
) -> Columns:
    """Columns whose parts `make` gives, one span of rows after the other."""
    columns = Columns(rows, folder)
    for span in spans(rows, size):
        columns.put(span.start, make(span))
    return columns
