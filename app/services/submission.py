"""The use case behind `POST /amalgamations`: check all, store once, commit, then send.

Requests that come at the same time go through it together, a step at a time for all of them: what one asks
of the database costs about as much for thirty. What takes long by itself goes alone: what is looked up on the
Hub, and texts that become a corpus.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

from anyio import to_thread

from app.domain.access import Caller
from app.domain.errors import Fault, InvalidRequestError, MukaError, TooManyRequestsError
from app.domain.identifiers import Prefix, new_id
from app.domain.recipe import HubDataset, InlineTexts, Recipe, Resolved
from app.domain.revisions import own_id, parse_checkpoint
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from app.services import candidates, submission_checks
from app.services.admission import Entry, admit_all
from app.services.backend import Backend
from app.services.idempotency import Answer, Once, answered, is_key
from app.services.jobs import Job
from app.services.stored_objects import StoredObjects, look_up, named_in
from app.services.submission_checks import Findings
from app.services.together import Together

MOST_AT_ONCE = 50
_MOST_TEACHERS, _MOST_LABELS = 8, 1000
"""Of a request that keeps nobody waiting; more of them are compared for a second and longer."""
_log = logging.getLogger(__name__)
_End: TypeAlias = Answer | MukaError | None


@dataclass(frozen=True, eq=False)
class Submission:
    """A request for a job."""

    caller: Caller
    recipe: Recipe | None
    """As much of the body as could be read."""
    faults: Sequence[Fault]
    """What is wrong with the body's form; the checks add to it."""
    key: str | None
    """Of idempotency, when the client sent one."""
    render: Callable[[Job], dict[str, Any]]
    """Makes the answer from the new job, inside the transaction."""
    job_id: str = field(init=False, default_factory=partial(new_id, Prefix.AMALGAMATION))
    """Of the job, should there be one: however often it is tried, there is one at most."""

    @cached_property
    def content(self) -> dict[str, Any]:
        """The recipe with all its defaults, as JSON has it."""
        return self.recipe.model_dump(mode="json") if self.recipe else {}

    @cached_property
    def once(self) -> Once | None:
        """Raises `InvalidRequestError` where the key is none."""
        if self.key is None or self.recipe is None or self.faults:
            return None
        return Once.of(self.caller.api_key_id, "POST /amalgamations", self.key, self.content)

    @property
    def is_quick(self) -> bool:
        """True when it takes nothing but a few questions to the database."""
        recipe = self.recipe
        if recipe is None or self.faults or not isinstance(recipe.corpus, str):
            return False
        if self.key is not None and not is_key(self.key):
            return False
        if recipe.student.layers is not None:  # of how many, its start's configuration tells
            return False
        models = [teacher.model for teacher in recipe.teachers]
        if not recipe.student.init_from.startswith("teachers/"):
            models.append(recipe.student.init_from)
        if any(candidates.may_be_on_hub(each) or parse_checkpoint(own_id(each)) for each in models):
            return False
        renamed = sum(len(teacher.labels or ()) for teacher in recipe.teachers)
        return len(models) <= _MOST_TEACHERS and renamed <= _MOST_LABELS

    def count_labels(self, stored: StoredObjects) -> int:
        """How many labels the stored ones of its teachers have."""
        names = [own_id(teacher.model) for teacher in self.recipe.teachers] if self.recipe else []
        rows = [stored.models.get((self.caller.owner, name)) for name in names]
        return sum(len(row.labels) for row in rows if row)


class Submissions:
    """The submissions to this process. Of one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._together = Together(self._submit_group, MOST_AT_ONCE)

    async def submit(self, submission: Submission) -> Answer:
        """Create a job.

        Raises:
            InvalidRequestError: with every fault; nothing was stored.
            HubUnavailableError: a teacher of the Hub cannot be looked up just now.
            TooManyRequestsError: the owner has as many queued jobs as one may have.
            RequestInFlightError: an earlier request under the key has no answer yet.
            SQLAlchemyError: the database failed.
        """
        if submission.is_quick:
            end = await self._together.ask(submission)
            if end is not None:
                return answered(end)
        return await to_thread.run_sync(submit, self._backend, submission)

    def _submit_group(self, asked: Sequence[Submission]) -> Sequence[_End]:
        """None for those that go on alone, so that nobody waits or fails by another's fault."""
        try:
            return _submit_all(self._backend, asked, in_group=True)
        except Exception as error:  # noqa: BLE001  (raised again where it belongs)
            _log.info("%d new jobs go on one by one: %r", len(asked), error)
            return [None] * len(asked)


def submit(backend: Backend, submission: Submission) -> Answer:
    """Create one job by itself, which may take its time. Raises as above."""
    return _made(backend, submission) or answered(_submit_all(backend, [submission], in_group=False)[0])


