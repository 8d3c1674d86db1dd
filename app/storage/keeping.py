"""What of a folder of the store may go when some of its files must stay."""

from collections.abc import Iterator, Set

from app.storage.store import ArtifactStore


def all_but(store: ArtifactStore, folder: str, kept: Set[str]) -> Iterator[str]:
    """The fewest keys below the folder, itself included, whose removal leaves only the kept files."""
    if folder in kept:
        return
    if not any(key.startswith(f"{folder}/") for key in kept):
        yield folder
        return
    for child in store.children(folder):
        yield from all_but(store, child, kept)
