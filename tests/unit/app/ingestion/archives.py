"""Archives and model folders for tests, made by hand."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "refund", "1": "invoice", "2": "other"},
}


def safetensors(shapes: Mapping[str, list[int]]) -> bytes:
    """A file of zeros in float32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    return with_header(json.dumps(header).encode(), bytes(position))


def with_header(header: bytes, content: bytes = b"") -> bytes:
    """A file with this header, whatever it says."""
    return struct.pack("<Q", len(header)) + header + content


def model_files(**changes: bytes | None) -> dict[str, bytes]:
    """A small classifier's folder; `config_json=None` leaves config.json out."""
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors({"bert.embeddings.weight": [7, 4], "classifier.weight": [3, 4]}),
        "tokenizer.json": b"{}",
    }
    files |= {name.replace("__", "-").replace("_json", ".json"): content for name, content in changes.items()}
    return {name: content for name, content in files.items() if content is not None}


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A .tar, or with mode `w:gz` a .tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def tar_with(member: tarfile.TarInfo, files: Mapping[str, bytes] | None = None) -> bytes:
    """A .tar with one strange member before the good ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(member)
        for name, content in (files or model_files()).items():
            plain = tarfile.TarInfo(name)
            plain.size = len(content)
            archive.addfile(plain, io.BytesIO(content))
    return out.getvalue()


def zipped(files: Mapping[str, bytes], attributes: Mapping[str, int] | None = None) -> bytes:
    """A .zip; `attributes` are Unix modes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (attributes or {}).get(name, 0o100644) << 16
            archive.writestr(info, content)
    return out.getvalue()
