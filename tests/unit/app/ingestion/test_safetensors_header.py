"""Headers of safetensors files: checked against the file, and against the format's own reader."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from app.domain.errors import InvalidModelError
from app.ingestion.safetensors_header import read_header
from tests.unit.app.ingestion.archives import safetensors, with_header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def test_names_and_shapes_are_read(tmp_path: Path) -> None:
    header = read_header(_file(tmp_path, safetensors({"a": [3, 4], "empty": [0], "scalar": []})))
    assert {name: (tensor.shape, tensor.elements) for name, tensor in header.items()} == {
        "a": ((3, 4), 12),
        "empty": ((0,), 0),
        "scalar": ((), 1),
    }


def _header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


BAD = {
    "empty file": b"",
    "short file": b"\x01\x00",
    "header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "huge header": with_header(b"{" + b" " * (17 << 20) + b"}"),
    "no JSON": with_header(b"{nonsense"),
    "deep JSON": with_header(b'{"a":' + b"[" * 100_000),
    "long number": with_header(b'{"a": ' + b"9" * 10_000 + b"}"),
    "a list": with_header(b"[]"),
    "no tensors": with_header(b"{}"),
    "a name twice": with_header(
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": 1}', bytes(8)
    ),
    "unknown type": with_header(_header(a=F32 | {"dtype": "F31"}), bytes(8)),
    "strange type": with_header(_header(a=F32 | {"dtype": ["F32"]}), bytes(8)),
    "another key": with_header(_header(a=F32 | {"more": 1}), bytes(8)),
    "wrong size": with_header(_header(a=F32 | {"shape": [3]}), bytes(8)),
    "negative": with_header(_header(a=F32 | {"shape": [-2]}), bytes(8)),
    "boolean": with_header(_header(a=F32 | {"shape": [True, 2]}), bytes(8)),
    "overflow": with_header(_header(a=F32 | {"shape": [1 << 62, 4]}), bytes(8)),
    "outside": with_header(_header(a=F32), bytes(4)),
    "left over": with_header(_header(a=F32), bytes(9)),
    "overlap": with_header(_header(a=F32, b=F32 | {"data_offsets": [4, 12]}), bytes(12)),
    "gap": with_header(_header(a=F32, b=F32 | {"data_offsets": [12, 20]}), bytes(20)),
    "backwards": with_header(_header(a=F32 | {"data_offsets": [8, 0]}), bytes(8)),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        read_header(_file(tmp_path, BAD[case]))
    assert caught.value.problem_code == "weights_invalid"
    assert caught.value.detail.startswith("model.safetensors: ")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), changes=st.integers(0, 3), cut=st.integers(0, 3))
def test_what_we_accept_the_format_s_reader_accepts(
    tmp_path: Path, seed: int, changes: int, cut: int
) -> None:
    chance = random.Random(seed)
    content = bytearray(safetensors({"a": [2, 3], "b": [4]}))
    for _ in range(changes):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path = _file(tmp_path, bytes(content[: len(content) - cut]))
    with contextlib.suppress(InvalidModelError):
        ours = read_header(path)
        try:
            with safe_open(path, framework="numpy") as opened:
                assert set(opened.keys()) == ours.keys()
        except SafetensorError as error:
            # It also refuses strange metadata, which we do not read.
            assert "metadata" in str(error).lower()  # noqa: PT017
