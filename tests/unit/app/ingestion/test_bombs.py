"""Small files that would become large, or take for ever: real ones, refused while they are read.

The plain ones (a long run of zeros as .gz, .zst, .tar.gz, .zip) are in `test_corpus_file` and `test_unpack`.
"""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from app.domain.errors import InvalidCorpusError, InvalidModelError, InvalidRequestError, PayloadTooLargeError
from app.ingestion import separate_process
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.corpus_file import CorpusFile
from app.ingestion.corpus_formats import CorpusFormat, Layout
from app.ingestion.decompression import Compression, open_bounded
from app.ingestion.normalise import Limits
from app.ingestion.rows import Columns
from app.ingestion.separate_process import normalise_aside
from app.ingestion.unpack import unpack
from tests.unit.app.ingestion.archives import model_files, tar, zipped

MB = 1 << 20
GB = 1 << 30
PACKERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: zstandard.compress,
}


def _read(folder: Path, content: bytes, compression: Compression) -> bytes:
    file = folder / "upload"
    file.write_bytes(content)
    with open_bounded(file, compression, 10 * GB) as stream:
        return stream.read()


class TestManyMembers:
    """A compressed file may be many pieces, one after the other; each costs time, even without content."""

    @pytest.mark.parametrize("compression", PACKERS)
    def test_that_are_empty_are_refused_after_a_megabyte(
        self, tmp_path: Path, compression: Compression
    ) -> None:
        bomb = PACKERS[compression](b"") * 500_000
        with pytest.raises(InvalidRequestError, match=r"1,04\d,\d{3} compressed bytes hold only 0 bytes"):
            _read(tmp_path, bomb, compression)

    @pytest.mark.parametrize("compression", PACKERS)
    def test_that_hold_a_character_each_are_refused(self, tmp_path: Path, compression: Compression) -> None:
        with pytest.raises(InvalidRequestError, match="compress the file again"):
            _read(tmp_path, PACKERS[compression](b"x") * 300_000, compression)

    def test_hidden_behind_an_archive_are_refused(self, tmp_path: Path) -> None:
        bomb = gzip.compress(b"") * 100_000 + gzip.compress(tar(model_files()))
        with pytest.raises(InvalidRequestError, match="compress the file again"):
            _unpacked(tmp_path, bomb, ArchiveKind.TAR_GZ)

    @pytest.mark.parametrize("compression", PACKERS)
    def test_of_honest_programs_are_read(self, tmp_path: Path, compression: Compression) -> None:
        texts = [f"text {number} of many\n".encode() * 50 for number in range(4000)]
        packed = b"".join(map(PACKERS[compression], texts))
        assert _read(tmp_path, packed, compression) == b"".join(texts)

    @pytest.mark.parametrize("compression", PACKERS)
    def test_that_cannot_be_compressed_are_read(self, tmp_path: Path, compression: Compression) -> None:
        noise = zstandard.compress(b"".join(struct.pack(">d", number**0.5) for number in range(400_000)))
        assert len(noise) > 2 * MB
        assert _read(tmp_path, PACKERS[compression](noise), compression) == noise


class TestNested:
    def test_layers_of_compression_are_not_peeled(self, tmp_path: Path) -> None:
        """One layer at most: what is inside is content, and this content is no text."""
        inside = gzip.compress(bytes(300 * MB))
        with pytest.raises(InvalidCorpusError):
            _normalised(tmp_path, gzip.compress(inside), CorpusFormat(Layout.TXT, Compression.GZIP))

    def test_archives_in_an_archive_are_left_as_they_are(self, tmp_path: Path) -> None:
        inner = zipped({"more.zip": zipped({"zeros": bytes(50 * MB)})})
        files = _unpacked(tmp_path, zipped(model_files() | {"inner.zip": inner}), ArchiveKind.ZIP)
        assert files == model_files()


class TestZip:
    def test_whose_members_share_their_bytes_is_refused(self, tmp_path: Path) -> None:
        """As David Fifield's: the directory names the same compressed megabytes again and again."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.json", bytes(16 * MB))
            [only] = archive.filelist
            for number in range(60):
                twin = zipfile.ZipInfo(f"{number}.json")
                for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                    setattr(twin, field, getattr(only, field))
                archive.filelist.append(twin)
                archive.NameToInfo[twin.filename] = twin
        with pytest.raises(InvalidModelError, match="overlap"):
            _unpacked(tmp_path, out.getvalue(), ArchiveKind.ZIP)

    def test_with_a_directory_as_large_as_memory_is_refused(self, tmp_path: Path) -> None:
        bomb = zipped({f"{number}.txt": b"" for number in range(50_000)})
        with pytest.raises(InvalidModelError, match="directory is too large"):
            _unpacked(tmp_path, bomb, ArchiveKind.ZIP)


@pytest.fixture(scope="module")
def parquet_bomb() -> bytes:
    """A text of 500 MB in 16 kB."""
    out = io.BytesIO()
    table = pa.table({"text": ["0" * (500 * MB), "b"]})
    pq.write_table(table, out, compression="zstd", use_dictionary=False, write_statistics=False)
    assert len(out.getvalue()) < 50_000
    return out.getvalue()


class TestParquet:
    """A page of zeros is packed 30,000 times smaller, by the format itself."""

    def test_that_tells_its_size_is_refused_unread(self, tmp_path: Path, parquet_bomb: bytes) -> None:
        with pytest.raises(
            PayloadTooLargeError, match=r"524,28\d,\d+ bytes.*limit of this file is 67,108,864"
        ):
            _normalised(tmp_path, parquet_bomb, CorpusFormat(Layout.PARQUET, Compression.NONE))

    def test_that_lies_dies_in_a_process_of_its_own(
        self, tmp_path: Path, parquet_bomb: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(separate_process, "MEMORY_BYTES", 3 * GB // 4)
        footer = len(parquet_bomb) - 8 - int.from_bytes(parquet_bomb[-8:-4], "little")
        told = pq.read_metadata(io.BytesIO(parquet_bomb)).row_group(0).column(0).total_uncompressed_size
        lie = parquet_bomb[:footer] + parquet_bomb[footer:].replace(
            _thrift(told), _thrift(1000, len(_thrift(told)))
        )
        assert pq.read_metadata(io.BytesIO(lie)).row_group(0).column(0).total_uncompressed_size == 1000
        with pytest.raises(InvalidCorpusError, match="needs too much memory"):
            _normalised(tmp_path, lie, CorpusFormat(Layout.PARQUET, Compression.NONE))


def _thrift(number: int, length: int = 0) -> bytes:
    """As Parquet's footer writes numbers, padded to a length."""
    groups: list[int] = []
    rest = number << 1
    while rest or len(groups) < length or not groups:
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    groups[-1] &= 0x7F
    return bytes(groups)


def _unpacked(folder: Path, content: bytes, kind: ArchiveKind) -> dict[str, bytes]:
    source, target = folder / "upload", folder / "model"
    source.write_bytes(content)
    target.mkdir()
    unpack(source, kind, target, 10 * GB)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def _normalised(folder: Path, content: bytes, kind: CorpusFormat) -> None:
    source = folder / "upload"
    source.write_bytes(content)
    file = CorpusFile(source, kind, Columns("text", None), 2 * GB, Limits(1000, 20_000))
    normalise_aside(file, folder / "corpus.parquet")
