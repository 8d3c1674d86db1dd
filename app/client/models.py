"""`client.models`: teachers that are not on the Hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.client.errors import InputError
from app.client.folder_archive import FolderArchive
from app.client.objects import Model
from app.client.pages import every
from app.client.transport import Transport


class Models:
    """Uploaded teachers on the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(self, source: str | Path, *, name: str | None = None) -> Model:
        """Upload a fine-tuned classifier; the same content twice is one model.

        Args:
            source: a Hugging Face folder, which is packed while it is sent, without what a teacher does
                not need; or a `.tar`, `.tar.gz` or `.zip` of one.
            name: by default that of the folder or archive.

        Raises:
            InputError: there is no such thing, or it holds no safetensors classifier.
            InvalidRequestError: the service cannot use it; the message says why.
        """
        path = Path(source)
        if path.is_dir():
            return self._upload_folder(FolderArchive.of(path), name or path.resolve().name)
        if not path.is_file():
            raise InputError(
                f"there is no folder or archive {path}: give one that save_pretrained has written"
            )
        return self._upload_archive(path, name or path.name)

    def get(self, model_id: str) -> Model:
        """One model."""
        return self._transport.fetch(Model, "GET", f"/models/{model_id}")

    def list(self, *, order: str = "desc", page_size: int = 100) -> Iterator[Model]:
        """All models, the newest first; pages are read as you go on."""
        return every(self._transport, Model, "/models", {"order": order}, page_size)

    def delete(self, model_id: str) -> None:
        """Remove it; refused while a job needs it."""
        self._transport.send("DELETE", f"/models/{model_id}")

    def _upload_folder(self, archive: FolderArchive, name: str) -> Model:
        with archive.open() as file:
            return self._send(file, f"{name}.tar")

    def _upload_archive(self, path: Path, name: str) -> Model:
        with path.open("rb") as file:
            return self._send(file, name)

    def _send(self, file: Any, name: str) -> Model:
        def arguments() -> dict[str, Any]:
            file.seek(0)
            return {"files": {"file": (name, file)}}

        return self._transport.fetch(Model, "POST", "/models", arguments=arguments)
