"""Keeps the teachers' stored outputs within their limit, and tells how useful they are."""

from dataclasses import dataclass

from app.persistence import stored_outputs
from app.persistence.stored_outputs import COMPUTED, REUSED, Unneeded
from app.services.backend import Backend

_LOOKED_AT = 100


@dataclass(frozen=True)
class Statistics:
    """For the metrics."""

    pieces: int
    size_bytes: int
    limit_bytes: int
    shards_reused: int
    """Shards of texts for which a teacher was not asked anything; only grows."""
    shards_computed: int
    """The others; only grows."""


def statistics(backend: Backend) -> Statistics:
    """As of now."""
    with backend.database.read() as session:
        pieces, size_bytes = stored_outputs.size(session)
        reused, computed = (stored_outputs.counted(session, name) for name in (REUSED, COMPUTED))
    return Statistics(pieces, size_bytes, backend.settings.scores_max_bytes, reused, computed)


def evict(backend: Backend) -> int:
    """Remove the longest unused pieces until the rest fits the limit; answers how many went.

    What a living job asked for stays, so a large job may exceed the limit until it has ended. Any number of
    processes may do this at once.
    """
    _forget_needs(backend)
    removed = 0
    while found := _too_many(backend):
        gone = sum(_remove(backend, piece) for piece in found)
        removed += gone
        if not gone:  # all of them were asked for meanwhile, or another process was quicker
            break
    return removed


def _forget_needs(backend: Backend) -> None:
    """Looks before it writes: nearly always there is nothing to do."""
    with backend.database.read() as session:
        is_needed = stored_outputs.has_needs_of_ended(session)
    if is_needed:
        with backend.database.write() as session:
            stored_outputs.forget_needs(session)


def _too_many(backend: Backend) -> list[Unneeded]:
    """The first of those that must go, the longest unused first."""
    with backend.database.read() as session:
        _, size_bytes = stored_outputs.size(session)
        surplus = size_bytes - backend.settings.scores_max_bytes
        unneeded = stored_outputs.least_recently_used(session, _LOOKED_AT) if surplus > 0 else []
    going = []
    for piece in unneeded:
        if surplus > 0:
            going.append(piece)
            surplus -= piece.size_bytes
    return going


def _remove(backend: Backend, piece: Unneeded) -> bool:
    """The file goes while the row is locked: who stores the same piece again waits for it."""
    with backend.database.write() as session:
        is_removed = stored_outputs.remove(session, piece)
        if is_removed:
            backend.store.delete(piece.key)
    return is_removed
