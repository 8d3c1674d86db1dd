"""Large corpora are read in a process of their own: `python -m app.ingestion.separate_process`.

So the API keeps answering (reading text holds Python's lock), its memory stays small (what pyarrow took goes
back with the process), and no file, however broken, can take the API down. Small files are read on the spot:
starting a process would cost more than reading them.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.domain.errors import (
    Fault,
    InvalidCorpusError,
    InvalidRequestError,
    MukaError,
    PayloadTooLargeError,
)
from app.ingestion.corpus_file import CorpusFile, normalise_file
from app.ingestion.corpus_formats import CorpusFormat, Layout
from app.ingestion.decompression import MAX_RATIO, Compression
from app.ingestion.normalise import Limits, NormalisedCorpus
from app.ingestion.rows import Columns
from app.processes import die_with_parent

SMALL_BYTES = 4 << 20
MEMORY_BYTES = 3 << 30
"""Of the reading process' addresses: a file that needs more is refused, and the machine lives on."""
_ERRORS = {error.__name__: error for error in (InvalidCorpusError, InvalidRequestError, PayloadTooLargeError)}


def normalise_aside(file: CorpusFile, target: Path) -> NormalisedCorpus:
    """As `normalise_file`, in a process of its own when the file is not small.

    Raises:
        OSError: The result cannot be written.
    """
    if _is_small(file):
        return normalise_file(file, target)
    order = {"parent": os.getpid(), "memory_bytes": MEMORY_BYTES, "file": asdict(file), "target": str(target)}
    done = subprocess.run(
        [sys.executable, "-m", "app.ingestion.separate_process"],
        input=json.dumps(order, default=str).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode < 0:
        raise _crashed(done.returncode)
    if done.returncode > 0:
        raise RuntimeError(f"the reader of corpora ended with {done.returncode}; its traceback is above")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise _error(answer["error"])
    return NormalisedCorpus(**answer)


def _is_small(file: CorpusFile) -> bool:
    """A Parquet file never is: a kilobyte can be a page of a gigabyte, whatever the file says of itself."""
    ratio = 1 if file.format.compression is Compression.NONE else MAX_RATIO
    return file.format.layout is not Layout.PARQUET and file.path.stat().st_size * ratio <= SMALL_BYTES


def _crashed(returncode: int) -> InvalidCorpusError:
    name = signal.Signals(-returncode).name
    detail = (
        f"the file made its reader crash ({name}): it is damaged, or a single value needs too much memory"
    )
    return InvalidCorpusError(
        f"{detail}; nothing was stored", faults=[Fault("file", "reader_crashed", detail)]
    )


def _error(error: dict[str, Any]) -> Exception:
    if error["class"] == "OSError":
        return OSError(error["errno"], error["detail"])
    faults = [Fault(**fault) for fault in error["faults"]]
    return _ERRORS[error["class"]](error["detail"], faults=faults, code=error["code"])


# --- In the process --------------------------------------------------------------------------------


def main() -> None:
    """Read the order from stdin, write the answer to stdout."""
    order = json.load(sys.stdin)
    die_with_parent(order["parent"])
    resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"], order["memory_bytes"]))
    try:
        answer = asdict(normalise_file(_file(order["file"]), Path(order["target"])))
    except MukaError as error:
        faults = [asdict(fault) for fault in error.faults]
        kind, code = type(error).__name__, error.problem_code
        answer = {"error": {"class": kind, "detail": error.detail, "code": code, "faults": faults}}
    except OSError as error:
        answer = {"error": {"class": "OSError", "errno": error.errno, "detail": error.strerror}}
    json.dump(answer, sys.stdout)


def _file(order: dict[str, Any]) -> CorpusFile:
    layout, compression = order["format"]["layout"], order["format"]["compression"]
    return CorpusFile(
        path=Path(order["path"]),
        format=CorpusFormat(Layout(layout), Compression(compression)),
        columns=Columns(**order["columns"]),
        max_bytes=order["max_bytes"],
        limits=Limits(**order["limits"]),
    )


if __name__ == "__main__":
    main()
