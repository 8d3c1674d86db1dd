"""What the teachers say about a corpus: what is on the shelf, and the rest computed and put there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.domain.stored_outputs import Asked, Piece
from app.storage import corpus_texts
from worker.corpus import Texts
from worker.muka import SHARD_SIZE, Sampling, Teacher, TeacherOutputs, score_shard, score_shard_adaptively
from worker.muka.columns import Columns
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
class Scores:
    """One teacher's outputs for a whole corpus, mapped into memory."""

    outputs: TeacherOutputs
    shards: int
    reused: int
    """Shards for which the teacher was not asked anything."""
    passes: int
    """Text passes that it was asked for now."""


@dataclass(frozen=True)
class _Question:
    """One shard, as one teacher is asked about it."""

    asked: WaitingTeacher
    shard: int
    texts: Sequence[str]
    keys: Mapping[Piece, str]
    """Of the pieces of the answer."""
    found: Mapping[Piece, Tensors]
    """Those that were on the shelf."""

    @property
    def plain(self) -> Answer | None:
        """The deterministic pass, if nothing of it is missing."""
        wanted = {Piece.LOGITS, Piece.FEATURES} & set(self.keys)
        if not wanted <= set(self.found):
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


@dataclass
class _Gathering:
    """The answers of one teacher, shard after shard."""

    asked: WaitingTeacher
    keys: Sequence[Mapping[Piece, str]]
    there: set[str]
    columns: Columns
    reused: int = 0
    passes: int = 0

    def put(self, shard: int, outputs: TeacherOutputs, passes: int) -> None:
        """The answer for a shard, and the text passes that it took now."""
        known = {name: tensor for name, tensor in vars(outputs).items() if tensor is not None}
        self.columns.put(shard * SHARD_SIZE, known)
        self.reused += passes == 0
        self.passes += passes

    def scores(self) -> Scores:
        """All of it."""
        return Scores(TeacherOutputs(**self.columns), len(self.keys), self.reused, self.passes)


@dataclass(frozen=True)
class Scoring:
    """Asks teachers about a corpus, shard by shard.

    Attributes:
        shelf: Where outputs are kept.
        asked: What is wanted of every teacher.
        precision: In which the teachers compute.
        scratch: Folder on whose disk the outputs lie while the job works with them.
        on_texts: Told how many more texts of a teacher are done, in fractions while they are sampled.
        should_stop: Asked before every batch.
    """

    shelf: Shelf
    asked: Asked
    precision: Precision
    scratch: Path
    on_texts: Callable[[float], None]
    should_stop: Callable[[], bool]

    def score(self, teachers: Sequence[WaitingTeacher], texts: Texts) -> list[Scores]:
        """Outputs of every teacher: those on the shelf, and the missing ones computed and kept.

        With a fixed K one teacher is loaded at a time. Adaptive sampling compares the teachers, so all of
        them are loaded, unless nothing is missing.

        Raises:
            StoppedError: `should_stop` answered True.
        """
        digests = [corpus_texts.digest(shard) for shard in texts.shards()]
        gatherings = [self._gathering(teacher, digests, len(texts)) for teacher in teachers]
        if self.asked.bound is not None:
            for shard, some in _shards(texts):
                self._together([self._question(each, shard, some) for each in gatherings], gatherings)
        else:
            for gathering in gatherings:
                for shard, some in _shards(texts):
                    self._alone(self._question(gathering, shard, some), gathering)
                gathering.asked.release()
        for gathering in gatherings:
            self.shelf.count(reused=gathering.reused, computed=len(digests) - gathering.reused)
        return [gathering.scores() for gathering in gatherings]

    def _gathering(self, teacher: WaitingTeacher, digests: Sequence[str], texts: int) -> _Gathering:
        """Ask for everything at once, so that nobody removes what is there before its turn has come."""
        by = self.shelf.computation
        keys = [
            {
                piece: self.asked.key(piece, by, teacher=teacher.digest, texts=digest, shard=shard)
                for piece in self.asked.pieces
            }
            for shard, digest in enumerate(digests)
        ]
        there = self.shelf.need([key for of_shard in keys for key in of_shard.values()])
        return _Gathering(teacher, keys, there, Columns(texts, self.scratch))

    def _question(self, gathering: _Gathering, shard: int, texts: Sequence[str]) -> _Question:
        keys = gathering.keys[shard]
        looked = {piece: self.shelf.find(key) for piece, key in keys.items() if key in gathering.there}
        found = {piece: tensors for piece, tensors in looked.items() if tensors is not None}
        return _Question(gathering.asked, shard, texts, keys, found)

    def _alone(self, question: _Question, gathering: _Gathering) -> None:
        if (outputs := question.outputs()) is not None:
            self.on_texts(len(question.texts))
            gathering.put(question.shard, outputs, 0)
            return
        sampling = self._sampling if question.samples is None else Sampling()
        teacher = question.asked.teacher
        expected = (question.plain is None) + (sampling.passes if teacher.has_dropout else 0)
        outputs = score_shard(
            teacher,
            question.texts,
            sampling=sampling,
            known=question.plain,
            on_batch=lambda done: self.on_texts(done / expected),
            **self._settings(question),
        )
        if not expected:  # nothing to sample, as only the loaded teacher could tell
            self.on_texts(len(question.texts))
        self._keep(question, replace(outputs, **(question.samples or {})), gathering)

    def _together(self, questions: Sequence[_Question], gatherings: Sequence[_Gathering]) -> None:
        texts, per_pass = questions[0].texts, 1 / (1 + self.asked.passes)
        known = [each.outputs() for each in questions]
        if None not in known:
            self.on_texts(len(texts) * len(questions))
            for question, outputs, gathering in zip(questions, known, gatherings, strict=True):
                if outputs is not None:
                    gathering.put(question.shard, outputs, 0)
            return
        answers = score_shard_adaptively(
            [question.asked.teacher for question in questions],
            texts,
            sampling=self._sampling,
            known=[each.plain for each in questions],
            # As if every text took all K passes: what is decided early is a leap at the end.
            on_batch=lambda done: self.on_texts(done * per_pass),
            **self._settings(questions[0]),
        )
        for question, outputs, gathering in zip(questions, answers, gatherings, strict=True):
            # The samples that were there were drawn again: which passes a text gets depends on all teachers.
            found = dict(question.found)
            found.pop(Piece.SAMPLES, None)
            self._keep(replace(question, found=found), outputs, gathering)

    @property
    def _sampling(self) -> Sampling:
        asked = self.asked
        return Sampling(passes=asked.passes, seed=asked.seed, adaptive_bound=asked.bound, score=asked.score)

    def _settings(self, question: _Question) -> dict[str, Any]:
        return {
            "shard": question.shard,
            "max_length": self.asked.max_length,
            "precision": self.precision,
            "features": self.asked.features,
            "should_stop": self.should_stop,
        }

    def _keep(self, question: _Question, outputs: TeacherOutputs, gathering: _Gathering) -> None:
        """Put on the shelf what is new, and count the passes that it took."""
        new = {piece: key for piece, key in question.keys.items() if piece not in question.found}
        self.shelf.keep(new, outputs)
        passes = len(question.texts) if question.plain is None else 0
        passes += int(outputs.passes.sum()) if question.samples is None else 0
        gathering.put(question.shard, outputs, passes)


def _shards(texts: Texts) -> Iterator[tuple[int, list[str]]]:
    """Number and texts of each."""
    for shard, some in enumerate(texts.shards()):
        yield shard, some.to_pylist()
