"""Teachers are asked about a shard of texts: what is on the shelf, and the rest computed and put there."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from app.domain.stored_outputs import Asked, Piece
from worker.muka import Sampling, Teacher, TeacherOutputs, score_shard, score_shard_adaptively
from worker.muka.ahead import TokenisedAhead, Upcoming
from worker.muka.batching import TokenisedTexts
from worker.muka.forward import Answer
from worker.muka.recipe import Precision
from worker.muka.scoring import unsampled
from worker.stored_outputs import Shelf, Tensors


@dataclass
class WaitingTeacher:
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
class Question:
    """One shard, as one teacher is asked about it."""

    asked: WaitingTeacher
    shard: int
    texts: Sequence[str]
    keys: Mapping[Piece, str]
    """Of the pieces of the answer, and of features that are kept alone."""
    wanted: Set[Piece]
    """Those of the answer."""
    found: Mapping[Piece, Tensors]
    """Those of them that were on the shelf."""

    @property
    def plain(self) -> Answer | None:
        """The deterministic pass, if nothing of it is missing."""
        if not {Piece.LOGITS, Piece.FEATURES} & self.wanted <= set(self.found):
            return None
        features = self.found.get(Piece.FEATURES, {}).get("features")
        return Answer(self.found[Piece.LOGITS]["logits"], features)

    @property
    def samples(self) -> Tensors | None:
        """Of the dropout passes; empty where none is wanted."""
        return self.found.get(Piece.SAMPLES) if Piece.SAMPLES in self.keys else {}

    def outputs(self) -> TeacherOutputs | None:
        """The whole answer, if nothing is missing."""
        plain, samples = self.plain, self.samples
        if plain is None or samples is None:
            return None
        if not samples:
            return unsampled(plain)
        return TeacherOutputs(logits=plain.logits, features=plain.features, **samples)


@dataclass(frozen=True)
class Asking:
    """Asks teachers about shards.

    Attributes:
        shelf: Where outputs are kept.
        asked: What is wanted of every teacher.
        precision: In which the teachers compute.
        on_texts: Told how many more texts of a teacher are done, in fractions while they are sampled.
        should_stop: Asked before every batch.
        keeps_features: Whether a deterministic pass computes and keeps them also where they are not wanted: a
            job with another method finds them then.
    """

    shelf: Shelf
    asked: Asked
    precision: Precision
    on_texts: Callable[[float], None]
    should_stop: Callable[[], bool]
    keeps_features: bool = True

    def keys(self, teacher: WaitingTeacher, texts: str, shard: int) -> dict[Piece, str]:
        """Of the pieces of an answer, and of features that are kept; `texts`: the shard's digest."""
        by = self.shelf.computation
        kept = {Piece.FEATURES} if self.keeps_features else set()
        return {
            piece: self.asked.key(piece, by, teacher=teacher.digest, texts=texts, shard=shard)
            for piece in {*self.asked.pieces, *kept}
        }

    def question(
        self,
        teacher: WaitingTeacher,
        shard: int,
        texts: Sequence[str],
        keys: Mapping[Piece, str],
        there: Set[str],
    ) -> Question:
        """With what of the answer is on the shelf; `there`: the keys that are, as their rows tell."""
        wanted = frozenset(self.asked.pieces)
        looked = {piece: self.shelf.find(keys[piece]) for piece in wanted if keys[piece] in there}
        found = {piece: tensors for piece, tensors in looked.items() if tensors is not None}
        return Question(teacher, shard, texts, keys, wanted, found)

    def answer(self, questions: Sequence[Question], upcoming: Upcoming | None = None) -> list[TeacherOutputs]:
        """Compute what is missing, and keep it: of one question, or with a bound of all teachers together.

        Args:
            questions: about one shard.
            upcoming: the shard that the same teachers will be asked about next.

        Raises:
            StoppedError: `should_stop` answered True.
        """
        if self.asked.bound is None:
            return [self._alone(question, upcoming) for question in questions]
        return self._together(questions, upcoming)

    def passes(self, question: Question, outputs: TeacherOutputs) -> int:
        """Text passes that it took to answer, from what had been found before."""
        plain = len(question.texts) if question.plain is None else 0
        # Where the teachers are compared, samples that were there are drawn again: which passes a text gets
        # depends on all teachers.
        samples = question.samples is None or (self.asked.bound is not None and bool(question.samples))
        return plain + (int(outputs.passes.sum()) if samples else 0)

    def _alone(self, question: Question, upcoming: Upcoming | None) -> TeacherOutputs:
        sampling = self._sampling if question.samples is None else Sampling()
        teacher = question.asked.teacher
        expected = (question.plain is None) + (sampling.passes if teacher.has_dropout else 0)
        outputs = score_shard(
            teacher,
            question.texts,
            sampling=sampling,
            known=question.plain,
            tokens=self._tokens(question, upcoming),
            on_batch=lambda done: self.on_texts(done / expected),
            **self._settings(question),
        )
        if not expected:  # nothing to sample, as only the loaded teacher could tell
            self.on_texts(len(question.texts))
        outputs = replace(outputs, **(question.samples or {}))
        self._keep(question, outputs)
        return outputs

    def _together(self, questions: Sequence[Question], upcoming: Upcoming | None) -> list[TeacherOutputs]:
        per_pass = 1 / (1 + self.asked.passes)
        answers = score_shard_adaptively(
            [question.asked.teacher for question in questions],
            questions[0].texts,
            sampling=self._sampling,
            known=[each.plain for each in questions],
            tokens=[self._tokens(each, upcoming) for each in questions],
            # As if every text took all K passes: what is decided early is a leap at the end.
            on_batch=lambda done: self.on_texts(done * per_pass),
            **self._settings(questions[0]),
        )
        for question, outputs in zip(questions, answers, strict=True):
            found = dict(question.found)
            found.pop(Piece.SAMPLES, None)
            self._keep(replace(question, found=found), outputs)
        return answers

    def _tokens(self, question: Question, upcoming: Upcoming | None) -> TokenisedTexts:
        return self._ahead.take(question.asked.teacher, question.shard, question.texts, upcoming)

    @cached_property
    def _ahead(self) -> TokenisedAhead:
        return TokenisedAhead(self.asked.max_length)

    @property
    def _sampling(self) -> Sampling:
        asked = self.asked
        return Sampling(passes=asked.passes, seed=asked.seed, adaptive_bound=asked.bound, score=asked.score)

    def _settings(self, question: Question) -> dict[str, Any]:
        return {
            "shard": question.shard,
            "max_length": self.asked.max_length,
            "precision": self.precision,
            "features": Piece.FEATURES in question.keys,
            "should_stop": self.should_stop,
        }

    def _keep(self, question: Question, outputs: TeacherOutputs) -> None:
        """Put on the shelf what is new."""
        there = set(question.found) if outputs.features is not None else {*question.found, Piece.FEATURES}
        self.shelf.keep({piece: key for piece, key in question.keys.items() if piece not in there}, outputs)
