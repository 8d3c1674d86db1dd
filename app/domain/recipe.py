"""What one job asks for: the body of `POST /amalgamations`, validated by the API, re-read by the worker.

Every field that is left out gets its default here, so that a stored recipe is complete, and POSTing it
again repeats the job.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, ValidationError

from app.domain.methods import DEFAULT, SPECS, AnyMethod
from app.domain.part import FiniteFloat, Part

RECIPE_VERSION = 1
"""Raised when the meaning of a recipe changes; a worker leaves versions unknown to it to newer workers."""

LONGEST_CONFIG = 100
"""Characters of the name of a data set's config."""

Reference = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
"""`org/name@revision` on the Hub, `mdl-…` (uploaded), `stu-…` (student of an earlier job) or `stu-…@step-200`
(a checkpoint of its training)."""

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]


class TeacherSpec(Part):
    """One teacher, and what becomes of its label names."""

    model: Reference
    labels: dict[Label, Label | None] | None = Field(
        None, description="Renames of this teacher's labels; null drops one."
    )


def _spell_out(teacher: Any) -> Any:
    return {"model": teacher} if isinstance(teacher, str) else teacher


Teacher = Annotated[TeacherSpec, BeforeValidator(_spell_out, json_schema_input_type=Reference | TeacherSpec)]


class InlineTexts(Part):
    """A small corpus in the body itself."""

    texts: list[str] = Field(min_length=1, max_length=1000)


class HubDataset(Part):
    """A data set on the Hugging Face Hub, read from its Parquet files."""

    dataset: Reference
    split: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "train"
    text_column: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "text"
    config: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_CONFIG)] | None = None
    revision: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None


def _kind_of_corpus(corpus: Any) -> str:
    if isinstance(corpus, HubDataset) or (isinstance(corpus, dict) and "dataset" in corpus):
        return "<dataset>"
    return "<texts>" if isinstance(corpus, InlineTexts | dict) else "<id>"


CorpusSource = Annotated[
    Annotated[Reference, Tag("<id>")]
    | Annotated[InlineTexts, Tag("<texts>")]
    | Annotated[HubDataset, Tag("<dataset>")],
    Discriminator(_kind_of_corpus),
]
"""Told apart before validation, so that a fault names the field and not every form that it might have had.
Tags in angle brackets are left out of JSON pointers."""


class StudentSpec(Part):
    """Where the student starts from. Left out where the method trains none."""

    init_from: Reference = Field(
        "teachers/0",
        description="`teachers/N`: the encoder of that teacher; or a model, named as a teacher is.",
    )
    layers: int | None = Field(None, ge=1, le=1000, description="Keep only the first encoder layers.")


class TrainingSpec(Part):
    """How the student is trained; `max_length` and `precision` are also how the teachers read."""

    epochs: int = Field(3, ge=1, le=1000)
    batch_size: int = Field(32, ge=1, le=4096)
    learning_rate: FiniteFloat = Field(2e-5, gt=0, le=1)
    warmup_ratio: FiniteFloat = Field(0.1, ge=0, le=1)
    weight_decay: FiniteFloat = Field(0.01, ge=0, le=1)
    max_grad_norm: FiniteFloat = Field(1.0, gt=0, le=1000)
    max_length: int = Field(128, ge=4, le=8192, description="Tokens of a text that are read.")
    seed: int = Field(1, ge=0, le=2**53 - 1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


Interval = Annotated[
    Annotated[Literal["epoch"], Tag("<epoch>")] | Annotated[int, Field(ge=1), Tag("<steps>")],
    Discriminator(lambda every: "<epoch>" if isinstance(every, str) else "<steps>"),
]
"""Told apart as `CorpusSource` is."""


class CheckpointSpec(Part):
    """Which states of the training are kept beside the student, as models of their own.

    Left out where the method trains no student.
    """

    every: Interval | None = Field(
        None,
        description="Save at the end of every epoch, or after every so many steps. null: only where the "
        "service saves for itself, every MUKA_CHECKPOINT_SECONDS.",
    )
    keep: int = Field(
        1, ge=0, le=100, description="The newest so many stay when the job has ended, for a while."
    )


class EvaluationSpec(Part):
    """A labelled corpus on which the teachers, and the student if there is one, are measured.

    Never trained on.
    """

    corpus: Reference


class Recipe(Part):
    """The whole request. Only `teachers` and `corpus` are required."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = None
    teachers: list[Teacher] = Field(min_length=2)
    corpus: CorpusSource = Field(
        description="Id of an uploaded corpus, up to 1,000 texts, or a Hub data set."
    )
    student: StudentSpec = StudentSpec()
    method: AnyMethod = Field(
        SPECS[DEFAULT](name=DEFAULT),
        description="How the student is made. `ensemble` makes none: the job ends with what the teachers say "
        "together about every text.",
    )
    training: TrainingSpec = TrainingSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    evaluation: EvaluationSpec | None = None
    max_runtime_seconds: int | None = Field(None, ge=1, le=30 * 86400)
    metadata: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ] = Field(default={}, max_length=16)


class ResolvedTeacher(Part):
    """A teacher as the API found it when the job was created: what the worker loads, exactly."""

    source: Literal["hub", "model", "student"]
    reference: str
    """As the user wrote it."""
    repo_id: str | None = None
    """Hub repository."""
    commit: str | None = None
    """Hub commit, 40 hex digits."""
    object_id: str | None = None
    """`mdl-…`, `stu-…` or `stu-…@step-200`."""
    storage_prefix: str | None = None
    """Where the store keeps the files of a model or student."""
    digest: str
    """Names the content: equal digests are the same teacher."""
    architecture: str
    labels: list[str | None]
    """By class index, after the request's mapping; null is dropped."""


class ResolvedStudent(Part):
    """Where the student starts from, exactly: a teacher by index, or a model of its own."""

    teacher: int | None = None
    source: Literal["hub", "model", "student"] | None = None
    repo_id: str | None = None
    commit: str | None = None
    storage_prefix: str | None = None


class Resolved(Part):
    """What the names of a recipe stood for when the job was created."""

    recipe_version: int = RECIPE_VERSION
    teachers: list[ResolvedTeacher]
    student: ResolvedStudent
    labels: list[str]
    """The union, in the student's order."""
    corpus_id: str
    dataset: HubDataset | None = None
    """What the corpus was read from, with its commit; left out of a row where it comes from elsewhere."""
    evaluation_corpus_id: str | None = None


class RecipeNotKnownError(Exception):
    """A stored recipe is of another version of muka, or has something in it that this one does not know."""


def read_stored(recipe: Mapping[str, Any], resolved: Mapping[str, Any]) -> tuple[Recipe, Resolved]:
    """A job's recipe and what its names stood for, out of its row.

    Raises:
        RecipeNotKnownError: Another version, or a method or field that is not known here: nothing is guessed.
    """
    version = resolved.get("recipe_version")
    if version != RECIPE_VERSION:
        raise RecipeNotKnownError(
            f"the recipe has version {version}, and version {RECIPE_VERSION} is known here"
        )
    try:
        return Recipe.model_validate(recipe), Resolved.model_validate(resolved)
    except ValidationError as error:
        where = sorted({".".join(map(str, fault["loc"])) or "recipe" for fault in error.errors()})
        raise RecipeNotKnownError(
            f"the recipe has what is not known here: {', '.join(where)[:200]}"
        ) from error
