"""What the teachers say about a corpus: what the store has, and the rest computed and stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.storage import ArtifactStore
from worker.muka import SHARD_SIZE, Sampling, Teacher, TeacherOutputs, score_shard, score_shard_adaptively
from worker.muka.forward import Answer
from worker.muka.scoring import unsampled
from worker.stored_outputs import Conditions, Piece, Tensors, find, keep


@dataclass
class Asked:
    """A teacher that is loaded when it is first needed."""

    digest: str
    load: Callable[[], Teacher]
    _loaded: Teacher | None = field(default=None, init=False)

    @property
    def teacher(self) -> Teacher:
        """The loaded teacher."""
        self._loaded = self._loaded or self.load()
        return self._loaded

    def release(self) -> None:
        """Give its memory back."""
        self._loaded = None


@dataclass(frozen=True)
class Scores:
    """One teacher's outputs for a whole corpus."""

    outputs: TeacherOutputs
    shards: int
    reused: int
    """Shards for which the teacher was not asked anything."""
    passes: int
    """Text passes that it was asked for now."""


@dataclass(frozen=True)
class _Question:
    """One shard, as one teacher is asked about it."""

    asked: Asked
    shard: int
    texts: Sequence[str]


@dataclass(frozen=True)
class _Found:
    """What the store has of an answer."""

    plain: Answer | None
    samples: Tensors | None
    """Empty where no dropout pass is wanted."""

    def outputs(self) -> TeacherOutputs | None:
        """The whole answer, if nothing is missing."""
        if self.plain is None or self.samples is None:
            return None
        if not self.samples:
            return unsampled(self.plain)
        return TeacherOutputs(logits=self.plain.logits, features=self.plain.features, **self.samples)


@dataclass(frozen=True)
class _Answered:
    outputs: TeacherOutputs
    passes: int
    """Text passes that it took now."""


@dataclass(frozen=True)
class Scoring:
    """Asks teachers about a corpus, shard by shard.

    Attributes:
        store: Where outputs are kept.
        conditions: What the numbers depend on.
        features: Whether pooled features are wanted.
        on_texts: Told how many more texts of a teacher are done, in fractions while they are sampled.
        should_stop: Asked before every batch.
    """

    store: ArtifactStore
    conditions: Conditions
    features: bool
    on_texts: Callable[[float], None]
    should_stop: Callable[[], bool]

    def score(self, teachers: Sequence[Asked], texts: Sequence[str]) -> list[Scores]:
        """Outputs of every teacher: those in the store, and the missing ones computed and stored.

        With a fixed K one teacher is loaded at a time. Adaptive sampling compares the teachers, so all of
        them are loaded, unless nothing is missing.

        Raises:
            StoppedError: `should_stop` answered True.
        """
        shards = shards_of(texts)
        if self.conditions.sampling.adaptive_bound is not None:
            together = [self._together([_Question(t, i, s) for t in teachers]) for i, s in enumerate(shards)]
            return [_joined(of_teacher) for of_teacher in zip(*together, strict=True)]
        found = []
        for teacher in teachers:
            found.append(_joined([self._alone(_Question(teacher, i, s)) for i, s in enumerate(shards)]))
            teacher.release()
        return found

    def _alone(self, question: _Question) -> _Answered:
        found = self._find(question)
        if (outputs := found.outputs()) is not None:
            self.on_texts(len(question.texts))
            return _Answered(outputs, 0)
        sampling = self.conditions.sampling if found.samples is None else Sampling()
        teacher = question.asked.teacher
        expected = (found.plain is None) + (sampling.passes if teacher.has_dropout else 0)
        outputs = score_shard(
            teacher,
            question.texts,
            sampling=sampling,
            known=found.plain,
            on_batch=lambda done: self.on_texts(done / expected),
            **self._settings(question),
        )
        if not expected:  # nothing to sample, as only the loaded teacher could tell
            self.on_texts(len(question.texts))
        return self._keep(question, found, replace(outputs, **(found.samples or {})))

    def _together(self, questions: Sequence[_Question]) -> list[_Answered]:
        found = [self._find(question) for question in questions]
        texts, per_pass = questions[0].texts, 1 / (1 + self.conditions.sampling.passes)
        known = [each.outputs() for each in found]
        if None not in known:
            self.on_texts(len(texts) * len(questions))
            return [_Answered(outputs, 0) for outputs in known if outputs is not None]
        outputs = score_shard_adaptively(
            [question.asked.teacher for question in questions],
            texts,
            sampling=self.conditions.sampling,
            known=[each.plain for each in found],
            # As if every text took all K passes: what is decided early is a leap at the end.
            on_batch=lambda done: self.on_texts(done * per_pass),
            **self._settings(questions[0]),
        )
        # The samples that were there were drawn again: which passes a text gets depends on all teachers.
        plain = [replace(each, samples=None) for each in found]
        return [self._keep(*each) for each in zip(questions, plain, outputs, strict=True)]

    def _settings(self, question: _Question) -> dict[str, Any]:
        return {
            "shard": question.shard,
            "max_length": self.conditions.max_length,
            "precision": self.conditions.precision,
            "features": self.features,
            "should_stop": self.should_stop,
        }

    def _key(self, question: _Question, piece: Piece) -> str:
        return self.conditions.key(piece, question.asked.digest, question.texts, question.shard)

    def _find(self, question: _Question) -> _Found:
        stored = {piece: find(self.store, self._key(question, piece)) for piece in self._pieces}
        samples = stored.get(Piece.SAMPLES, {})
        logits, features = stored[Piece.LOGITS], stored.get(Piece.FEATURES, {})
        if logits is None or features is None:
            return _Found(None, samples)
        return _Found(Answer(logits["logits"], features.get("features")), samples)

    @property
    def _pieces(self) -> list[Piece]:
        features = [Piece.FEATURES] if self.features else []
        return [Piece.LOGITS, *features, *([Piece.SAMPLES] if self.conditions.sampling.passes else [])]

    def _keep(self, question: _Question, found: _Found, outputs: TeacherOutputs) -> _Answered:
        """Store what is new, and count the passes that it took."""
        for piece in self._pieces:
            keep(self.store, self._key(question, piece), piece, outputs)
        plain = len(question.texts) if found.plain is None else 0
        return _Answered(outputs, plain + (int(outputs.passes.sum()) if found.samples is None else 0))


def shards_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """The corpus in pieces of a fixed size."""
    return [texts[start : start + SHARD_SIZE] for start in range(0, len(texts), SHARD_SIZE)]


def _joined(shards: Sequence[_Answered]) -> Scores:
    outputs = TeacherOutputs.cat([shard.outputs for shard in shards])
    reused = sum(shard.passes == 0 for shard in shards)
    return Scores(outputs, len(shards), reused, sum(shard.passes for shard in shards))
