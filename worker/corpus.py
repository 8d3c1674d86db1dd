"""The texts of a job, from the store. Training reads the column `text` and no other."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import pyarrow as pa

from app.domain.stored_outputs import SHARD_TEXTS
from app.persistence import owned
from app.persistence.database import Database
from app.persistence.tables import Corpus
from app.storage import ArtifactStore, corpus_texts

_SCHEMA = pa.schema([("text", pa.string())])


class CorpusUnreadableError(Exception):
    """The corpus is not there any more, or its file cannot be read."""


class Texts(Sequence[str]):
    """Texts in a nameless file that is mapped into memory: read when they are asked for, kept nowhere."""

    def __init__(self, texts: pa.ChunkedArray) -> None:
        self._texts = texts

    @classmethod
    def spooled(cls, shards: Iterable[pa.Array], folder: Path) -> Self:
        """Write them on the disk of `folder`; its space is free again when the last reader is gone.

        Args:
            shards: `SHARD_TEXTS` texts each, the last one fewer.
            folder: anywhere on a local disk.
        """
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_file(file, _SCHEMA) as writer:
                for shard in shards:
                    writer.write_batch(pa.record_batch([shard], schema=_SCHEMA))
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(pa.ipc.open_file(pa.py_buffer(mapped)).read_all().column("text"))

    def shards(self) -> Iterator[pa.Array]:
        """As they were written."""
        yield from self._texts.chunks

    def shard(self, number: int) -> pa.Array:
        """One of them."""
        return self._texts.chunk(number)

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if not isinstance(place, slice):
            text: str = self._texts[place].as_py()
            return text
        start, stop, step = place.indices(len(self))
        if step != 1:
            return [self[i] for i in range(start, stop, step)]
        texts: list[str] = self._texts.slice(start, max(0, stop - start)).to_pylist()
        return texts


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with gold labels, for evaluation only."""

    texts: Texts
    labels: list[str]


def find_corpus(database: Database, corpus_id: str) -> Corpus:
    """The row. Raises `CorpusUnreadableError` when it is gone."""
    with database.read() as session:
        corpus = owned.find(session, Corpus, corpus_id, owner=None)
    if corpus is None:
        raise CorpusUnreadableError(f"the corpus {corpus_id} does not exist any more")
    return corpus


def read_texts(store: ArtifactStore, corpus: Corpus, folder: Path) -> Texts:
    """All texts, in order, on the disk of `folder`; the labels stay where they are."""
    with _told_as_corpus(corpus):
        return Texts.spooled((batch.column("text") for batch in _batches(store, corpus, "text")), folder)


def read_labelled(store: ArtifactStore, corpus: Corpus, folder: Path) -> LabelledTexts:
    """The texts that have a gold label, in order."""
    labels: list[str] = []

    def labelled() -> Iterator[Any]:
        for batch in _batches(store, corpus, "text", "label"):
            batch = batch.filter(batch.column("label").is_valid())  # noqa: PLW2901
            labels.extend(batch.column("label").to_pylist())
            yield batch

    with _told_as_corpus(corpus):
        of_equal_size = corpus_texts.of_equal_size(labelled(), SHARD_TEXTS)
        texts = Texts.spooled((batch.column("text") for batch in of_equal_size), folder)
    if not labels:
        raise CorpusUnreadableError(f"the evaluation corpus {corpus.id} has no labelled text")
    return LabelledTexts(texts, labels)


def _batches(store: ArtifactStore, corpus: Corpus, *columns: str) -> Iterator[Any]:
    return corpus_texts.batches(store, corpus.storage_key, list(columns), SHARD_TEXTS)


@contextmanager
def _told_as_corpus(corpus: Corpus) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, KeyError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise CorpusUnreadableError(
            f"the corpus {corpus.id} cannot be read: {type(error).__name__}"
        ) from error
