"""What one attempt has in its hands: the stored recipe read again, and the doors to database and store."""

from dataclasses import dataclass
from typing import Self

from app.domain.recipe import Recipe, RecipeNotKnownError, Resolved, read_stored
from app.domain.status import Stage
from app.persistence import amalgamations
from app.persistence.database import Database
from app.persistence.tables import Corpus
from app.settings import Settings
from app.storage import ArtifactStore
from worker.corpus import find_corpus
from worker.lease import Lease
from worker.patience import Patience


@dataclass(frozen=True)
class Assignment:
    """One job, for one attempt."""

    settings: Settings
    database: Database
    store: ArtifactStore
    lease: Lease
    name: str | None
    recipe: Recipe
    resolved: Resolved
    corpus: Corpus
    evaluation_corpus: Corpus | None
    seconds_since_start: float
    """Since the first claim, by the database's clock."""

    @classmethod
    def read(cls, settings: Settings, database: Database, store: ArtifactStore, lease: Lease) -> Self:
        """From the job's row.

        Raises:
            RecipeNotKnownError: The recipe's version, or a field of it, is not known here.
            CorpusUnreadableError: A corpus does not exist any more.
        """
        with database.read() as session:
            job = amalgamations.find(session, lease.job_id)
            if job is None or job.started_at is None:
                raise RecipeNotKnownError(f"the job {lease.job_id} was never claimed")
            since = amalgamations.seconds_since(session, job.started_at)
        recipe, resolved = read_stored(job.recipe, job.resolved)
        evaluation = resolved.evaluation_corpus_id
        return cls(
            settings=settings,
            database=database,
            store=store,
            lease=lease,
            name=job.name,
            recipe=recipe,
            resolved=resolved,
            corpus=find_corpus(database, resolved.corpus_id),
            evaluation_corpus=find_corpus(database, evaluation) if evaluation else None,
            seconds_since_start=since,
        )

    @property
    def patience(self) -> Patience:
        """With the store."""
        return Patience(self.store, self.lease, self.settings.store_patience_seconds)

    def seconds_left(self) -> float | None:
        """Until `max_runtime_seconds` after the first claim; None: no limit."""
        limit = self.recipe.max_runtime_seconds
        return None if limit is None else limit - self.seconds_since_start

    def stage_weights(self) -> dict[Stage, float]:
        """Estimated text passes through a model; a training step is about three.

        Where no student is trained, none is asked either.
        """
        texts, teachers = self.corpus.texts, len(self.resolved.teachers)
        held_out = self.evaluation_corpus.texts if self.evaluation_corpus else 0
        passes = 1 + self.recipe.method.passes
        students = int(self.recipe.method.trains_student)
        work: dict[Stage, float] = {
            Stage.SCORING: texts * teachers * passes,
            Stage.TRAINING: students * texts * 3 * self.recipe.training.epochs,
            Stage.EVALUATING: students * (texts + held_out) + held_out * teachers * passes,
        }
        small = 0.01 * sum(work.values())
        return {**work, Stage.PREPARING: small, Stage.PUBLISHING: small}
