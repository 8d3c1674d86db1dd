"""Large libraries, imported as quickly as they can be."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """For imports, which take a fifth less time so.

    What modules make stays for ever, and would be looked through again and again. It is set aside at the end,
    so that nobody looks through it later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
