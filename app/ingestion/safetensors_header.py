"""The header of a safetensors file, checked against the file before anything maps it.

Stricter than the format's own reader in nothing but size: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from app.domain.errors import Fault, InvalidModelError
from app.ingestion.names import is_storable

MAX_HEADER_BYTES = 16 << 20
"""The format allows 100 MB; a model of 100,000 tensors needs 12."""
MAX_RANK = 16
MAX_ELEMENTS = 1 << 62
_LENGTH_BYTES = 8
_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor, without its values."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names and shapes of all tensors.

    Raises:
        InvalidModelError: `weights_invalid`: the header is broken, or does not fit the file.
    """
    try:
        return _checked(_parsed(path), path)
    except _HeaderError as error:
        detail = f"{path.name}: {error}; the file is damaged or cut off, so save the model again"
        faults = [Fault(path.name, "weights_invalid", detail)]
        raise InvalidModelError(
            f"{detail}. Nothing was stored", faults=faults, code="weights_invalid"
        ) from error


class _HeaderError(Exception):
    pass


def _parsed(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise _HeaderError(f"its header claims {length} bytes, the file has {size}")
        if length > MAX_HEADER_BYTES:
            raise _HeaderError(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _HeaderError("its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise _HeaderError("its header is not a JSON object")
    return header


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    "".join(found).encode()  # half of a surrogate pair is no name, and raises
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _checked(header: Mapping[str, Any], path: Path) -> dict[str, TensorInfo]:
    metadata = header.get("__metadata__")
    if metadata is not None and not _are_texts(metadata):
        raise _HeaderError("its metadata are not texts by name")
    tensors = {name: _tensor(name, entry) for name, entry in header.items() if name != "__metadata__"}
    if not tensors:
        raise _HeaderError("it holds no tensors")
    with path.open("rb") as file:
        start = _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise _HeaderError(f"the tensor {name[:100]!r} overlaps another, or leaves a gap")
        position = tensor.end
    if start + position != path.stat().st_size:
        raise _HeaderError(f"its tensors need {start + position} bytes, the file has {path.stat().st_size}")
    return tensors


def _tensor(name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _HeaderError(f"the tensor {name[:100]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise _HeaderError(f"the tensor {name[:100]!r} has the unknown type {str(dtype)[:20]!r}")
    if not _are_sizes(shape) or len(shape) > MAX_RANK or not _are_sizes(offsets) or len(offsets) != 2:
        raise _HeaderError(f"the tensor {name[:100]!r} has an impossible shape or place")
    tensor = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * _BYTES[dtype] != tensor.end - tensor.begin:
        raise _HeaderError(f"the tensor {name[:100]!r} has another size than its shape")
    return tensor


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= MAX_ELEMENTS for v in values)


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) and is_storable(v) for v in values.values())
