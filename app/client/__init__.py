"""The typed Python client of a muka service. Needs no torch, no FastAPI, no database.

from app.client import MukaClient

with MukaClient() as client:
    job = client.amalgamations.create(teachers=["acme/billing", "acme/shipping"], corpus="cor-…")
    student = job.wait(on_progress=lambda job: print(job.stage, job.progress.fraction)).student()
    client.students.download(student.id, "student/")
"""

from app.client.download import DownloadProgress
from app.client.errors import (
    ApiError,
    ChecksumError,
    ConflictError,
    ConnectionFailedError,
    DownloadError,
    Fault,
    GoneError,
    InputError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    MukaClientError,
    NotFoundError,
    Problem,
    RateLimitedError,
    ServiceError,
    TooLargeError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnsafePathError,
    WaitTimeoutError,
)
from app.client.findings import Metrics, TextRow
from app.client.job import Job
from app.client.muka_client import DEFAULT_URL, MukaClient
from app.client.objects import (
    Amalgamation,
    Checkpoint,
    Corpus,
    Event,
    Failure,
    LabelProbability,
    Model,
    Plan,
    Prediction,
    Predictions,
    Progress,
    Student,
    StudentFile,
    Transition,
    Webhook,
    WebhookDelivery,
)

__all__ = [
    "DEFAULT_URL",
    "Amalgamation",
    "ApiError",
    "Checkpoint",
    "ChecksumError",
    "ConflictError",
    "ConnectionFailedError",
    "Corpus",
    "DownloadError",
    "DownloadProgress",
    "Event",
    "Failure",
    "Fault",
    "GoneError",
    "InputError",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "LabelProbability",
    "Metrics",
    "Model",
    "MukaClient",
    "MukaClientError",
    "NotFoundError",
    "Plan",
    "Prediction",
    "Predictions",
    "Problem",
    "Progress",
    "RateLimitedError",
    "ServiceError",
    "Student",
    "StudentFile",
    "TextRow",
    "TooLargeError",
    "Transition",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnsafePathError",
    "WaitTimeoutError",
    "Webhook",
    "WebhookDelivery",
]
