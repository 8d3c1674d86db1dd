"""Checkpoints as the client sees them, and how a job comes to its end and back."""

from app.client.objects import Amalgamation, Checkpoint
from app.client.pages import every
from app.client.transport import Transport
from app.domain.revisions import MAIN, parse_checkpoint, revision_of


def cancel(transport: Transport, job_id: str, *, keep_best: bool = False) -> Amalgamation:
    """`POST /amalgamations/{id}/cancel`; sending it twice is as good as once."""
    body = {"json": {"keep_best": True}} if keep_best else {}
    return transport.fetch(Amalgamation, "POST", f"/amalgamations/{job_id}/cancel", **body)


def resume(transport: Transport, job_id: str) -> Amalgamation:
    """`POST /amalgamations/{id}/resume`; sent once, for a second time would be refused."""
    return transport.fetch(Amalgamation, "POST", f"/amalgamations/{job_id}/resume", repeatable=False)


def checkpoints_of(transport: Transport, job_id: str) -> tuple[Checkpoint, ...]:
    """`GET /amalgamations/{id}/checkpoints`."""
    return tuple(every(transport, Checkpoint, f"/amalgamations/{job_id}/checkpoints", {}, page_size=100))


def files_url(reference: str) -> str:
    """Where the files of `stu-…` are, or those of `stu-…@step-200`."""
    checkpoint = parse_checkpoint(reference)
    if checkpoint is None:
        return f"/students/{reference.removesuffix(f'@{MAIN}')}/files"
    job_id, step = checkpoint
    return f"/amalgamations/{job_id}/checkpoints/{revision_of(step)}/files"
