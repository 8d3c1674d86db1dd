"""Large libraries, imported as quickly as they can be."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """For imports: what modules make stays for ever, and looking through it again and again takes a fifth of
    the time. It is set aside at the end, so that nobody looks through it later either.
    """  # noqa: D205  (the first sentence is longer than a line)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
