"""Plans as the contract shows them."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.problems import ProblemFault
from app.services import plan as plans

_UNKNOWN = "Null where the model's files do not tell."


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PlanProblem(ProblemFault):
    """Something for which the job would be refused."""

    model_config = ConfigDict(from_attributes=True)


class PlanLabels(_Row):
    """How the teachers' labels meet."""

    union: list[str] = Field(description="The student's classes.")
    shared: dict[str, list[int]] = Field(
        description="Labels of several teachers, with the teachers' numbers: they become one class."
    )
    similar: list[list[str]] = Field(
        description="Labels that differ in case, spaces, hyphens or underscores only. They stay different "
        "classes unless you rename them."
    )
    placeholders: dict[int, list[str]] = Field(
        description="By the teacher's number: labels without a meaning, to be renamed or dropped."
    )


class PlanModelFacts(_Row):
    """What `config.json` and the names of the files tell. Null: they do not."""

    layers: int | None
    hidden_size: int | None
    max_tokens: int | None = Field(
        description="Positions that the configuration names; some families keep one or two for padding."
    )
    vocabulary: int | None
    dropout: float | None = Field(description="The largest rate that the configuration names.")
    can_be_sampled: bool | None = Field(
        description="False: without dropout there is nothing to sample, and one pass scores a text. "
        "Null also where there is dropout in attention alone: the loaded model tells."
    )
    tokenizer: str | None = Field(
        description="`fast`, `wordpiece`, `byte-pair`, `sentencepiece`, `tiktoken`."
    )


class PlanStored(_Row):
    """What is stored of a teacher's outputs, by your earlier jobs, for these texts."""

    shards: int = Field(description="The corpus in pieces of 1,024 texts.")
    shards_stored: int = Field(description="For which the teacher would not be asked anything.")
    passes: int = Field(description="Texts that would still go through it, at most.")


class PlanTeacher(_Row):
    """One teacher as it was found; all but `reference` is null where nothing usable was found."""

    reference: str
    source: Literal["hub", "model", "student"] | None
    commit: str | None = Field(description="Of a teacher on the Hub: what its name stands for now.")
    digest: str | None = Field(description="Names the content.")
    architecture: str | None
    labels: list[str | None] | None = Field(description="By class index, after your mapping; null: dropped.")
    parameters: int | None = Field(description=_UNKNOWN)
    facts: PlanModelFacts | None
    stored: PlanStored | None = Field(
        description="Seen from the worker that was busy last: another device computes other numbers. Null "
        "for texts that are not uploaded yet."
    )


class PlanCorpus(_Row):
    """The texts; numbers are null where only reading them would tell."""

    source: Literal["corpus", "texts", "dataset"]
    id: str | None
    texts: int | None
    characters: int | None
    tokens: int | None = Field(
        description="As a teacher reads them, cut at `max_length`. Estimated from the characters, 4 a token."
    )
    truncated_share: float | None = Field(
        description="Share of the texts with more than `max_length` tokens. Estimated from the characters."
    )


class PlanMemory(_Row):
    """Weights in float32, and the optimizer; activations come on top."""

    teachers_bytes: int | None
    largest_teacher_bytes: int | None
    training_bytes: int | None = Field(
        description="Weights, gradients and optimizer of the student's start; 0 where none is trained."
    )


class PlanTime(_Row):
    """How long it would take at the median speed of your finished jobs."""

    seconds: float | None
    from_jobs: int = Field(description="Finished jobs that told their speed; theirs may be other models.")
    reason: str | None = Field(description="Why there is no estimate.")


class PlanEstimates(_Row):
    """What it would take, at most."""

    scoring_passes: int | None = Field(
        description="Texts through teachers: one pass and K samples each, where nothing is stored of them."
    )
    training_texts: int | None = Field(
        description="Texts through the student, over all epochs; 0 where none is trained."
    )
    memory: PlanMemory
    time: PlanTime


class Plan(_Row):
    """What `POST /amalgamations` would do with the same body. Nothing was stored."""

    would_be_accepted: bool
    problems: list[PlanProblem] = Field(description="For which the job would be refused, all at once.")
    labels: PlanLabels
    teachers: list[PlanTeacher]
    corpus: PlanCorpus | None = Field(description="Null: there is no such corpus; see `problems`.")
    estimates: PlanEstimates

    @classmethod
    def of(cls, plan: plans.Plan) -> Self:
        """As the contract shows it."""
        shown = {name: getattr(plan, name) for name in cls.model_fields if name != "would_be_accepted"}
        return cls.model_validate({"would_be_accepted": not plan.problems} | shown)
