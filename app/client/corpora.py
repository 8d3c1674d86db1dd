"""`client.corpora`: unlabelled texts to learn from, and labelled ones to measure on."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

from app.client.errors import InputError
from app.client.objects import ApiObject, Corpus
from app.client.pages import every
from app.client.transport import Transport


class CorpusPreview(ApiObject):
    """The first texts of a corpus."""

    data: Sequence[dict[str, Any]] = ()


class Corpora:
    """Corpora on the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        source: str | Path | BinaryIO | Iterable[str],
        *,
        name: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
    ) -> Corpus:
        """Upload texts; the same content twice is one corpus.

        Args:
            source: path of a `.txt` (a text a line), `.jsonl`, `.csv`, `.tsv` or `.parquet` file, also with
                `.gz` or `.zst`; or an open file; or the texts themselves.
            name: of the file; needed for an open file without one, for its ending tells the format.
            text_column: where the texts are, `text` by default.
            label_column: where gold labels are; only evaluations read them.

        Raises:
            InputError: there is no such file.
            InvalidRequestError: the service cannot read it; the message has the first ten places.
        """
        columns = {"text_column": text_column, "label_column": label_column}
        fields = {key: value for key, value in columns.items() if value is not None}
        if isinstance(source, str | Path):
            return self._upload_path(_existing(Path(source)), name, fields)
        if _is_file(source):
            return self._send(source, name or _name_of(source), fields)
        return self._send(_lines(cast("Iterable[str]", source)), name or "texts.jsonl", fields)

    def get(self, corpus_id: str) -> Corpus:
        """One corpus."""
        return self._transport.fetch(Corpus, "GET", f"/corpora/{corpus_id}")

    def list(self, *, order: str = "desc", page_size: int = 100) -> Iterator[Corpus]:
        """All corpora, the newest first; pages are read as you go on."""
        return every(self._transport, Corpus, "/corpora", {"order": order}, page_size)

    def preview(self, corpus_id: str, limit: int = 10) -> Sequence[dict[str, Any]]:
        """The first rows."""
        path = f"/corpora/{corpus_id}/preview"
        return self._transport.fetch(CorpusPreview, "GET", path, params={"limit": limit}).data

    def delete(self, corpus_id: str) -> None:
        """Remove it; refused while a job needs it."""
        self._transport.send("DELETE", f"/corpora/{corpus_id}")

    def _upload_path(self, path: Path, name: str | None, fields: dict[str, str]) -> Corpus:
        with path.open("rb") as file:
            return self._send(file, name or path.name, fields)

    def _send(self, file: BinaryIO, name: str, fields: dict[str, str]) -> Corpus:
        def arguments() -> dict[str, Any]:
            if can_rewind:
                file.seek(0)
            return {"files": {"file": (name, file)}, "data": fields}

        can_rewind = file.seekable()
        return self._transport.fetch(Corpus, "POST", "/corpora", arguments=arguments, repeatable=can_rewind)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"there is no file {path}: give the path of a .txt, .jsonl, .csv, .tsv or .parquet file"
        )
    return path


def _is_file(source: object) -> TypeGuard[BinaryIO]:
    return hasattr(source, "read")


def _name_of(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    if not isinstance(name, str):
        raise InputError("give name='texts.jsonl' (or another ending), so that muka knows the file's format")
    return Path(name).name


def _lines(texts: Iterable[str]) -> BinaryIO:
    return io.BytesIO(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