def _made(backend: Backend, submission: Submission) -> Answer | None:
    """The answer, where the job is there: its group was committed, and the database's word of it was lost."""
    with backend.database.read() as session:
        row = amalgamations.find(session, submission.job_id)
        answer = Answer(row.id, submission.render(Job.of(session, row)), 202) if row else None
    if answer is not None:
        backend.sender.send(answer.resource_id)
    return answer


def _submit_all(backend: Backend, asked: Sequence[Submission], *, in_group: bool) -> Sequence[_End]:
    """The end of each, in their order; None: it takes too long for a group.

    A group waits for nobody's locks. Where it cannot be committed at once and as a whole it raises, and
    nothing is stored.
    """
    with backend.claims.held(backend.database, [each.once for each in asked]) as ends:
        fresh = {index: each for index, each in enumerate(asked) if ends[index] is None}
        checked = _checked(backend, fresh, _MOST_LABELS if in_group else None)
        entries = {index: each for index, each in checked.items() if isinstance(each, Entry)}
        answers = admit_all(backend.database, list(entries.values()), wait=not in_group)
        admitted = dict(zip(entries, answers, strict=True))
        for index, each in checked.items():
            ends[index] = admitted[index] if isinstance(each, Entry) else each
    for answer in answers:
        backend.sender.send(answer.resource_id)
    return ends


def _checked(
    backend: Backend, asked: Mapping[int, Submission], most_labels: int | None
) -> dict[int, Entry | MukaError]:
    """What is to be stored of each, or why it is refused. Those with too many labels are left out."""
    checked: dict[int, Entry | MukaError] = {}
    with backend.database.read() as session:
        queued = amalgamations.count_queued(session, {each.caller.owner for each in asked.values()})
        named = (named_in(each.caller.owner, each.recipe) for each in asked.values() if each.recipe)
        stored = look_up(session, set().union(*named))
    for index, each in asked.items():
        if most_labels is not None and each.count_labels(stored) > most_labels:
            continue
        waiting = queued.get(each.caller.owner, 0)
        try:
            refuse_a_full_queue(backend, waiting)
            checked[index] = _entry(backend, each, stored)
        except MukaError as error:
            checked[index] = error
        else:
            queued[each.caller.owner] = waiting + 1
    return checked


def _entry(backend: Backend, asked: Submission, stored: StoredObjects) -> Entry:
    findings = Findings()
    if asked.recipe is not None:
        findings = submission_checks.check(
            backend, asked.caller.owner, asked.recipe, stored=stored, is_whole=not asked.faults
        )
    _refuse([*asked.faults, *findings.faults])
    if asked.recipe is None:
        raise InvalidRequestError("the body is no recipe")
    corpus_id, dataset = _corpus(backend, asked.caller.owner, asked.recipe)
    job = _job(asked, asked.recipe, findings, corpus_id, dataset)
    return Entry(job, asked.once, lambda row, before: asked.render(Job(row, before)))


def refuse_a_full_queue(backend: Backend, queued: int) -> None:
    """`queued`: jobs of the owner. Requests at the same moment, at two processes, do not see each other's."""
    limit = backend.settings.max_queued_jobs
    if queued >= limit:
        raise TooManyRequestsError(
            f"{queued} of your jobs are queued, as many as one may have (MUKA_MAX_QUEUED_JOBS is {limit}); "
            "submit this one when some have started, or cancel some",
            code="too_many_queued_jobs",
        )


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InvalidRequestError(
            f"the job cannot be created, the request has {count}: {faults[0].detail}", faults=faults
        )


def _corpus(backend: Backend, owner: str, recipe: Recipe) -> tuple[str, HubDataset | None]:
    """Its id, and what it was read from, if from the Hub."""
    if isinstance(recipe.corpus, str):
        return recipe.corpus, None
    from app.services import corpora  # noqa: PLC0415  (brings pyarrow along, which few requests need)

    if isinstance(recipe.corpus, InlineTexts):
        return corpora.create_from_texts(backend, owner, recipe.corpus.texts).id, None
    corpus, dataset = corpora.create_from_hub_dataset(backend, owner, recipe.corpus)
    return corpus.id, dataset


def _job(
    asked: Submission, recipe: Recipe, findings: Findings, corpus_id: str, dataset: HubDataset | None
) -> Amalgamation:
    if isinstance(recipe.corpus, InlineTexts):  # they are a corpus by now: the row stays small
        content = recipe.model_copy(update={"corpus": corpus_id}).model_dump(mode="json")
    else:
        content = asked.content
    resolved = Resolved(
        teachers=findings.teachers,
        student=findings.student,
        labels=findings.labels,
        corpus_id=corpus_id,
        dataset=dataset,
        evaluation_corpus_id=recipe.evaluation.corpus if recipe.evaluation else None,
    )
    return Amalgamation(
        id=asked.job_id,
        owner=asked.caller.owner,
        name=recipe.name,
        recipe=content,
        # Without it, workers of before it was there know the job as well.
        resolved=resolved.model_dump(mode="json", exclude={"dataset"} if dataset is None else None),
        user_metadata=recipe.metadata,
    )
