"""A model's folder as a tar, made while it is sent: no copy on the disk, and its size known beforehand."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.client.errors import InputError

WANTED = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.jinja",
)
"""What a classifier is loaded from; optimizer states, logs and pickled weights stay at home."""

_CHUNK = 1 << 16


@dataclass(frozen=True)
class FolderArchive:
    """A tar of the relevant files of a folder."""

    folder: Path
    files: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> "FolderArchive":
        """The archive of a Hugging Face folder.

        Raises:
            InputError: it is no such folder, or has only pickled weights.
        """
        files = sorted({path for pattern in WANTED for path in folder.glob(pattern) if path.is_file()})
        names = {path.name for path in files}
        if "config.json" not in names:
            raise InputError(
                f"{folder} is no Hugging Face model: it has no config.json. "
                "Give the folder that `model.save_pretrained(folder)` has written"
            )
        if not any(name.endswith(".safetensors") for name in names):
            raise InputError(
                f"{folder} has no *.safetensors weights, and muka loads no others, for pickles can run code. "
                "Load the model and save it again: `model.save_pretrained(folder)`"
            )
        return cls(folder, tuple(files))

    @property
    def size_bytes(self) -> int:
        """Of the whole tar."""
        blocks = sum(len(_header(path)) + _padded(path.stat().st_size) for path in self.files)
        return blocks + 2 * tarfile.BLOCKSIZE

    def open(self) -> "ArchiveReader":
        """The tar as a file that can be read from its beginning, again and again."""
        return ArchiveReader(self)

    def chunks(self) -> Iterator[bytes]:
        """The tar, bit by bit."""
        for path in self.files:
            yield _header(path)
            yield from _content(path)
        yield bytes(2 * tarfile.BLOCKSIZE)


class ArchiveReader(io.RawIOBase):
    """What httpx needs of a file that it uploads: `read`, and its length through `seek` and `tell`."""

    def __init__(self, archive: FolderArchive) -> None:
        self._archive = archive
        self.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To the beginning, or to the end: a tar that is made on the fly has no other places."""
        if offset != 0 or whence not in {io.SEEK_SET, io.SEEK_END}:
            raise io.UnsupportedOperation("a folder's archive is read from its beginning")
        is_start = whence == io.SEEK_SET
        self._chunks = self._archive.chunks() if is_start else iter(())
        self._pending = b""
        self._position = 0 if is_start else self._archive.size_bytes
        return self._position

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, none at the end."""
        if not self._pending:
            self._pending = next((chunk for chunk in self._chunks if chunk), b"")
        end = len(self._pending) if size < 0 else size
        part, self._pending = self._pending[:end], self._pending[end:]
        self._position += len(part)
        return part


def _header(path: Path) -> bytes:
    """Name and size only: the same files give the same tar."""
    entry = tarfile.TarInfo(path.name)
    entry.size = path.stat().st_size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _content(path: Path) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sent += len(chunk)
            yield chunk
    yield bytes(_padded(sent) - sent)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
