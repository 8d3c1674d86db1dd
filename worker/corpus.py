"""The texts of a job, from the store. Training reads the column `text` and no other."""

from dataclasses import dataclass

import pyarrow.parquet as pq

from app.persistence import owned
from app.persistence.database import Database
from app.persistence.tables import Corpus
from app.storage import ArtifactStore


class CorpusUnreadableError(Exception):
    """The corpus is not there any more, or its file cannot be read."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with gold labels, for evaluation only."""

    texts: list[str]
    labels: list[str]


def find_corpus(database: Database, corpus_id: str) -> Corpus:
    """The row. Raises `CorpusUnreadableError` when it is gone."""
    with database.read() as session:
        corpus = owned.find(session, Corpus, corpus_id, owner=None)
    if corpus is None:
        raise CorpusUnreadableError(f"the corpus {corpus_id} does not exist any more")
    return corpus


def read_texts(store: ArtifactStore, corpus: Corpus) -> list[str]:
    """All texts, in order; the labels stay on the disk."""
    return _column(store, corpus, "text")


def read_labelled(store: ArtifactStore, corpus: Corpus) -> LabelledTexts:
    """The texts that have a gold label, in order."""
    texts, labels = _column(store, corpus, "text"), _column(store, corpus, "label")
    pairs = [(text, label) for text, label in zip(texts, labels, strict=True) if label is not None]
    if not pairs:
        raise CorpusUnreadableError(f"the evaluation corpus {corpus.id} has no labelled text")
    return LabelledTexts([text for text, _ in pairs], [label for _, label in pairs])


def _column(store: ArtifactStore, corpus: Corpus, name: str) -> list[str]:
    try:
        with store.open(corpus.storage_key) as file:
            values: list[str] = pq.read_table(file, columns=[name]).column(name).to_pylist()
    except (FileNotFoundError, KeyError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise CorpusUnreadableError(
            f"the corpus {corpus.id} cannot be read: {type(error).__name__}"
        ) from error
    return values
