"""The normalised corpus: Parquet with the columns `text` and, when labelled, `label`."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

GROUP_ROWS = 16_384
GROUP_CHARS = 8 << 20
"""A row group ends at whichever comes first, so that readers hold little."""


class ParquetWriter:
    """Collects rows and writes them, zstd, a row group at a time."""

    def __init__(self, target: Path, *, labelled: bool) -> None:
        import pyarrow as pa  # noqa: PLC0415  (loads when the first corpus comes)
        import pyarrow.parquet as pq  # noqa: PLC0415

        names = ["text", "label"] if labelled else ["text"]
        self._pa = pa
        self._schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])
        self._file: Any = pq.ParquetWriter(target, self._schema, compression="zstd")
        self._texts: list[str] = []
        self._labels: list[str] | None = [] if labelled else None
        self._chars = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._file.close()

    def add(self, text: str, label: str | None) -> None:
        """One row."""
        self._texts.append(text)
        if self._labels is not None:
            self._labels.append(label or "")
        self._chars += len(text)
        if len(self._texts) >= GROUP_ROWS or self._chars >= GROUP_CHARS:
            self._flush()

    def _flush(self) -> None:
        if not self._texts:
            return
        columns = [self._texts] if self._labels is None else [self._texts, self._labels]
        arrays = [self._pa.array(column, self._pa.string()) for column in columns]
        self._file.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        for column in columns:
            column.clear()
        self._chars = 0
