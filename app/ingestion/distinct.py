"""Exact duplicates in bounded memory: 16 bytes of digest a text and an open hash table, no texts."""

import hashlib
from array import array

DIGEST_BYTES = 16
"""Of BLAKE2b: two different texts among five million meet with a probability of 1e-25."""
_START = 1 << 12


class DistinctTexts:
    """A set of texts that numbers its members in the order of their arrival.

    About 30 bytes a text, where a set of Python bytes needs a hundred.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._table = _empty(_START)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: bytes) -> tuple[int, bool]:
        """Number of this text, and whether it is new."""
        digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES, usedforsecurity=False).digest()
        slot = self._slot(digest)
        if number := self._table[slot]:
            return number - 1, False
        self._count += 1
        self._table[slot] = self._count
        self._digests += digest
        if 3 * self._count > 2 * len(self._table):
            self._grow()
        return self._count - 1, True

    def _slot(self, digest: bytes) -> int:
        """Where this digest is, or the free place where it belongs."""
        table, digests, mask = self._table, self._digests, len(self._table) - 1
        slot = int.from_bytes(digest[:8]) & mask
        while number := table[slot]:
            start = (number - 1) * DIGEST_BYTES
            if digests[start : start + DIGEST_BYTES] == digest:
                return slot
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        table = _empty(2 * len(self._table))
        mask = len(table) - 1
        for number in range(self._count):
            start = number * DIGEST_BYTES
            slot = int.from_bytes(self._digests[start : start + 8]) & mask
            while table[slot]:
                slot = (slot + 1) & mask
            table[slot] = number + 1
        self._table = table


def _empty(size: int) -> "array[int]":
    """A table of free places (0); numbers are stored one higher."""
    return array("I", bytes(4 * size))
