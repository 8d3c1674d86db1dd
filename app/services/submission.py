"""The use case behind `POST /amalgamations`: check all, store once, commit, then send."""

from collections.abc import Callable, Sequence
from typing import Any

from app.domain.errors import Fault, InvalidRequestError, TooManyRequestsError
from app.domain.identifiers import Prefix, new_id
from app.domain.recipe import InlineTexts, Recipe, Resolved
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from app.services import submission_checks
from app.services.admissions import Entry
from app.services.backend import Backend
from app.services.idempotency import Answer, Once
from app.services.jobs import Job
from app.services.submission_checks import Findings


def submit(
    backend: Backend,
    owner: str,
    *,
    recipe: Recipe | None,
    faults: Sequence[Fault],
    once: Once | None,
    render: Callable[[Job], dict[str, Any]],
) -> Answer:
    """Create a job.

    Args:
        backend: what it stands on.
        owner: whose job it will be.
        recipe: as much of the body as could be read.
        faults: what is wrong with the body's form; the checks add to it.
        once: the idempotency key, when the client sent one.
        render: makes the answer from the new job, inside the transaction.

    Raises:
        InvalidRequestError: with every fault; nothing was stored.
        HubUnavailableError: a teacher of the Hub cannot be looked up just now.
        TooManyRequestsError: the owner has as many queued jobs as one may have.
        RequestInFlightError: an earlier request under the key has no answer yet.
    """

    def run() -> Answer:
        job = _checked(backend, owner, recipe, faults)
        return backend.admissions.admit(Entry(job, once, lambda row, before: render(Job(row, before))))

    answer = backend.claims.carry_out(backend.database, once, run)
    if not answer.replayed:
        backend.sender.send(answer.resource_id)
    return answer


def _checked(backend: Backend, owner: str, recipe: Recipe | None, faults: Sequence[Fault]) -> Amalgamation:
    refuse_a_full_queue(backend, owner)
    findings = Findings()
    if recipe is not None:
        findings = submission_checks.check(backend, owner, recipe, is_whole=not faults)
    _refuse([*faults, *findings.faults])
    if recipe is None:
        raise InvalidRequestError("the body is no recipe")
    return _job(owner, recipe, findings, _corpus_id(backend, owner, recipe))


def refuse_a_full_queue(backend: Backend, owner: str) -> None:
    """Before anything is looked up or stored. Requests at the same moment do not see each other's jobs."""
    limit = backend.settings.max_queued_jobs
    with backend.database.read() as session:
        queued = amalgamations.count_queued(session, owner, at_most=limit)
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


def _job(owner: str, recipe: Recipe, findings: Findings, corpus_id: str) -> Amalgamation:
    # Inline texts are a corpus by now: the row stays small, and the recipe can be sent again.
    stored = (
        recipe.model_copy(update={"corpus": corpus_id}) if isinstance(recipe.corpus, InlineTexts) else recipe
    )
    resolved = Resolved(
        teachers=findings.teachers,
        student=findings.student,
        labels=findings.labels,
        corpus_id=corpus_id,
        evaluation_corpus_id=recipe.evaluation.corpus if recipe.evaluation else None,
    )
    return Amalgamation(
        id=new_id(Prefix.AMALGAMATION),
        owner=owner,
        name=recipe.name,
        recipe=stored.model_dump(mode="json"),
        resolved=resolved.model_dump(mode="json"),
        user_metadata=recipe.metadata,
    )
