"""What a job would find among the teachers' stored outputs, and what is left for the teachers to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from app.domain.recipe import Recipe
from app.domain.stored_outputs import SHARD_TEXTS, Asked, Computation, Piece
from app.persistence import stored_outputs
from app.persistence.tables import Corpus
from app.services.backend import Backend
from app.storage import ArtifactStore, corpus_texts

_CORPORA_REMEMBERED = 32


@dataclass(frozen=True)
class AskedTeacher:
    """A teacher, as far as its stored outputs depend on it."""

    digest: str
    labels: tuple[str | None, ...]
    can_be_sampled: bool
    """True where nobody knows."""


@dataclass(frozen=True)
class Reuse:
    """Of one teacher and the whole corpus."""

    shards: int
    shards_stored: int
    """For which the teacher would not be asked anything."""
    passes: int
    """Texts that would still go through it, at most."""


def reuse(
    backend: Backend, recipe: Recipe, corpus: Corpus, teachers: Sequence[AskedTeacher]
) -> list[Reuse] | None:
    """For each teacher, what a worker like the one that was busy last would find.

    None: the corpus cannot be read.
    """
    company = tuple((teacher.digest, teacher.labels) for teacher in teachers)
    asked = Asked.by(recipe, corpus.owner, company)
    precision = recipe.training.precision
    with backend.database.read() as session:
        by = stored_outputs.latest_computation(session, None if precision == "auto" else precision)
    if by is None:
        nothing = [set(asked.pieces)] * -(-corpus.texts // SHARD_TEXTS)
        return [_told(asked, corpus.texts, teacher, nothing) for teacher in teachers]
    try:
        digests = _digests(backend.store, corpus.storage_key)  # type: ignore[arg-type]
    except (FileNotFoundError, ValueError):
        return None
    missing = [_missing(backend, asked, by, teacher.digest, digests) for teacher in teachers]
    if asked.bound is not None:
        _sample_together(missing)
    found = zip(teachers, missing, strict=True)
    return [_told(asked, corpus.texts, teacher, of_shards) for teacher, of_shards in found]


@lru_cache(maxsize=_CORPORA_REMEMBERED)
def _digests(store: ArtifactStore, key: str) -> Sequence[str]:
    """Of the shards; a corpus never changes."""
    batches = corpus_texts.batches(store, key, ["text"], SHARD_TEXTS)
    return tuple(corpus_texts.digest(batch.column("text")) for batch in batches)


def _missing(
    backend: Backend, asked: Asked, by: Computation, teacher: str, digests: Sequence[str]
) -> list[set[Piece]]:
    """The pieces of each shard that are not there."""
    keys = [
        {asked.key(piece, by, teacher=teacher, texts=texts, shard=shard): piece for piece in asked.pieces}
        for shard, texts in enumerate(digests)
    ]
    there: set[str] = set()
    with backend.database.read() as session:
        for chunk in stored_outputs.chunks(key for of_shard in keys for key in of_shard):
            there |= stored_outputs.present(session, chunk)
    return [{piece for key, piece in of_shard.items() if key not in there} for of_shard in keys]


def _sample_together(missing: Sequence[list[set[Piece]]]) -> None:
    """Adaptive sampling compares the teachers: where one of them is asked, all are sampled again."""
    for of_teachers in zip(*missing, strict=True):
        if any(of_teachers):
            for pieces in of_teachers:
                pieces.add(Piece.SAMPLES)


def _told(asked: Asked, texts: int, teacher: AskedTeacher, missing: Sequence[set[Piece]]) -> Reuse:
    passes = 0
    for shard, pieces in enumerate(missing):
        size = min(SHARD_TEXTS, texts - shard * SHARD_TEXTS)
        passes += size if pieces - {Piece.SAMPLES} else 0
        passes += size * asked.passes if Piece.SAMPLES in pieces and teacher.can_be_sampled else 0
    return Reuse(len(missing), sum(not pieces for pieces in missing), passes)
