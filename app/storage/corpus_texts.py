"""The texts of a stored corpus, shard by shard: never all of them in memory."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.storage.store import ArtifactStore


def batches(store: ArtifactStore, key: str, columns: list[str], rows: int) -> Iterator[Any]:
    """Record batches of `rows` rows each, the last one smaller.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no Parquet file with these columns (pyarrow's errors are ValueErrors).
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  (loads when the first corpus is read)

    with store.open(key) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        if absent := set(columns) - set(parquet.schema_arrow.names):
            raise ValueError(f"{Path(key).name} has no column {', '.join(sorted(absent))}")
        yield from of_equal_size(parquet.iter_batches(batch_size=rows, columns=columns), rows)


def of_equal_size(found: Iterator[Any], rows: int) -> Iterator[Any]:
    """The same rows in batches of `rows`: Parquet ends a batch where a row group ends; a shard does not."""
    import pyarrow as pa  # noqa: PLC0415

    waiting, count = [], 0
    for batch in found:
        waiting.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        table = pa.Table.from_batches(waiting)
        for start in range(0, count - rows + 1, rows):
            yield _one(table.slice(start, rows))
        rest = table.slice(count - count % rows)
        waiting, count = rest.to_batches(), rest.num_rows
    if count:
        yield _one(pa.Table.from_batches(waiting))


def _one(table: Any) -> Any:
    return table.combine_chunks().to_batches()[0]


def digest(texts: Any) -> str:
    """SHA-256 over the texts of a `pyarrow.StringArray` and the length of each of them."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    whole = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "")[0]
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    return hashlib.sha256(lengths.astype("<i4").tobytes() + whole.as_buffer()).hexdigest()
