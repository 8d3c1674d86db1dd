"""Notes in a bucket of what is not whole: S3 has no renames, so folders come and go file by file.

A note names the keys, is written before the first of them is touched, and goes when all is done. What a note
names is not there for readers; a note whose writer died stays, and the sweeper removes what it names.
"""

import json
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from uuid import uuid4

from app.storage.s3_bucket import Bucket, StoredObject
from app.storage.store import StoreError

NOTES = ".unfinished"


class Unfinished:
    """The notes of one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @contextmanager
    def noted(self, keys: Sequence[str]) -> Iterator[str]:
        """Hide the keys while the block, given the note, works on them. When it fails, they are removed."""
        note = f"{NOTES}/{uuid4().hex}"
        self._write(note, keys)
        try:
            yield note
        except BaseException:
            with suppress(StoreError):  # then the note stays, and the sweeper does it
                self._remove(keys, note)
            raise
        self._bucket.delete([note])

    def _write(self, note: str, keys: Sequence[str]) -> None:
        self._bucket.put(note, json.dumps(list(keys)).encode())

    def take_over(self, keys: Set[str], note: str) -> None:
        """What others left half done and is done anew is not to be hidden, nor swept, for their sake."""
        for other in (each.key for each in self.notes() if each.key != note):
            named = self.named_by(other)
            left = [key for key in named if key not in keys]
            if named and not left:
                self._bucket.delete([other])
            elif len(left) < len(named):
                self._write(other, left)

    def hidden(self) -> set[str]:
        """All keys that are named now."""
        return {key for note in self.notes() for key in self.named_by(note.key)}

    def notes(self) -> list[StoredObject]:
        """Of writers at work and of those that died in it."""
        return self._bucket.below(NOTES)

    def named_by(self, note: str) -> list[str]:
        """Keys; none when it is done meanwhile."""
        try:
            named: list[str] = json.loads(self._bucket.read(note))
        except FileNotFoundError:
            return []
        return named

    def discard(self, note: str) -> None:
        """Remove what it names, then the note."""
        if not note.startswith(f"{NOTES}/"):
            raise ValueError(f"not a note: {note!r}")
        self._remove(self.named_by(note), note)

    def _remove(self, keys: Sequence[str], note: str) -> None:
        """The note last: until then nobody sees the half of it."""
        if keys:
            self._bucket.delete(keys)
        self._bucket.delete([note])
