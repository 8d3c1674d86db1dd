"""Archives of models: honest ones are unpacked flat, all others are refused, and nothing gets out."""

import contextlib
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidModelError, MukaError, PayloadTooLargeError, UnsupportedFormatError
from app.ingestion.archive_kinds import ArchiveKind, archive_kind
from app.ingestion.unpack import Unpacked, unpack
from tests.unit.app.ingestion.archives import model_files, tar, tar_with, zipped

TAR, TAR_GZ, ZIP = ArchiveKind.TAR, ArchiveKind.TAR_GZ, ArchiveKind.ZIP


def _unpack(folder: Path, content: bytes, kind: ArchiveKind = TAR, max_bytes: int = 10 << 20) -> Unpacked:
    source, target = folder / "upload", folder / "model"
    source.write_bytes(content)
    target.mkdir(exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    return unpack(source, kind, target, max_bytes)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


def _refused(folder: Path, content: bytes, kind: ArchiveKind = TAR) -> InvalidModelError:
    with pytest.raises(InvalidModelError) as caught:
        _unpack(folder, content, kind)
    return caught.value


GOOD = {
    "flat tar": (TAR, tar(model_files())),
    "dotted tar": (TAR, tar({f"./{name}": content for name, content in model_files().items()})),
    "one folder": (TAR_GZ, tar({f"my model/{n}": content for n, content in model_files().items()}, "w:gz")),
    "zip": (ZIP, zipped({f"model/{name}": content for name, content in model_files().items()})),
    "zip of a Mac": (
        ZIP,
        zipped({f"m/{n}": c for n, c in model_files().items()} | {"__MACOSX/m/._config.json": b"x"}),
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_honest_archives_are_unpacked_flat(tmp_path: Path, case: str) -> None:
    kind, content = GOOD[case]
    unpacked = _unpack(tmp_path, content, kind)
    assert _content(tmp_path) == model_files()
    assert unpacked.files.keys() == model_files().keys()


def test_what_is_not_needed_is_left_out_and_listed(tmp_path: Path) -> None:
    extra = {
        "m/pytorch_model.bin": b"pickle",
        "m/modeling_mine.py": b"import os",
        "m/checkpoint-5/config.json": b"{}",
        "m/runs/a/events": b"log",
    }
    unpacked = _unpack(tmp_path, tar({f"m/{name}": c for name, c in model_files().items()} | extra))
    assert unpacked.ignored == sorted(extra)
    assert _content(tmp_path) == model_files()


UNSAFE_NAMES = [
    "../../etc/passwd",
    "a/../../config.json",
    "/etc/passwd",
    "C:/windows/config.json",
    "..\\config.json",
    "a\\b",
    "con\x07fig.json",
    "x" * 600,
    "é" * 130,
]


@pytest.mark.parametrize("name", UNSAFE_NAMES, ids=range(len(UNSAFE_NAMES)))
@pytest.mark.parametrize("kind", [TAR, ZIP])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: ArchiveKind) -> None:
    files = model_files() | {name: b"root::0:0"}
    error = _refused(tmp_path, tar(files) if kind is TAR else zipped(files), kind)
    assert error.problem_code == "archive_unsafe"


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("config.json")
    member.type, member.linkname = kind, "/etc/passwd"
    assert _refused(tmp_path, tar_with(member)).problem_code == "archive_unsafe"


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    content = zipped(model_files() | {"vocab.txt": b"/etc/passwd"}, {"vocab.txt": 0o120777})
    assert _refused(tmp_path, content, ZIP).problem_code == "archive_unsafe"


@pytest.mark.parametrize("second", ["config.json", "./config.json"])
def test_names_twice_are_refused(tmp_path: Path, second: str) -> None:
    member = tarfile.TarInfo(second)
    assert "more than once" in _refused(tmp_path, tar_with(member)).detail


def test_two_folders_are_refused(tmp_path: Path) -> None:
    files = {f"{top}/{name}": content for top in "ab" for name, content in model_files().items()}
    error = _refused(tmp_path, tar(files))
    assert error.faults[0].code == "no_model_folder"
    assert "a, b" in error.detail


BROKEN = {
    "empty": (TAR, b""),
    "junk": (TAR, b"junk" * 1000),
    "junk zip": (ZIP, b"junk" * 1000),
    "junk gz": (TAR_GZ, b"junk" * 1000),
    "tar called zip": (ZIP, tar(model_files())),
    "cut tar": (TAR, tar(model_files())[:1500]),
    "cut at a header": (TAR, tar(model_files())[:1024]),
    "damaged header": (TAR, tar(model_files())[:1024] + b"\xff" * 512 + tar(model_files())[1536:]),
    "cut gz": (TAR_GZ, tar(model_files(), "w:gz")[:-20]),
    "cut zip": (ZIP, zipped(model_files())[:-30]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_damage_is_never_taken_for_the_end(tmp_path: Path, case: str) -> None:
    kind, content = BROKEN[case]
    with pytest.raises(MukaError) as caught:
        _unpack(tmp_path, content, kind)
    assert caught.value.problem_code in {"archive_invalid", "compression_invalid"}
    assert str(tmp_path) not in caught.value.detail


def test_a_damaged_member_of_a_zip_is_noticed(tmp_path: Path) -> None:
    content = bytearray(zipped({"config.json": bytes(range(256)) * 4}))
    content[60] ^= 0xFF
    assert _refused(tmp_path, bytes(content), ZIP).problem_code == "archive_invalid"


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    files = model_files() | {"model.safetensors": bytes(2 << 20)}
    for kind, content in ((TAR, tar(files)), (TAR_GZ, tar(files, "w:gz")), (ZIP, zipped(files))):
        with pytest.raises(PayloadTooLargeError):
            _unpack(tmp_path, content, kind, max_bytes=1 << 20)


def test_bombs_are_refused(tmp_path: Path) -> None:
    files = model_files() | {"model.safetensors": bytes(70 << 20)}
    for kind, content in ((TAR_GZ, gzip.compress(tar(files), 6)), (ZIP, zipped(files))):
        with pytest.raises(PayloadTooLargeError, match="200 times"):
            _unpack(tmp_path, content, kind, max_bytes=1 << 40)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(model_files() | {"config.json": bytes(100_000)}))
    size = (100_000).to_bytes(4, "little")
    while (found := content.find(size)) >= 0:
        content[found : found + 4] = (10).to_bytes(4, "little")
    _refused(tmp_path, bytes(content), ZIP)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    files = {f"ignored/{number}": b"" for number in range(10_001)}
    assert "10000 members" in _refused(tmp_path, tar(model_files() | files)).detail


@pytest.mark.parametrize("size", [0o77777777777, 1 << 62])
def test_a_member_that_claims_more_than_the_limit_is_refused_at_once(tmp_path: Path, size: int) -> None:
    """tarfile would go over it a megabyte at a time, for ever, although the archive has ended."""
    member = tarfile.TarInfo("optimizer.pt")
    member.size = size
    with pytest.raises(PayloadTooLargeError, match=r"optimizer\.pt"):
        _unpack(tmp_path, member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_a_header_as_large_as_memory_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 5 << 20
    out = member.tobuf(tarfile.USTAR_FORMAT) + bytes(5 << 20)
    assert "impossible size" in _refused(tmp_path, out).detail


def test_chained_headers_do_not_overflow_the_stack(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 512
    record = (b"512 comment=" + b"x" * 499 + b"\n") + bytes(0)
    chain = (member.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 3000
    _refused(tmp_path, chain + tar(model_files()))


def test_encrypted_and_exotic_zips_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("config.json", b"{}")
    assert "deflate" in _refused(tmp_path, out.getvalue(), ZIP).detail
    content = bytearray(zipped(model_files()))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in _refused(tmp_path, bytes(content), ZIP).detail


@pytest.mark.parametrize(
    ("name", "media", "kind"),
    [
        ("m.tar", None, TAR),
        ("M.TGZ", None, TAR_GZ),
        ("m.tar.gz", "x/y", TAR_GZ),
        ("m.zip", None, ZIP),
        (None, "application/zip", ZIP),
        ("model", "application/x-tar", TAR),
    ],
)
def test_kinds_are_told_by_name_or_media_type(name: str | None, media: str | None, kind: ArchiveKind) -> None:
    assert archive_kind(filename=name, media_type=media) is kind


@pytest.mark.parametrize(("name", "media"), [("m.rar", "application/zip"), (None, None), ("m.gz", None)])
def test_other_kinds_are_refused(name: str | None, media: str | None) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"\.tar\.gz"):
        archive_kind(filename=name, media_type=media)


SEEDS = [(kind, content) for kind, content in GOOD.values()] + [
    (TAR, tar_with(tarfile.TarInfo("../x"))),
    (ZIP, zipped(model_files() | {"../x": b"y"})),
]


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[ArchiveKind, bytes]:
    kind, seed = draw(st.sampled_from(SEEDS))
    content = bytearray(seed)
    for _ in range(draw(st.integers(0, 5))):
        content[draw(st.integers(0, min(len(content) - 1, 2500)))] = draw(st.integers(0, 255))
    return kind, bytes(content[: draw(st.integers(1, len(content)) | st.just(len(content)))])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_damaged())
def test_any_bytes_are_unpacked_or_refused_and_stay_inside(
    tmp_path: Path, case: tuple[ArchiveKind, bytes]
) -> None:
    kind, content = case
    with contextlib.suppress(MukaError):
        unpacked = _unpack(tmp_path, content, kind)
        assert _content(tmp_path).keys() == unpacked.files.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"upload", "model"}
    assert all(path.is_file() and not path.is_symlink() for path in (tmp_path / "model").iterdir())
    assert not (tmp_path.parent / "x").exists()
