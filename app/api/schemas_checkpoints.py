"""What the API answers about checkpoints, and what it is asked when a job is cancelled."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.domain.revisions import checkpoint_id, revision_of
from app.services.checkpoints import Revision


class Cancel(BaseModel):
    """How a job is to end."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"keep_best": True}]}
    )

    keep_best: bool = Field(
        False,
        description="Publish what is trained so far as the job's student. Without labels nothing tells that "
        "an earlier state is better, so this is the newest checkpoint; a running training saves one first.",
    )


class Checkpoint(BaseModel):
    """A state of a training, complete as a model."""

    id: str = Field(description="Names it as a teacher, or as a student's start: `stu-…@step-200`.")
    amalgamation_id: str
    revision: str = Field(description="`step-200`, here and in the Hub door.")
    step: int
    total_steps: int = Field(description="Of the whole training.")
    epoch: float = Field(description="Passes over the corpus so far.")
    loss: float = Field(description="Mean training loss of the present epoch so far.")
    attempt: int = Field(description="Which saved it.")
    size_bytes: int
    digest: str = Field(description="sha256 over the manifest: names the content.")
    created_at: datetime
    expires_at: datetime | None = Field(
        description="When it may be removed; null: not before its job has ended."
    )

    @classmethod
    def of(cls, found: Revision) -> Self:
        """As the contract shows it."""
        row = found.row
        return cls(
            id=checkpoint_id(row.amalgamation_id, row.step),
            amalgamation_id=row.amalgamation_id,
            revision=revision_of(row.step),
            step=row.step,
            total_steps=row.total_steps,
            epoch=row.epoch,
            loss=row.loss,
            attempt=row.attempt,
            size_bytes=row.size_bytes,
            digest=row.digest,
            created_at=row.created_at,
            expires_at=found.expires_at,
        )
