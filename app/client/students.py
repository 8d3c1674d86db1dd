"""`client.students`: what jobs have made."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from app.client.checkpoints import files_url
from app.client.download import Download, OnProgress
from app.client.objects import Predictions, Student, StudentFile
from app.client.pages import Page, every
from app.client.transport import Transport


class Students:
    """Students on the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, student_id: str) -> Student:
        """One student."""
        return self._transport.fetch(Student, "GET", f"/students/{student_id}")

    def list(self, *, order: str = "desc", page_size: int = 100) -> Iterator[Student]:
        """All students, the newest first; pages are read as you go on."""
        return every(self._transport, Student, "/students", {"order": order}, page_size)

    def files(self, student_id: str) -> tuple[StudentFile, ...]:
        """The manifest: every file with its sha256 and size; also of a checkpoint, `stu-…@step-200`."""
        manifest = self._transport.fetch(Page[StudentFile], "GET", files_url(student_id))
        return tuple(manifest.data)

    def delete(self, student_id: str) -> None:
        """Remove the student and its files."""
        self._transport.send("DELETE", f"/students/{student_id}")

    def predict(self, student: str | Student, texts: Sequence[str], *, top_k: int | None = 5) -> Predictions:
        """Ask the student about up to 256 texts; it stays loaded on the service for the next time.

        Args:
            student: it, or its id `stu-…`.
            texts: none of them empty.
            top_k: how many labels to tell of each text; None: all.

        Raises:
            ServiceError: 504 when no prediction worker answers in time, as one that starts may not.
        """
        student_id = student if isinstance(student, str) else student.id
        body = {"texts": list(texts), "top_k": top_k}
        return self._transport.fetch(Predictions, "POST", f"/students/{student_id}/predictions", json=body)

    def download(
        self, student_id: str, folder: str | Path, *, on_progress: OnProgress | None = None, retries: int = 5
    ) -> Path:
        """Fetch the student's files into a folder that `transformers` loads.

        A download that was cut off goes on where it stopped, in this call or in a later one. Every file
        is checked against the manifest's sha256 before it gets its name.

        Args:
            student_id: `stu-…`, or `stu-…@step-200` for a checkpoint.
            folder: made when it is not there; files that are whole already are left alone.
            on_progress: called as bytes arrive.
            retries: tries in a row that bring nothing, after which it gives up.

        Returns:
            The folder.

        Raises:
            ChecksumError: a file arrived damaged, twice.
            ConnectionFailedError: the connection broke too often; call again to go on.
        """
        target = Path(folder)
        manifest = self.files(student_id)
        Download(self._transport, files_url(student_id), target, on_progress, retries).run(manifest)
        return target
