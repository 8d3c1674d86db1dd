"""Everything that can be wrong with a recipe beyond its form: all faults at once, nothing stored.

Every check adds to one list of faults and goes on; `Resolved` exists only when the list is empty.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from app.domain import labels as label_names
from app.domain.errors import Fault, InvalidModelError
from app.domain.recipe import (
    EvaluationSpec,
    Recipe,
    ResolvedStudent,
    ResolvedTeacher,
    TeacherSpec,
)
from app.services import candidates
from app.services.backend import Backend
from app.services.candidates import Candidate
from app.services.label_checks import label_faults
from app.services.stored_objects import StoredObjects

UNREADABLE = "?"
"""Stands for a part of the body whose form is wrong already: in a faulty recipe it is not looked up."""

_LOOKUPS = 8
"""Models that are asked for at once."""
Answer = Candidate | InvalidModelError
_TEACHER_INDEX = re.compile(r"teachers/(\d{1,6})")


@dataclass
class Findings:
    """What the checks found out."""

    faults: list[Fault] = field(default_factory=list)
    teachers: list[ResolvedTeacher] = field(default_factory=list)
    student: ResolvedStudent = field(default_factory=lambda: ResolvedStudent(teacher=0))
    labels: list[str] = field(default_factory=list)
    found: dict[str, Candidate] = field(default_factory=dict)
    """Every model that is there, by the name that the recipe gives it."""


def check(backend: Backend, owner: str, recipe: Recipe, *, stored: StoredObjects, is_whole: bool) -> Findings:
    """Look at every part of the recipe.

    Args:
        backend: what it stands on.
        owner: whose objects may be named.
        recipe: what is asked for.
        stored: what there is of the objects that it names.
        is_whole: False when something stands as `UNREADABLE` in it; then the request is refused anyway.

    Raises:
        HubUnavailableError: a model of the Hub cannot be looked up just now.
    """
    findings = Findings()
    faults = findings.faults
    faults += _number_faults(len(recipe.teachers), backend.settings.max_teachers)
    faults += _text_faults(recipe)
    faults += _student_faults(recipe)
    skipped = frozenset() if is_whole else {UNREADABLE}
    found = _look_up(backend, owner, recipe, stored=stored, faults=faults, skipped=skipped)
    findings.found = found
    faults += _same_faults(recipe, found)
    for index, teacher in enumerate(recipe.teachers):
        _check_teacher(index, teacher, found.get(teacher.model), findings)
    findings.student = _check_student(recipe, found, faults)
    if is_whole or recipe.corpus != UNREADABLE:
        faults += _corpus_faults(owner, recipe, stored)
    faults += _evaluation_faults(owner, recipe.evaluation, stored)
    findings.labels = label_names.union([teacher.labels for teacher in findings.teachers])
    return findings


def _number_faults(count: int, limit: int) -> Iterator[Fault]:
    if count > limit:
        detail = f"{count} teachers, more than the limit of {limit} (MUKA_MAX_TEACHERS)"
        yield Fault("/teachers", "too_many_teachers", detail)


def _text_faults(recipe: Recipe) -> Iterator[Fault]:
    """A NUL character is the one that a database cannot hold."""
    texts = {"/name": [recipe.name or ""], "/metadata": [t for pair in recipe.metadata.items() for t in pair]}
    for index, teacher in enumerate(recipe.teachers):
        texts[f"/teachers/{index}/labels"] = [
            name or "" for pair in (teacher.labels or {}).items() for name in pair
        ]
    for pointer, strings in texts.items():
        if any("\0" in text for text in strings):
            yield Fault(pointer, "nul_character", "must not hold the character U+0000; remove it")


def _student_faults(recipe: Recipe) -> Iterator[Fault]:
    """Wishes for a student, where the method makes none. A training that will not be is let pass."""
    if recipe.method.trains_student:
        return
    for name, part in (("student", recipe.student), ("checkpoints", recipe.checkpoints)):
        for key, value in part.model_dump(exclude_defaults=True).items():
            detail = (
                f"is {value!r}, but the method {recipe.method.name} trains no student; leave {name} out, or "
                "choose a method that trains one"
            )
            yield Fault(f"/{name}/{key}", "no_student", detail)


# --- Models ----------------------------------------------------------------------------------------


def _look_up(
    backend: Backend,
    owner: str,
    recipe: Recipe,
    *,
    stored: StoredObjects,
    faults: list[Fault],
    skipped: AbstractSet[str],
) -> dict[str, Candidate]:
    """All models that the recipe names, each looked up once; what is not found becomes a fault."""
    pointers: dict[str, list[str]] = {}
    for index, teacher in enumerate(recipe.teachers[: backend.settings.max_teachers]):
        pointers.setdefault(teacher.model, []).append(f"/teachers/{index}/model")
    if not recipe.student.init_from.startswith("teachers/"):
        pointers.setdefault(recipe.student.init_from, []).append("/student/init_from")
    for reference in skipped:
        pointers.pop(reference, None)

    found: dict[str, Candidate] = {}
    for reference, answer in _answers(backend, owner, list(pointers), stored):
        if isinstance(answer, Candidate):
            found[reference] = answer
        else:
            for pointer in pointers[reference]:
                faults += candidates.faults_of(pointer, reference, answer)
    return found


def _answers(
    backend: Backend, owner: str, references: Sequence[str], stored: StoredObjects
) -> Iterator[tuple[str, Answer]]:
    """To each reference, in their order: those to the Hub at the same time, for they take long."""

    def ask(reference: str) -> Answer:
        try:
            return candidates.find(backend, owner, reference, stored)
        except InvalidModelError as error:
            return error

    on_hub = [each for each in references if candidates.may_be_on_hub(each)]
    answers = {each: ask(each) for each in references if each not in on_hub}
    if on_hub:
        with ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="look-up") as pool:
            answers |= zip(on_hub, pool.map(ask, on_hub), strict=True)
    yield from ((reference, answers[reference]) for reference in references)


def _same_faults(recipe: Recipe, found: dict[str, Candidate]) -> Iterator[Fault]:
    first_with: dict[frozenset[str], int] = {}
    for index, teacher in enumerate(recipe.teachers):
        candidate = found.get(teacher.model)
        if candidate is None:
            continue
        first = first_with.setdefault(candidate.weights, index)
        if first != index:
            yield Fault(
                f"/teachers/{index}/model",
                "same_teacher",
                f"{teacher.model} has the same weights as teacher {first} ({recipe.teachers[first].model}); "
                "leave one of them out: a teacher has one voice",
            )


def _check_teacher(index: int, spec: TeacherSpec, candidate: Candidate | None, findings: Findings) -> None:
    if candidate is None:
        return
    try:
        architecture, labels = candidates.check_teacher(candidate)
    except InvalidModelError as error:
        findings.faults += candidates.faults_of(f"/teachers/{index}/model", spec.model, error)
        return
    names = label_names.mapped(labels, spec.labels)
    findings.faults += label_faults(index, spec, labels, names)
    findings.teachers.append(
        ResolvedTeacher(
            source=candidate.source,
            reference=spec.model,
            repo_id=candidate.repo_id,
            commit=candidate.commit,
            object_id=candidate.object_id,
            storage_prefix=candidate.storage_prefix,
            digest=candidate.digest,
            architecture=architecture,
            labels=names,
        )
    )


def _check_student(recipe: Recipe, found: dict[str, Candidate], faults: list[Fault]) -> ResolvedStudent:
    spec, index = recipe.student, None
    start: Candidate | None
    if spec.init_from.startswith("teachers/"):
        match = _TEACHER_INDEX.fullmatch(spec.init_from)
        index = int(match[1]) if match else None
        if index is None or index >= len(recipe.teachers):
            detail = (
                f"{spec.init_from!r} is no teacher: give teachers/0 to teachers/{len(recipe.teachers) - 1}"
            )
            faults.append(Fault("/student/init_from", "teacher_out_of_range", detail))
            return ResolvedStudent(teacher=0)
        start = found.get(recipe.teachers[index].model)
    else:
        start = found.get(spec.init_from)
    if start is None:
        return ResolvedStudent(teacher=0)
    if spec.layers is not None and start.layers is not None and spec.layers > start.layers:
        detail = f"{start.reference} has {start.layers} layers; ask for at most that many, or leave this out"
        faults.append(Fault("/student/layers", "too_many_layers", detail))
    if index is not None:
        return ResolvedStudent(teacher=index)
    return ResolvedStudent(
        source=start.source,
        repo_id=start.repo_id,
        commit=start.commit,
        storage_prefix=start.storage_prefix,
    )


# --- Texts -----------------------------------------------------------------------------------------


def _corpus_faults(owner: str, recipe: Recipe, stored: StoredObjects) -> Iterator[Fault]:
    if isinstance(recipe.corpus, str):
        yield from _missing_corpus("/corpus", owner, recipe.corpus, stored)


def _evaluation_faults(
    owner: str, evaluation: EvaluationSpec | None, stored: StoredObjects
) -> Iterator[Fault]:
    if evaluation is None:
        return
    faults = list(_missing_corpus("/evaluation/corpus", owner, evaluation.corpus, stored))
    yield from faults
    if not faults and not stored.corpora[owner, evaluation.corpus].labelled:
        detail = (
            f"{evaluation.corpus} has no labels; upload it with `label_column`, or leave the evaluation out"
        )
        yield Fault("/evaluation/corpus", "corpus_without_labels", detail)


def _missing_corpus(pointer: str, owner: str, corpus_id: str, stored: StoredObjects) -> Iterator[Fault]:
    if (owner, corpus_id) in stored.expired:
        yield Fault(pointer, "corpus_expired", f"{corpus_id} has expired; upload the texts again")
    elif (owner, corpus_id) not in stored.corpora:
        detail = f"there is no corpus {corpus_id[:100]!r}; upload the texts with POST /corpora"
        yield Fault(pointer, "corpus_not_found", detail)
