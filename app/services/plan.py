"""The use case behind `POST /amalgamations/plan`: what a job would be, with nothing stored or sent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain import labels as label_names
from app.domain.errors import Fault, InvalidModelError, InvalidRequestError
from app.domain.recipe import HubDataset, InlineTexts, Recipe, TeacherSpec
from app.domain.status import Status
from app.ingestion.model_facts import ModelFacts, model_facts
from app.persistence import amalgamations
from app.persistence.tables import Corpus
from app.services import candidates, corpus_facts, submission_checks
from app.services.backend import Backend
from app.services.candidates import Candidate
from app.services.corpus_facts import CorpusFacts
from app.services.estimates import Estimates, estimate
from app.services.reuse import AskedTeacher, Reuse, reuse
from app.services.stored_objects import look_up, named_in

_JOBS_LOOKED_AT = 20


@dataclass(frozen=True)
class PlannedLabels:
    """How the teachers' labels meet."""

    union: list[str]
    """The student's classes."""
    shared: dict[str, list[int]]
    """Labels of several teachers, with the teachers' numbers: they are one class."""
    similar: list[list[str]]
    """Labels that differ in case, spaces or hyphens only: they stay apart unless renamed."""
    placeholders: dict[int, list[str]]
    """Labels without a meaning, by teacher: they must be renamed or dropped."""


@dataclass(frozen=True)
class PlannedTeacher:
    """One teacher as it was found; the fields are None where nothing was found."""

    reference: str
    source: str | None
    commit: str | None
    digest: str | None
    architecture: str | None
    labels: list[str | None] | None
    """By class index, after the request's mapping."""
    parameters: int | None
    facts: ModelFacts | None
    stored: Reuse | None = None
    """What would be reused of its outputs; None where texts or teacher are not known."""


@dataclass(frozen=True)
class Plan:
    """What `POST /amalgamations` with the same body would do."""

    problems: list[Fault]
    """For which it would be refused; empty: it would be accepted."""
    labels: PlannedLabels
    teachers: list[PlannedTeacher]
    corpus: CorpusFacts | None
    estimates: Estimates


def plan(backend: Backend, owner: str, recipe: Recipe | None, faults: Sequence[Fault]) -> Plan:
    """Check all, look at all, store nothing.

    Raises:
        InvalidRequestError: the body holds nothing that could be looked at.
        HubUnavailableError: a model of the Hub cannot be looked up just now.
    """
    if recipe is None:
        raise InvalidRequestError(f"the request has {len(faults)} faults; see `errors`", faults=faults)
    with backend.database.read() as session:
        objects = look_up(session, named_in(owner, recipe))
    findings = submission_checks.check(backend, owner, recipe, stored=objects, is_whole=not faults)
    teachers = [_teacher(spec, findings.found.get(spec.model)) for spec in recipe.teachers]
    stored = objects.corpora.get((owner, recipe.corpus)) if isinstance(recipe.corpus, str) else None
    teachers = _with_reuse(backend, recipe, stored, teachers)
    corpus = _corpus(recipe, stored)
    start = _start(recipe, findings.found)
    estimates = estimate(
        recipe,
        texts=corpus.texts if corpus else None,
        teachers=[teacher.facts for teacher in teachers if teacher.facts],
        parameters=[teacher.parameters for teacher in teachers],
        start_parameters=start.parameters if start else None,
        reports=_reports(backend, owner),
        passes=_passes(teachers),
    )
    return Plan([*faults, *findings.faults], _labels(teachers), teachers, corpus, estimates)


def _teacher(spec: TeacherSpec, found: Candidate | None) -> PlannedTeacher:
    if found is None:
        return PlannedTeacher(spec.model, None, None, None, None, None, None, None)
    architecture: str | None = None
    names: list[str | None] | None = None
    try:
        architecture, labels = candidates.check_teacher(found)
        names = label_names.mapped(labels, spec.labels)
    except InvalidModelError:
        pass  # one of the problems says why
    return PlannedTeacher(
        reference=spec.model,
        source=found.source,
        commit=found.commit,
        digest=found.digest,
        architecture=architecture,
        labels=names,
        parameters=found.parameters,
        facts=model_facts(found.config, found.files),
    )


def _labels(teachers: Sequence[PlannedTeacher]) -> PlannedLabels:
    names = [teacher.labels or [] for teacher in teachers]
    union = label_names.union(names)
    nameless = {index: label_names.placeholders(each) for index, each in enumerate(names)}
    return PlannedLabels(
        union=union,
        shared=label_names.shared(names),
        similar=label_names.similar(union),
        placeholders={index: each for index, each in nameless.items() if each},
    )


def _corpus(recipe: Recipe, stored: Corpus | None) -> CorpusFacts | None:
    max_length, source = recipe.training.max_length, recipe.corpus
    if isinstance(source, InlineTexts):
        return corpus_facts.of_inline(source, max_length)
    if isinstance(source, HubDataset):
        return corpus_facts.of_dataset(source)
    return corpus_facts.of_stored(stored, max_length) if stored else None


def _with_reuse(
    backend: Backend, recipe: Recipe, corpus: Corpus | None, teachers: Sequence[PlannedTeacher]
) -> list[PlannedTeacher]:
    """What is stored for texts in the body or on the Hub shows when they have become a corpus."""
    asked = [_asked(teacher) for teacher in teachers]
    known = [each for each in asked if each is not None]
    if corpus is None or len(known) < len(asked):
        return list(teachers)
    found = reuse(backend, recipe, corpus, known)
    if found is None:
        return list(teachers)
    return [replace(teacher, stored=each) for teacher, each in zip(teachers, found, strict=True)]


def _asked(teacher: PlannedTeacher) -> AskedTeacher | None:
    if teacher.digest is None or teacher.labels is None:
        return None
    can_be_sampled = teacher.facts is None or teacher.facts.can_be_sampled is not False
    return AskedTeacher(teacher.digest, tuple(teacher.labels), can_be_sampled)


def _passes(teachers: Sequence[PlannedTeacher]) -> int | None:
    """Left to compute, where that is known."""
    left = [teacher.stored.passes for teacher in teachers if teacher.stored is not None]
    return sum(left) if len(left) == len(teachers) else None


def _start(recipe: Recipe, found: dict[str, Candidate]) -> Candidate | None:
    kind, _, number = recipe.student.init_from.partition("/")
    if kind != "teachers":
        return found.get(recipe.student.init_from)
    index = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else -1
    return found.get(recipe.teachers[index].model) if 0 <= index < len(recipe.teachers) else None


def _reports(backend: Backend, owner: str) -> list[dict[str, object]]:
    with backend.database.read() as session:
        rows = amalgamations.page(session, owner, limit=_JOBS_LOOKED_AT, status=Status.SUCCEEDED)
    return [row.report for row in rows if row.report]
