"""What the teachers say about a corpus: what is on the shelf, and the rest by this worker and its helpers."""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from app.domain.shards import TOGETHER, Unit
from app.domain.stored_outputs import Piece
from app.storage import corpus_texts
from worker.asking import Asking, Question, WaitingTeacher
from worker.corpus import Texts
from worker.muka import SHARD_SIZE, TeacherOutputs
from worker.muka.ahead import Upcoming
from worker.muka.columns import Columns

Share = Callable[[Sequence[Unit], Callable[[Unit], None]], Iterator[Unit]]
"""Given what is to be computed: what of it this worker computes, one after the other. The other argument is
told what others have done; at the end everything is done."""


@dataclass(frozen=True)
class Scores:
    """One teacher's outputs for a whole corpus, mapped into memory."""

    columns: Columns
    shards: int
    reused: int
    """Shards for which the teacher was not asked anything."""
    passes: int
    """Text passes that it was asked for now."""

    @property
    def outputs(self) -> TeacherOutputs:
        """All of them."""
        return TeacherOutputs(**self.columns)


@dataclass(eq=False)
class _Gathering:
    """The answers of one teacher, shard after shard."""

    asked: WaitingTeacher
    keys: Sequence[dict[Piece, str]]
    there: set[str]
    columns: Columns
    wanted: Set[Piece]
    """The pieces of the answer."""
    reused: int = 0
    passes: int = 0

    def has(self, shard: int) -> bool:
        """Whether all pieces were there at the beginning."""
        return self.there.issuperset(self.keys[shard][piece] for piece in self.wanted)

    def put(self, shard: int, outputs: TeacherOutputs, passes: int) -> None:
        """The answer for a shard, and the text passes that it took now."""
        wanted = outputs if Piece.FEATURES in self.wanted else replace(outputs, features=None)
        start = shard * SHARD_SIZE
        self.columns.put(start, wanted.tensors)
        self.columns.let_go(slice(start, start + len(outputs)))
        self.reused += passes == 0
        self.passes += passes

    def scores(self) -> Scores:
        """All of it."""
        return Scores(self.columns, len(self.keys), self.reused, self.passes)


def alone(units: Sequence[Unit], _on_helped: Callable[[Unit], None]) -> Iterator[Unit]:
    """Nobody helps."""
    return iter(units)


