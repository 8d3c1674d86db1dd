"""One `muka serve` a data folder: two brokers and two supervisors would fight over it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataFolderInUseError(Exception):
    """Another process serves this folder."""


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the folder while the block runs; the lock goes with this process, however it ends.

    Raises:
        DataFolderInUseError: Says which process has it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise DataFolderInUseError(
                f"another `muka serve` (process {file.read().strip() or 'unknown'}) uses {data_dir}: "
                "stop it, or name another folder with MUKA_DATA_DIR"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
