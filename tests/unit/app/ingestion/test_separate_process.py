"""Large corpora are read aside, with the same outcome; a reader that dies is a refused file."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import InvalidCorpusError, InvalidRequestError, PayloadTooLargeError
from app.ingestion.corpus_file import CorpusFile, normalise_file
from app.ingestion.corpus_formats import corpus_format
from app.ingestion.normalise import Limits
from app.ingestion.rows import Columns
from app.ingestion.separate_process import SMALL_BYTES, normalise_aside
from tests.servers import wait_until


def _file(folder: Path, content: bytes, name: str = "a.csv", label: str | None = "label") -> CorpusFile:
    path = folder / "upload"
    path.write_bytes(content)
    limits = Limits(1_000_000, 20_000)
    return CorpusFile(path, corpus_format(filename=name), Columns(label=label), 1 << 30, limits)


def _rows(count: int) -> bytes:
    rows = (b'"%0200d \xc3\xa9",%d\n' % (number, number % 3) for number in range(count))
    return b"text,label\n" + b"".join(rows)


LARGE = SMALL_BYTES // 200


def test_the_outcome_is_the_same(tmp_path: Path) -> None:
    file = _file(tmp_path, _rows(LARGE))
    aside = normalise_aside(file, tmp_path / "aside.parquet")
    assert aside == normalise_file(file, tmp_path / "here.parquet")
    assert (tmp_path / "aside.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_faults_cross_the_border(tmp_path: Path) -> None:
    file = _file(tmp_path, _rows(LARGE) + b'ragged\n"\xf0\x9f\x98\x80",\n')
    with pytest.raises(InvalidCorpusError) as caught:
        normalise_aside(file, tmp_path / "out.parquet")
    assert [fault.code for fault in caught.value.faults] == ["ragged_row", "label_invalid"]
    assert caught.value.faults[0].pointer == f"line {LARGE + 2}"


def test_other_refusals_cross_the_border(tmp_path: Path) -> None:
    file = _file(tmp_path, _rows(LARGE))
    with pytest.raises(PayloadTooLargeError, match="more than 7 texts"):
        normalise_aside(replace(file, limits=Limits(7, 20_000)), tmp_path / "out.parquet")
    with pytest.raises(InvalidRequestError) as caught:
        normalise_aside(_file(tmp_path, b"no gzip" * 10_000, "a.csv.gz"), tmp_path / "out.parquet")
    assert caught.value.problem_code == "compression_invalid"


def test_a_place_that_cannot_be_written_is_not_the_user_s_fault(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        normalise_aside(_file(tmp_path, _rows(LARGE)), tmp_path / "nowhere" / "out.parquet")


def test_a_reader_that_dies_is_a_refused_file(tmp_path: Path) -> None:
    file = _file(tmp_path, _rows(20 * LARGE))
    before = _readers()

    def kill() -> None:
        for pid in wait_until(lambda: _readers() - before, "the reader has started"):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InvalidCorpusError, match="SIGKILL") as caught:
        normalise_aside(file, tmp_path / "out.parquet")
    killer.join()
    assert caught.value.faults[0].code == "reader_crashed"


def _readers() -> set[int]:
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            if b"separate_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found