class Scoring:
    """Asks teachers about a corpus, shard by shard."""

    def __init__(self, asking: Asking, scratch: Path, share: Share = alone) -> None:
        """
        Args:
            asking: how.
            scratch: folder on whose disk the outputs lie while the job works with them.
            share: who else computes.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._asking = asking
        self._scratch = scratch
        self._share = share

    def reserve(self, teachers: Sequence[WaitingTeacher], texts: Texts) -> None:
        """Of texts whose turn comes later: nobody removes meanwhile what is on the shelf about them."""
        digests = [corpus_texts.digest(shard) for shard in texts.shards()]
        for teacher in teachers:
            self._reserved(self._keys(teacher, digests))

    def score(self, teachers: Sequence[WaitingTeacher], texts: Texts) -> list[Scores]:
        """Outputs of every teacher: those on the shelf, and the missing ones computed and kept.

        With a fixed K one teacher is loaded at a time. Adaptive sampling compares the teachers, so all of
        them are loaded, unless nothing is missing.

        Raises:
            StoppedError: The job is to stop.
        """
        digests = [corpus_texts.digest(shard) for shard in texts.shards()]
        work = _Work(self._asking, texts, [self._gathering(each, digests, len(texts)) for each in teachers])
        missing = [unit for unit in work.units() if not work.put_found(unit)]
        helped: list[Unit] = []

        def on_helped(unit: Unit) -> None:
            work.tell(unit)
            helped.append(unit)

        following = dict(pairwise(missing))
        for unit in self._share(missing, on_helped):
            work.compute(unit, following.get(unit))
        for unit in helped:
            work.put_helped(unit)
        work.release()
        for gathering in work.gatherings:
            self._asking.shelf.count(reused=gathering.reused, computed=len(digests) - gathering.reused)
        return [gathering.scores() for gathering in work.gatherings]

    def _gathering(self, teacher: WaitingTeacher, digests: Sequence[str], texts: int) -> _Gathering:
        """Ask for everything at once, so that nobody removes what is there before its turn has come."""
        keys = self._keys(teacher, digests)
        there = self._reserved(keys)
        return _Gathering(teacher, keys, there, Columns(texts, self._scratch), set(self._asking.asked.pieces))

    def _keys(self, teacher: WaitingTeacher, digests: Sequence[str]) -> list[dict[Piece, str]]:
        """Of each shard."""
        return [self._asking.keys(teacher, digest, shard) for shard, digest in enumerate(digests)]

    def _reserved(self, keys: Sequence[dict[Piece, str]]) -> set[str]:
        """Those that are there."""
        return self._asking.shelf.need([key for of_shard in keys for key in of_shard.values()])


@dataclass(frozen=True)
class _Work:
    """All units of a corpus, and where their answers go."""

    asking: Asking
    texts: Texts
    gatherings: Sequence[_Gathering]

    def units(self) -> list[Unit]:
        """One teacher after the other, or shard after shard of all."""
        shards = range(len(self.gatherings[0].keys))
        teachers = range(len(self.gatherings)) if self.asking.asked.bound is None else [TOGETHER]
        return [Unit(teacher, shard) for teacher in teachers for shard in shards]

    def put_found(self, unit: Unit) -> bool:
        """True when everything is on the shelf."""
        if not all(gathering.has(unit.shard) for gathering in self._of(unit)):
            return False
        answers = [question.outputs() for question in self._questions(unit)]
        whole = [outputs for outputs in answers if outputs is not None]
        if len(whole) < len(answers):
            return False
        self.tell(unit)
        for gathering, outputs in zip(self._of(unit), whole, strict=True):
            gathering.put(unit.shard, outputs, 0)
        return True

    def compute(self, unit: Unit, following: Unit | None = None) -> None:
        """Ask the teachers; those that are not asked now are released.

        Args:
            unit: what about.
            following: what is probably computed next.
        """
        self.release(but=self._of(unit))
        questions = self._questions(unit)
        answers = self.asking.answer(questions, self._upcoming(unit, following))
        for gathering, question, outputs in zip(self._of(unit), questions, answers, strict=True):
            gathering.put(unit.shard, outputs, self.asking.passes(question, outputs))

    def _upcoming(self, unit: Unit, following: Unit | None) -> Upcoming | None:
        """The following shard, if it goes to the same teachers."""
        if following is None or following.teacher != unit.teacher:
            return None
        return Upcoming(following.shard, lambda: self.texts.shard(following.shard).to_pylist())

    def put_helped(self, unit: Unit) -> None:
        """What a helper has computed is on the shelf, or it is computed after all."""
        before = self._questions(unit)
        for gathering in self._of(unit):
            gathering.there.update(gathering.keys[unit.shard].values())
        answers = [question.outputs() for question in self._questions(unit)]
        if None in answers:
            self.compute(unit)
            return
        for gathering, question, outputs in zip(self._of(unit), before, answers, strict=True):
            if outputs is not None:
                gathering.put(unit.shard, outputs, self.asking.passes(question, outputs))

    def tell(self, unit: Unit) -> None:
        """The texts are done, without that anybody was asked here."""
        self.asking.on_texts(len(self.texts.shard(unit.shard)) * len(self._of(unit)))

    def release(self, but: Sequence[_Gathering] = ()) -> None:
        """Give the memory of teachers back."""
        for gathering in self.gatherings:
            if gathering not in but:
                gathering.asked.release()

    def _of(self, unit: Unit) -> Sequence[_Gathering]:
        return self.gatherings if unit.teacher == TOGETHER else [self.gatherings[unit.teacher]]

    def _questions(self, unit: Unit) -> list[Question]:
        texts = self.texts.shard(unit.shard).to_pylist()
        return [
            self.asking.question(each.asked, unit.shard, texts, each.keys[unit.shard], each.there)
            for each in self._of(unit)
        ]
