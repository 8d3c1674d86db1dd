"""What the API answers: the objects of the contract, made from rows. Times are RFC 3339 in UTC."""

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from app.domain.recipe import Recipe, ResolvedTeacher
from app.domain.status import RETRYABLE, FailureCode, Status
from app.persistence import tables
from app.services.jobs import Job
from app.services.reports import brief

Item = TypeVar("Item", bound=BaseModel)


class _LikeRecipe:
    """Makes OpenAPI show a `Recipe`."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(Recipe.__pydantic_core_schema__)


StoredRecipe = Annotated[dict[str, Any], _LikeRecipe]
"""Not validated again: a recipe of an older version must still be shown."""


class Page(BaseModel, Generic[Item]):
    """One page of a list, in the order of ids, which is the order of creation."""

    model_config = ConfigDict(json_schema_extra={"description": "One page of a list, in the order of ids."})

    data: list[Item]
    has_more: bool = Field(description="Ask for the next page with `after=<last_id>`, or follow `Link`.")
    first_id: str | None
    last_id: str | None


class Transition(BaseModel):
    """A status that the job had, and since when."""

    status: Status
    at: datetime
    attempt: int


class Progress(BaseModel):
    """How far a job is; fractions of 1."""

    fraction: float = 0.0
    stage_fraction: float | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    updated_at: datetime | None = None


class Failure(BaseModel):
    """Why a job failed."""

    code: FailureCode
    message: str
    stage: str | None = None
    retryable: bool = Field(description="The same request may work later, or on another worker.")
    hint: str | None = Field(None, description="What to do about it.")

    @classmethod
    def of(cls, failure: dict[str, Any]) -> Self:
        """From the column, which may leave out what follows from the code."""
        return cls.model_validate({"retryable": failure.get("code") in RETRYABLE} | failure)


class Teacher(ResolvedTeacher):
    """A teacher as it was found when the job was created."""

    model_config = ConfigDict(extra="ignore")

    storage_prefix: str | None = Field(None, exclude=True)


class Amalgamation(BaseModel):
    """A job."""

    id: str
    name: str | None
    status: Status
    stage: str | None = Field(description="What a running job does; accept names that you do not know.")
    transitions: list[Transition]
    progress: Progress
    queue_position: int | None = Field(description="Jobs that will be taken before this one.")
    attempt: int
    heartbeat_at: datetime | None
    failure: Failure | None
    labels: list[str] = Field(description="The classes of the answer: the union of the teachers'.")
    teachers: list[Teacher]
    corpus_id: str
    student_id: str | None = Field(
        description="There when the job has succeeded, or was cancelled with `keep_best`. Null where the "
        "method trains none (`ensemble`): `/amalgamations/{id}/texts` has what the teachers answer together."
    )
    report: dict[str, Any] | None = Field(
        description="What it found out, without each label's figures: `/amalgamations/{id}/report` has all."
    )
    recipe: StoredRecipe = Field(
        description="The request, with its defaults; POST it again to repeat the job."
    )
    metadata: dict[str, str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When it may be removed; null: it is kept.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """As the contract shows it."""
        row = job.row
        return cls(
            id=row.id,
            name=row.name,
            status=Status(row.status),
            stage=row.stage if row.status in (Status.RUNNING, Status.CANCELLING) else None,
            transitions=[Transition.model_validate(each) for each in row.transitions],
            progress=Progress.model_validate(row.progress),
            queue_position=job.queue_position,
            attempt=row.attempt,
            heartbeat_at=row.heartbeat_at,
            failure=Failure.of(row.failure) if row.failure else None,
            labels=row.resolved["labels"],
            teachers=[Teacher.model_validate(each) for each in row.resolved["teachers"]],
            corpus_id=row.resolved["corpus_id"],
            student_id=row.student_id,
            report=brief(row.report),
            recipe=row.recipe,
            metadata=row.user_metadata,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            expires_at=row.expires_at,
        )


class Event(BaseModel):
    """One thing that happened to a job; numbered per job without gaps, from 1."""

    sequence: int
    type: str = Field(description="`status`, `stage`, `metric`, `checkpoint`, `warning`, or a newer one.")
    message: str
    data: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, row: tables.Event) -> Self:
        """As the contract shows it."""
        return cls.model_validate(row, from_attributes=True)


class EventPage(BaseModel):
    """Events, oldest first."""

    data: list[Event]
    has_more: bool = Field(description="Ask for the next page with `after=<last_sequence>`.")
    first_id: int | None
    last_id: int | None
    last_sequence: int = Field(description="Of the last event here; the given `after` when there is none.")


class StudentFile(BaseModel):
    """One line of a student's manifest."""

    path: str
    size_bytes: int
    sha256: str


class StudentFiles(BaseModel):
    """The manifest of a student."""

    data: list[StudentFile]


class Student(BaseModel):
    """What a job made: one classifier over the union of the labels, as a Hugging Face folder."""

    id: str
    amalgamation_id: str
    name: str | None
    architecture: str
    labels: list[str]
    parameters: int
    size_bytes: int
    digest: str = Field(description="sha256 over the manifest: names the content.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When it may be removed; null: it is kept.")

    @classmethod
    def of(cls, row: tables.Student) -> Self:
        """As the contract shows it."""
        return cls.model_validate(row, from_attributes=True)
