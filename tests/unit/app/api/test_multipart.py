"""Forms that arrive in pieces of any size, and what is no form."""

import contextlib
import itertools
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.multipart import MultipartBody
from app.domain.errors import InvalidRequestError, MukaError, PayloadTooLargeError

ALLOWED = frozenset({"name", "text_column"})


def _part(disposition: str, content: bytes) -> bytes:
    head = f"--x\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: text/csv\r\n\r\n"
    return head.encode() + content + b"\r\n"


FILE = bytes(range(256)) + b"\r\n--y\r\n-x--\r\n--"
FORM = (
    _part('name="name"', "Käse".encode())
    + _part('name="file"; filename="ä b.csv"', FILE)
    + _part('name="text_column"', b"body")
    + b"--x--\r\n"
)


def _parse(folder: Path, pieces: list[bytes], limit: int = 1000) -> MultipartBody:
    path = folder / "upload"
    path.unlink(missing_ok=True)
    with closing(MultipartBody(b"x", path, limit, ALLOWED)) as body:
        for piece in pieces:
            body.write(piece)
        body.finish()
    return body


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, len(FORM)), max_size=20))
def test_it_does_not_matter_where_the_body_is_cut(tmp_path: Path, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(FORM)]
    pieces = [FORM[start:end] for start, end in itertools.pairwise(edges)]
    body = _parse(tmp_path, pieces)
    assert (tmp_path / "upload").read_bytes() == FILE
    assert body.fields == {"name": "Käse", "text_column": "body"}
    assert (body.filename, body.media_type) == ("ä b.csv", "text/csv")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_body_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(FORM)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MukaError):
        _parse(tmp_path, [bytes(content[: data.draw(st.integers(0, len(content)))])])


def test_the_limit_is_of_the_file_alone(tmp_path: Path) -> None:
    _parse(tmp_path, [FORM], limit=len(FILE))
    with pytest.raises(PayloadTooLargeError, match="the limit of this upload"):
        _parse(tmp_path, [FORM], limit=len(FILE) - 1)


def test_long_fields_and_many_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError, match="field"):
        _parse(tmp_path, [_part('name="name"', b"y" * 5000)])
    with pytest.raises(PayloadTooLargeError, match="parts"):
        _parse(tmp_path, [_part('name="other"', b"")] * 30)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    form = (
        _part('name="a"', b"1" * 9000) + _part('name="name"', b"1") * 2 + _part('name="file"', b"no filename")
    )
    with pytest.raises(InvalidRequestError) as caught:
        _parse(tmp_path, [form + b"--x--\r\n"])
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
        ("/a", "extra_forbidden"),
        ("/name", "duplicate"),
        ("/file", "no_filename"),
    ]
