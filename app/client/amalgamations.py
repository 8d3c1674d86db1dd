"""`client.amalgamations`: the jobs."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.client.checkpoints import cancel, checkpoints_of, resume
from app.client.event_stream import EventStream
from app.client.findings import Metrics, TextRow, texts_of
from app.client.job import Job, events_of
from app.client.objects import Amalgamation, Checkpoint, Corpus, Event, Model, Plan, Student
from app.client.pages import every
from app.client.transport import Transport

Options = Mapping[str, Any] | BaseModel
"""A part of a recipe: a mapping, or a part of `app.domain.recipe`."""

TeacherLike = str | Options | Model | Student
"""A Hub id, `mdl-…` or `stu-…`; a mapping with `model` and `labels`; or what an upload has returned."""


class Amalgamations:
    """Jobs on the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        teachers: Sequence[TeacherLike],
        corpus: str | Corpus | Options,
        student: Options | None = None,
        method: Options | None = None,
        training: Options | None = None,
        evaluation: str | Corpus | Options | None = None,
        name: str | None = None,
        max_runtime_seconds: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job; what is left out gets the service's defaults.

        Args:
            teachers: two or more. `{"model": …, "labels": {"old": "new", "other": None}}` renames and drops.
            corpus: id of an uploaded corpus, the corpus itself, or `{"texts": […]}`.
            student: `init_from`, `layers`.
            method: `name` (consensus, muka, …) and its settings: `temperature`, `mc_samples`, …
            training: `epochs`, `batch_size`, `learning_rate`, `max_length`, `seed`, …
            evaluation: a labelled corpus to measure on: its id, the corpus, or `{"corpus": id}`.
            name: for people.
            max_runtime_seconds: after which the job fails as `timeout`.
            metadata: your own keys and values, to find the job again.
            idempotency_key: the same key never makes a second job; by default a fresh one for each call,
                so that the client's own retries are safe.
        """
        body = {
            "name": name,
            "teachers": [_reference(teacher) for teacher in teachers],
            "corpus": _reference(corpus),
            "student": _options(student),
            "method": _options(method),
            "training": _options(training),
            "evaluation": _evaluation(evaluation),
            "max_runtime_seconds": max_runtime_seconds,
            "metadata": None if metadata is None else dict(metadata),
        }
        return self.submit({key: value for key, value in body.items() if value is not None}, idempotency_key)

    def submit(self, recipe: Options, idempotency_key: str | None = None) -> Job:
        """Submit a whole body of `POST /amalgamations`, for instance one read from a file."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        made = self._transport.fetch(
            Amalgamation, "POST", "/amalgamations", json=_options(recipe), headers=headers
        )
        return Job(self._transport, made)

    def plan(
        self, *, teachers: Sequence[TeacherLike], corpus: str | Corpus | Options, **options: Any
    ) -> Plan:
        """What `create` with the same arguments would make, and every problem it would be refused for.

        Nothing is stored. `options` are those of `create`: `student`, `method`, `training`, `evaluation`, …
        """
        evaluation = _evaluation(options.pop("evaluation", None))
        body = {
            "teachers": [_reference(teacher) for teacher in teachers],
            "corpus": _reference(corpus),
            "evaluation": evaluation,
            **{key: _options(value) if _is_part(value) else value for key, value in options.items()},
        }
        given = {key: value for key, value in body.items() if value is not None}
        return self._transport.fetch(Plan, "POST", "/amalgamations/plan", json=given)

    def get(self, job_id: str) -> Job:
        """One job."""
        return Job(self._transport, self._transport.fetch(Amalgamation, "GET", f"/amalgamations/{job_id}"))

    def list(
        self,
        *,
        status: str | None = None,
        metadata: Mapping[str, str] | None = None,
        order: str = "desc",
        page_size: int = 100,
    ) -> Iterator[Job]:
        """All jobs, the newest first; pages are read as you go on."""
        wanted = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        parameters = {"status": status, "order": order, **wanted}
        found = every(self._transport, Amalgamation, "/amalgamations", parameters, page_size)
        return (Job(self._transport, amalgamation) for amalgamation in found)

    def cancel(self, job_id: str, *, keep_best: bool = False) -> Job:
        """End a job: at once when it is queued, as soon as its worker has let go when it runs.

        `keep_best`: what is trained by then becomes its student.
        """
        return Job(self._transport, cancel(self._transport, job_id, keep_best=keep_best))

    def resume(self, job_id: str) -> Job:
        """Let a job that failed or was cancelled go on from its newest checkpoint."""
        return Job(self._transport, resume(self._transport, job_id))

    def checkpoints(self, job_id: str) -> tuple[Checkpoint, ...]:
        """What a job's training has saved, the newest first."""
        return checkpoints_of(self._transport, job_id)

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What has happened to a job since event `after`, oldest first."""
        return events_of(self._transport, job_id, after)

    def stream(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """The events behind number `after` as they happen, to the one that ends the job.

        Cut connections and restarts of the service are bridged; every event comes once.
        """
        return iter(EventStream(self._transport, job_id, after))

    def report(self, job_id: str) -> dict[str, Any]:
        """What a job that has succeeded found out, with everyone's figures for every label.

        `job.report` is the same without the figures of single labels.
        """
        report: dict[str, Any] = self._transport.send("GET", f"/amalgamations/{job_id}/report").json()
        return report

    def metrics(self, job_id: str) -> Metrics:
        """The curve of a job's training, as far as it has come."""
        return self._transport.fetch(Metrics, "GET", f"/amalgamations/{job_id}/metrics")

    def texts(self, job_id: str, *, orphans: bool = False, after: int = -1) -> Iterator[TextRow]:
        """Every text of the corpus: whom the teachers' certainty chose, and what the student answers.

        Where the method trains no student, it is what the teachers answer together.
        They come as you go on, in the order of the corpus; connections that break are bridged.

        Args:
            job_id: of a job that has succeeded.
            orphans: only the texts of which no teacher is sure; when they are alike, a label is missing.
            after: only rows with a higher number.
        """
        return texts_of(self._transport, job_id, orphans=orphans, after=after)


def _reference(thing: str | Options | Corpus | Model | Student) -> Any:
    if isinstance(thing, Corpus | Model | Student):
        return thing.id
    return thing if isinstance(thing, str) else _options(thing)


def _options(options: Options | None) -> dict[str, Any] | None:
    if options is None:
        return None
    return (
        options.model_dump(mode="json", exclude_unset=True)
        if isinstance(options, BaseModel)
        else dict(options)
    )


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping | BaseModel)


def _evaluation(evaluation: str | Corpus | Options | None) -> dict[str, Any] | None:
    if isinstance(evaluation, str | Corpus):
        return {"corpus": _reference(evaluation)}
    return _options(evaluation)
