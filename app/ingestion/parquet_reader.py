"""Reader of Parquet: row group by row group, with nothing held but one batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from app.domain.errors import Fault, PayloadTooLargeError
from app.ingestion.decompression import FREE_BYTES, MAX_RATIO
from app.ingestion.rows import Columns, Row, Rows, missing_columns

BATCH_ROWS = 1024


def read_parquet(source: Path, columns: Columns, max_bytes: int, *, first_row: int = 1) -> Rows:
    """Rows of one file. `max_bytes` bounds what the columns may decompress to."""
    import pyarrow as pa  # noqa: PLC0415  (loads when the first corpus comes)

    try:
        yield from _rows(source, columns, max_bytes, first_row)
    except MemoryError:  # pyarrow's own among them
        detail = "a page of the Parquet file needs too much memory; write it again with smaller row groups"
        yield Fault("file", "invalid_parquet", detail)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        detail = f"the Parquet file is broken or cut off: {reason.replace(str(source), 'the file')}"
        yield Fault("file", "invalid_parquet", detail)


def first_rows(file: IO[bytes], limit: int) -> list[dict[str, str]]:
    """The first rows of a normalised corpus, as dictionaries of its columns."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    batch = next(pq.ParquetFile(file).iter_batches(limit, use_threads=False))
    rows: list[dict[str, str]] = batch.slice(0, limit).to_pylist()
    return rows


def _rows(source: Path, columns: Columns, max_bytes: int, first_row: int) -> Rows:
    import pyarrow.parquet as pq  # noqa: PLC0415

    with source.open("rb") as file:
        metadata = pq.read_metadata(file)
        if fault := _schema_fault(metadata.schema.to_arrow_schema(), columns):
            yield fault
            return
        _refuse_bombs(metadata, columns, source.stat().st_size, max_bytes)
        # Dictionaries stay dictionaries: a long text that a file repeats a million times is held once.
        table = pq.ParquetFile(file, metadata=metadata, read_dictionary=columns.all, buffer_size=1 << 20)
        row = first_row
        for batch in table.iter_batches(BATCH_ROWS, columns=columns.all, use_threads=False):
            batch.validate(full=True)  # pyarrow believes what a file says of its dictionaries
            texts = _strings(batch.column(columns.text))
            labels = _strings(batch.column(columns.label)) if columns.label else iter([None] * batch.num_rows)
            for text, label in zip(texts, labels, strict=True):
                yield Row(row, text, label)
                row += 1


def _schema_fault(schema: Any, columns: Columns) -> Fault | None:
    import pyarrow as pa  # noqa: PLC0415

    if problem := missing_columns(columns, list(schema.names)):
        return Fault("file", "missing_column", problem)
    for name in columns.all:
        if schema.names.count(name) > 1:
            return Fault("file", "missing_column", f"the file has the column {name!r} more than once")
        kind = schema.field(name).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (
            pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
        ):
            detail = f"the column {name!r} must hold strings, not {str(kind)[:200]!r}"
            return Fault("file", "not_a_string", detail)
    return None


def _refuse_bombs(metadata: Any, columns: Columns, size: int, max_bytes: int) -> None:
    """By what the file says of itself; where it lies, the reader's process is the limit."""
    total, limit = 0, min(max_bytes, max(FREE_BYTES, MAX_RATIO * size))
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for index in range(chunks.num_columns):
            chunk = chunks.column(index)
            if chunk.path_in_schema in columns.all:
                total += chunk.total_uncompressed_size
    if total > limit:
        raise PayloadTooLargeError(
            f"the file's texts have {total:,} bytes, decompressed; the limit of this file is {limit:,}"
        )


def _strings(column: Any) -> Iterator[str | None]:
    """Values of a string column, which may be dictionary-encoded; each different value is made once."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_dictionary(column.type):
        return iter(column.to_pylist())
    values = column.dictionary.to_pylist()
    return (None if index is None else values[index] for index in column.indices.to_pylist())
