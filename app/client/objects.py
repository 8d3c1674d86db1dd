"""What the service answers, typed. Unknown fields are kept, so that newer services work."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.client.errors import Fault
from app.domain.status import TERMINAL


class ApiObject(BaseModel):
    """An object of the API; fields that this client does not know are in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Corpus(ApiObject):
    """Uploaded texts."""

    id: str
    name: str | None = None
    texts: int = 0
    size_bytes: int = 0
    labelled: bool = False
    """True when it has gold labels, which only an evaluation reads."""
    created_at: datetime | None = None
    expires_at: datetime | None = None


class Model(ApiObject):
    """An uploaded teacher."""

    id: str
    name: str | None = None
    architecture: str = ""
    labels: list[str] = []
    parameters: int = 0
    size_bytes: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None


class Student(ApiObject):
    """What a job has made: a Hugging Face folder with one classifier over the union of the labels."""

    id: str
    amalgamation_id: str | None = None
    name: str | None = None
    architecture: str = ""
    labels: list[str] = []
    parameters: int = 0
    size_bytes: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None


class StudentFile(ApiObject):
    """One line of a student's manifest."""

    path: str
    """Relative to the student's folder, with `/`."""
    sha256: str
    size_bytes: int


class LabelProbability(ApiObject):
    """One class, and how probable it is."""

    label: str
    probability: float


class Prediction(ApiObject):
    """What a student says of one text."""

    label: str
    """The most probable class."""
    probability: float
    top: list[LabelProbability] = []
    """The most probable classes, in falling order."""
    truncated: bool = False
    """True when the text is longer than the student reads."""


class Predictions(ApiObject):
    """What a student says of each text, in the order of the texts."""

    student_id: str
    digest: str = ""
    data: list[Prediction]


class Progress(ApiObject):
    """How far a job is; fractions are of 1."""

    fraction: float | None = None
    stage_fraction: float | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    updated_at: datetime | None = None


class Failure(ApiObject):
    """Why a job failed."""

    code: str = "internal"
    message: str = ""
    stage: str | None = None
    retryable: bool = False
    hint: str | None = None


class Transition(ApiObject):
    """A status that a job had, and since when."""

    status: str
    at: datetime
    attempt: int = 0


class Plan(ApiObject):
    """What a job would be; the service's OpenAPI document describes the parts."""

    would_be_accepted: bool
    problems: list[Fault] = []
    """For which it would be refused, all at once."""
    labels: dict[str, Any] = {}
    """`union`, `shared`, `similar`, `placeholders`."""
    teachers: list[dict[str, Any]] = []
    corpus: dict[str, Any] | None = None
    estimates: dict[str, Any] = {}


class Webhook(ApiObject):
    """Where you are told what becomes of jobs."""

    id: str
    url: str = ""
    events: list[str] = []
    description: str | None = None
    enabled: bool = True
    disabled_reason: str | None = None
    secret: str | None = None
    """`whsec_…`: only in the answers of `create` and `rotate`."""
    created_at: datetime | None = None


class WebhookDelivery(ApiObject):
    """One message to one webhook, and every attempt to send it."""

    id: str
    event: str = ""
    status: str = ""
    amalgamation_id: str | None = None
    attempts: list[dict[str, Any]] = []
    next_attempt_at: datetime | None = None
    created_at: datetime | None = None


class Event(ApiObject):
    """One thing that happened to a job; numbered per job without gaps."""

    sequence: int
    type: str = ""
    message: str = ""
    data: dict[str, Any] = {}
    created_at: datetime | None = None


class Checkpoint(ApiObject):
    """A state of a job's training, complete as a model."""

    id: str
    """`stu-…@step-200`: to download it, or to name it as a teacher."""
    amalgamation_id: str | None = None
    revision: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float = 0.0
    """Mean training loss of the present epoch so far."""
    size_bytes: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None


class Amalgamation(ApiObject):
    """A job as the service shows it. Statuses and stages may be ones that this client does not know."""

    id: str
    status: str
    stage: str | None = None
    name: str | None = None
    progress: Progress = Progress()
    queue_position: int | None = None
    attempt: int = 0
    heartbeat_at: datetime | None = None
    failure: Failure | None = None
    transitions: list[Transition] = []
    student_id: str | None = None
    """None also where the method trains no student: then `amalgamations.texts` has the answers."""
    report: dict[str, Any] | None = None
    metadata: dict[str, str] = {}
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """True when the status changes no more, unless the job is resumed."""
        return self.status in TERMINAL
