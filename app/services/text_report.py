"""The table of a job's texts: the worker's figures beside the texts themselves, streamed from the store."""

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import NotFoundError
from app.persistence import corpora, owned
from app.persistence.tables import Amalgamation, Corpus, Student
from app.services import jobs
from app.services.backend import Backend
from app.storage import ArtifactStore, StoreError
from app.storage.corpus_texts import of_equal_size

TABLE = "texts.parquet"
"""In the student's folder; `worker.text_table` writes it. Without a student the job's row names it."""
_BATCH_ROWS = 2048
"""What is in memory at once; also the rows of a Parquet row group that is sent."""
_DIGITS = 6
"""Of figures in JSON; the table has 32-bit floats."""

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What many readers take for the end of a line, although JSON Lines does not."""


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted, in the order of the corpus."""

    after: int = -1
    """Only rows with a higher number."""
    limit: int | None = None
    orphans: bool = False
    """Only texts of which no teacher is sure."""


@dataclass(frozen=True)
class TextReport:
    """Where the table and the texts lie."""

    store: ArtifactStore
    table_key: str
    corpus_key: str | None
    """None: the corpus is gone, and `text` is null."""

    def batches(self, wanted: Selection) -> Iterator[Any]:
        """Record batches: `row`, `text`, and the other columns of the table."""
        left = wanted.limit
        for batch in self._joined(wanted.after + 1):
            chosen = batch.filter(batch.column("orphan")) if wanted.orphans else batch
            chosen = chosen.slice(0, left)
            if chosen.num_rows:
                yield chosen
            if left is not None:
                left -= chosen.num_rows
                if not left:
                    return

    def schema(self) -> Any:
        """Of the batches, also where there is none."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (loads when the first table is asked for)

        with self.store.open(self.table_key) as file:
            return pq.read_schema(file).remove_metadata().insert(1, _text_field())

    def _joined(self, first: int) -> Iterator[Any]:
        import pyarrow as pa  # noqa: PLC0415

        with ExitStack() as stack:
            table = of_equal_size(_rows_from(stack, self.store, self.table_key, first), _BATCH_ROWS)
            texts: Iterator[Any] | None = None
            if self.corpus_key is not None:
                found = _rows_from(stack, self.store, self.corpus_key, first, ["text"])
                texts = of_equal_size(found, _BATCH_ROWS)
            for batch in table:
                text = next(texts).column("text") if texts else pa.nulls(batch.num_rows, pa.string())
                yield batch.add_column(1, _text_field(), text)


def _text_field() -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.field("text", pa.string())


def find(backend: Backend, owner: str, job_id: str) -> TextReport:
    """The table of a job that has succeeded.

    Raises:
        NotFoundError: there is no such job, or it has no table (any more).
        StoreError: the table's file is not there.
    """
    row = jobs.get(backend, owner, job_id).row
    with backend.database.read() as session:
        table_key = _table_key(session, row)
        corpus = owned.find(session, Corpus, row.resolved["corpus_id"], owner=owner)
        expired = corpus is not None and corpora.has_expired(session, corpus)
    if table_key is None or row.report is None:
        why = (
            "its student was deleted, and the table with it; repeat the job"
            if row.report is not None
            else f"the job is {row.status}; the table is there when it has succeeded"
        )
        raise NotFoundError(why, code="texts_not_available")
    report = TextReport(
        backend.store,
        table_key,
        corpus.storage_key if corpus and not expired and backend.store.exists(corpus.storage_key) else None,
    )
    if not backend.store.exists(report.table_key):
        raise StoreError(f"{report.table_key} is missing")
    return report


def _table_key(session: Session, row: Amalgamation) -> str | None:
    """Of the job itself, where it makes no student; else in the folder of its student, while there is one."""
    if row.text_table is not None:
        return row.text_table
    student = owned.find(session, Student, row.student_id, owner=row.owner) if row.student_id else None
    return f"{student.storage_prefix}/{TABLE}" if student else None


def as_json_lines(batches: Iterable[Any]) -> Iterator[bytes]:
    """One object a line."""
    for batch in batches:
        rows = (json.dumps(row, ensure_ascii=False) for row in _readable(batch).to_pylist())
        yield "".join(f"{row}\n" for row in rows).translate(_LINE_ENDS).encode()


def as_parquet(schema: Any, batches: Iterable[Any]) -> Iterator[bytes]:
    """A file, piece by piece as its row groups are done."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    outbox = _Outbox()
    with pq.ParquetWriter(outbox, schema, compression="zstd") as writer:
        for group in of_equal_size(iter(batches), _BATCH_ROWS):
            writer.write_batch(group)
            yield outbox.take()
    yield outbox.take()


class _Outbox(io.RawIOBase):
    """A file that is only written to: what was written is handed on and forgotten."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._told = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._waiting.append(piece)
        self._told += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._told

    def take(self) -> bytes:
        """What has been written since the last call."""
        piece = b"".join(self._waiting)
        self._waiting.clear()
        return piece


def _rows_from(
    stack: ExitStack, store: ArtifactStore, key: str, first: int, columns: list[str] | None = None
) -> Iterator[Any]:
    """Record batches from row `first` on; row groups before it are not read."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = stack.enter_context(store.open(key))
    parquet = stack.enter_context(pq.ParquetFile(file, pre_buffer=False))
    group, skip = 0, first
    while group < parquet.num_row_groups and skip >= (rows := parquet.metadata.row_group(group).num_rows):
        group, skip = group + 1, skip - rows
    groups = range(group, parquet.num_row_groups)
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[*groups], columns=columns, use_threads=False):
        part = batch.slice(min(skip, batch.num_rows))
        skip -= batch.num_rows - part.num_rows
        if part.num_rows:
            yield part


def _readable(batch: Any) -> Any:
    """Floats with as many digits as people read."""
    for at, column in enumerate(batch.columns):
        batch = batch.set_column(at, batch.schema.names[at], _rounded(column))
    return batch


def _rounded(column: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    if pa.types.is_fixed_size_list(column.type):
        return pa.FixedSizeListArray.from_arrays(_rounded(column.flatten()), column.type.list_size)
    return pc.round(column.cast(pa.float64()), _DIGITS) if pa.types.is_floating(column.type) else column
