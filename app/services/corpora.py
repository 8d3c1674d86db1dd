"""Use cases over corpora: create, look, list, preview, delete."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, GoneError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix, new_id
from app.domain.recipe import HubDataset
from app.ingestion.corpus_file import CorpusFile
from app.ingestion.corpus_formats import CorpusFormat
from app.ingestion.names import display_name
from app.ingestion.normalise import Limits, NormalisedCorpus, write_corpus
from app.ingestion.rows import Columns, Row, at_inline, at_row
from app.ingestion.separate_process import normalise_aside
from app.persistence import amalgamations, corpora, expired, owned
from app.persistence.tables import Corpus
from app.persistence.time import now
from app.services import content
from app.services.backend import Backend
from app.settings import Settings
from app.storage import StoreError


@dataclass(frozen=True)
class NewCorpus:
    """A file that was received into a staging folder of the store."""

    path: Path
    format: CorpusFormat
    columns: Columns
    name: str | None


def create(
    backend: Backend, owner: str, new: NewCorpus, keep: content.Keep[Corpus] = content.keep_nothing
) -> tuple[Corpus, bool]:
    """Normalise and store an uploaded file; `keep` is called in the transaction that does.

    Returns:
        The corpus, and whether it is new: the same content is one corpus.

    Raises:
        InvalidCorpusError: It cannot be read, or nothing is left of it.
        PayloadTooLargeError: Over a limit.
    """
    limits, max_bytes = limits_of(backend.settings), backend.settings.max_corpus_bytes
    file = CorpusFile(new.path, new.format, new.columns, max_bytes, limits)
    return _store(backend, owner, display_name(new.name), lambda target: normalise_aside(file, target), keep)


def create_from_texts(backend: Backend, owner: str, texts: Sequence[str]) -> Corpus:
    """A corpus from a request's body; faults point to `/corpus/texts/3`."""
    rows = (Row(index, text) for index, text in enumerate(texts))
    limits = limits_of(backend.settings)

    def write(target: Path) -> NormalisedCorpus:
        return write_corpus(rows, target, limits, at_inline, labelled=False, whole="/corpus/texts")

    corpus, _ = _store(backend, owner, None, write)
    return corpus


def create_from_hub_dataset(backend: Backend, owner: str, spec: HubDataset) -> tuple[Corpus, HubDataset]:
    """A corpus from a data set on the Hub, read from its Parquet files; and the data set with its commit.

    Raises:
        InvalidCorpusError: There is no such data set, split or column.
        HubUnavailableError: The Hub does not answer.
    """
    from app.services.hub_datasets import HubSplit  # noqa: PLC0415  (few corpora come from there)

    max_bytes, limits = backend.settings.max_corpus_bytes, limits_of(backend.settings)
    found = HubSplit.find(spec)

    def write(target: Path) -> NormalisedCorpus:
        rows = found.rows(target.parent, max_bytes)
        return write_corpus(rows, target, limits, at_row, labelled=False, whole="/corpus/dataset")

    corpus, _ = _store(backend, owner, f"{spec.dataset} ({spec.split})", write)
    return corpus, found.pinned


def get(backend: Backend, owner: str, corpus_id: str) -> Corpus:
    """One corpus.

    Raises:
        NotFoundError: There is none, or it is another owner's.
        GoneError: It has expired.
    """
    with backend.database.read() as session:
        corpus = _find(session, owner, corpus_id)
        if corpora.has_expired(session, corpus):
            raise _expired(corpus_id)
        return corpus


def page(
    backend: Backend, owner: str, *, limit: int, after: str | None, descending: bool
) -> Sequence[Corpus]:
    """Up to `limit + 1` corpora; the one more tells that there is a next page."""
    with backend.database.read() as session:
        return owned.page(session, Corpus, owner, limit=limit, after=after, descending=descending)


def preview(backend: Backend, owner: str, corpus_id: str, limit: int) -> list[dict[str, str]]:
    """The first rows: `text`, and `label` when it is labelled."""
    from app.ingestion.parquet_reader import first_rows  # noqa: PLC0415

    corpus = get(backend, owner, corpus_id)
    try:
        with backend.store.open(corpus.storage_key) as file:
            return first_rows(file, limit)
    except FileNotFoundError as error:
        raise StoreError(f"the texts of {corpus_id} are not in the store") from error


def delete(backend: Backend, owner: str, corpus_id: str) -> None:
    """Remove a corpus and its texts.

    Raises:
        NotFoundError: There is none.
        GoneError: It has expired, and is removed already.
        ConflictError: A job that has not ended reads it.
    """
    with backend.database.write() as session:
        corpus = _find(session, owner, corpus_id, lock=True)
        if amalgamations.uses_corpus(session, corpus_id):
            raise ConflictError(
                "a job that has not ended reads this corpus; wait for the job, or cancel it", code="in_use"
            )
        session.delete(corpus)
        key = corpus.storage_key
    backend.store.delete(key)


def _expired(corpus_id: str) -> GoneError:
    return GoneError(f"the corpus {corpus_id} has expired; upload the texts again with POST /corpora")


def limits_of(settings: Settings) -> Limits:
    """What the settings allow."""
    return Limits(settings.max_texts, settings.max_text_chars)


def _find(session: Session, owner: str, corpus_id: str, *, lock: bool = False) -> Corpus:
    corpus = None
    if has_prefix(corpus_id, Prefix.CORPUS):
        corpus = owned.find(session, Corpus, corpus_id, owner=owner, lock=lock)
    if corpus is None and expired.is_marked(session, corpus_id, owner=owner):
        raise _expired(corpus_id)
    if corpus is None:
        raise NotFoundError(f"there is no corpus {corpus_id[:100]!r}")
    return corpus


# --- Storing ---------------------------------------------------------------------------------------


def _store(
    backend: Backend,
    owner: str,
    name: str | None,
    write: Callable[[Path], NormalisedCorpus],
    keep: content.Keep[Corpus] = content.keep_nothing,
) -> tuple[Corpus, bool]:
    with backend.store.staging() as folder:
        target = folder / "corpus.parquet"
        try:
            facts = write(target)
        except OSError as error:
            raise StoreError(f"the corpus cannot be written: {error.strerror}") from error
        return _store_once(backend, owner=owner, name=name, facts=facts, file=target, keep=keep)


def _store_once(
    backend: Backend,
    *,
    owner: str,
    name: str | None,
    facts: NormalisedCorpus,
    file: Path,
    keep: content.Keep[Corpus],
) -> tuple[Corpus, bool]:
    days = backend.settings.corpus_retention_days
    expiry = None if days is None else now(days * 86_400)
    find = partial(corpora.find_by_content, owner=owner, content_sha256=facts.content_sha256)
    if found := content.known(backend, find, expiry=expiry, keep=keep):
        return found, False
    corpus_id = new_id(Prefix.CORPUS)
    corpus = Corpus(
        id=corpus_id,
        owner=owner,
        name=name,
        content_sha256=facts.content_sha256,
        storage_key=f"corpora/{corpus_id}.parquet",
        size_bytes=file.stat().st_size,
        texts=facts.texts,
        labelled=facts.labelled,
        statistics=facts.statistics,
    )
    backend.store.put_file(corpus.storage_key, file)
    return content.insert(backend, corpus, corpus.storage_key, find, expiry=expiry, keep=keep)
