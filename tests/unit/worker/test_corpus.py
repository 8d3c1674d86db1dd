"""The texts of a job: read from disk when they are asked for, and cut as the shards are."""

from pathlib import Path

import pyarrow as pa
import pytest

from app.persistence.database import Database
from app.persistence.tables import Corpus
from app.storage import ArtifactStore
from tests.jobs import add_corpus
from worker.corpus import CorpusUnreadableError, Texts, find_corpus, read_labelled, read_texts

MANY = [f"text {number} “ü”" for number in range(2500)]


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    return Texts.spooled((pa.array(MANY[at : at + 1024]) for at in range(0, 2500, 1024)), tmp_path)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def _corpus(database: Database, store: ArtifactStore, *columns: list[str | None]) -> Corpus:
    return find_corpus(database, add_corpus(database, store, *columns))


def test_they_are_a_sequence(texts: Texts) -> None:
    assert len(texts) == 2500
    assert (texts[0], texts[1024], texts[-1]) == (MANY[0], MANY[1024], MANY[-1])
    assert list(texts) == MANY


@pytest.mark.parametrize(
    "part",
    [slice(1000, 1100), slice(0, 1024), slice(None), slice(2400, 9999), slice(7, 7), slice(9, 2, -3)],
    ids=str,
)
def test_a_slice_is_a_list_across_shards(texts: Texts, part: slice) -> None:
    assert texts[part] == MANY[part]


def test_their_file_has_no_name(texts: Texts, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    assert [len(shard) for shard in texts.shards()] == [1024, 1024, 452]


def test_a_corpus_is_read_in_order(database: Database, store: ArtifactStore, tmp_path: Path) -> None:
    corpus = _corpus(database, store, MANY, ["label"] * 2500)
    read = read_texts(store, corpus, tmp_path)
    assert list(read) == MANY
    assert [len(shard) for shard in read.shards()] == [1024, 1024, 452]


def test_texts_without_a_label_are_left_out_of_an_evaluation(
    database: Database, store: ArtifactStore, tmp_path: Path
) -> None:
    labels = ["even" if number % 2 == 0 else None for number in range(2500)]
    gold = read_labelled(store, _corpus(database, store, MANY, labels), tmp_path)
    assert list(gold.texts) == MANY[::2]
    assert gold.labels == ["even"] * 1250
    assert [len(shard) for shard in gold.texts.shards()] == [1024, 226]


def test_what_cannot_be_read_is_told_as_such(
    database: Database, store: ArtifactStore, tmp_path: Path
) -> None:
    bare = _corpus(database, store, MANY)
    with pytest.raises(CorpusUnreadableError, match="cannot be read"):
        read_labelled(store, bare, tmp_path)
    nameless = _corpus(database, store, MANY, [None] * 2500)
    with pytest.raises(CorpusUnreadableError, match="no labelled text"):
        read_labelled(store, nameless, tmp_path)
    store.delete(bare.storage_key)
    with pytest.raises(CorpusUnreadableError, match="FileNotFoundError"):
        read_texts(store, bare, tmp_path)
    with pytest.raises(CorpusUnreadableError, match="does not exist any more"):
        find_corpus(database, "cor-gone")
