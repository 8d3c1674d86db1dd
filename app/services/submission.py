"""The use case behind `POST /amalgamations`: check all, store once, commit, then send.

Requests that come at the same time go through it together, a step at a time for all of them: what one asks
of the database costs about as much for thirty. What takes long by itself goes alone: what is looked up on the
Hub, and texts that become a corpus.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from anyio import to_thread

from app.domain.access import Caller
from app.domain.errors import Fault, InvalidRequestError, MukaError, TooManyRequestsError
from app.domain.identifiers import Prefix, new_id
from app.domain.recipe import InlineTexts, Recipe, Resolved
from app.domain.revisions import parse_checkpoint
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
_MOST_TEACHERS = 8
"""Of a request that does not keep others waiting."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
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
        models = [teacher.model for teacher in recipe.teachers]
        if not recipe.student.init_from.startswith("teachers/"):
            models.append(recipe.student.init_from)
        takes_long = any(candidates.may_be_on_hub(each) or parse_checkpoint(each) for each in models)
        return len(models) <= _MOST_TEACHERS and not takes_long


class Submissions:
    """The submissions to this process. Of one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._together = Together(partial(_submit_all, backend), MOST_AT_ONCE)

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
            try:
                end = await self._together.ask(submission)
            except Exception as error:  # noqa: BLE001  (raised again where it belongs)
                _log.info("a new job goes on without the others: %r", error)
            else:
                return answered(end)
        return await to_thread.run_sync(submit, self._backend, submission)


def submit(backend: Backend, submission: Submission) -> Answer:
    """Create one job by itself, which waits where somebody deletes what it needs. Raises as above."""
    return answered(_submit_all(backend, [submission])[0])


def _submit_all(backend: Backend, asked: Sequence[Submission]) -> list[Answer | MukaError | None]:
    """The end of each, in their order.

    A group waits for nobody's locks. Where it cannot be committed at once and as a whole it raises, and
    nothing is stored: each goes on by itself then, so that nobody waits or fails by another's fault.
    """
    with backend.claims.held(backend.database, [each.once for each in asked]) as ends:
        checked = _checked(backend, {i: each for i, each in enumerate(asked) if ends[i] is None})
        entries = {i: each for i, each in checked.items() if isinstance(each, Entry)}
        answers = admit_all(backend.database, list(entries.values()), wait=len(asked) == 1)
        admitted = dict(zip(entries, answers, strict=True))
        for index, each in checked.items():
            ends[index] = admitted[index] if isinstance(each, Entry) else each
    for answer in answers:
        backend.sender.send(answer.resource_id)
    return ends


def _checked(backend: Backend, asked: Mapping[int, Submission]) -> dict[int, Entry | MukaError]:
    """What is to be stored of each, or why it is refused."""
    checked: dict[int, Entry | MukaError] = {}
    with backend.database.read() as session:
        queued = amalgamations.count_queued(session, {each.caller.owner for each in asked.values()})
        named = (named_in(each.caller.owner, each.recipe) for each in asked.values() if each.recipe)
        stored = look_up(session, set().union(*named))
    for index, each in asked.items():
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
    job = _job(asked, asked.recipe, findings, _corpus_id(backend, asked.caller.owner, asked.recipe))
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


def _corpus_id(backend: Backend, owner: str, recipe: Recipe) -> str:
    if isinstance(recipe.corpus, str):
        return recipe.corpus
    from app.services import corpora  # noqa: PLC0415  (brings pyarrow along, which few requests need)

    if isinstance(recipe.corpus, InlineTexts):
        return corpora.create_from_texts(backend, owner, recipe.corpus.texts).id
    return corpora.create_from_hub_dataset(backend, owner, recipe.corpus).id


def _job(asked: Submission, recipe: Recipe, findings: Findings, corpus_id: str) -> Amalgamation:
    stored = asked.content
    if isinstance(recipe.corpus, InlineTexts):  # they are a corpus by now: the recipe can be sent again
        stored = stored | {"corpus": corpus_id}
    resolved = Resolved(
        teachers=findings.teachers,
        student=findings.student,
        labels=findings.labels,
        corpus_id=corpus_id,
        evaluation_corpus_id=recipe.evaluation.corpus if recipe.evaluation else None,
    )
    return Amalgamation(
        id=new_id(Prefix.AMALGAMATION),
        owner=asked.caller.owner,
        name=recipe.name,
        recipe=stored,
        resolved=resolved.model_dump(mode="json"),
        user_metadata=recipe.metadata,
    )
