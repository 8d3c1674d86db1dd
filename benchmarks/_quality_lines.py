"""The lines of the quality benchmark: which teachers know what, and who learns from which texts."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

_BANKING77 = "banking77"


@dataclass(frozen=True)
class Row:
    """One text, its gold label, and a teacher that knows this label; -1 where none does."""

    text: str
    label: str
    owner: int


@dataclass(frozen=True)
class Split:
    """The three parts of a line's texts; no text is in two of them."""

    labelled: tuple[Row, ...]
    """For fine-tuning the teachers."""
    corpus: tuple[Row, ...]
    """The methods see its texts only; the references, which are not allowed to us, its labels too."""
    test: tuple[Row, ...]


Teams = Callable[[Path], list[list[str]]]
"""Tells for each teacher the labels that it knows, given the folder that holds one folder a set."""


@dataclass(frozen=True)
class Encoder:
    """What a model is made of.

    Attributes:
        kind: As `benchmarks._quality_encoders` has it.
        layers: Only the first so many.
    """

    kind: str = "minilm"
    layers: int | None = None


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        name: Of the line.
        teams: For each teacher the labels that it knows, by a function of the data's folder.
        sets: Folders of its texts.
        labelled: Most labelled texts of a class for its teachers, who share them; never more than half of the
            class.
        corpus: Most texts of the corpus, drawn as often as they occur.
        test: Most texts of the test.
        epochs: Of teachers and students.
        batch_size: Of teachers and students; smaller where many labels need more steps.
        learning_rate: Of teachers and students.
        max_length: Tokens of a text, for teachers and students.
        encoders: What each teacher is made of; MiniLM where nothing is said.
        student: What the student is made of, always MiniLM itself; by default it starts from the first
            teacher's encoder.
        renamed: Whether every other teacher has names of its own for its labels, which are mapped.
        rare: How many texts of the corpus are left of the first label of the first teacher.
        strangers: How many texts that fit no teacher are mixed into the corpus.
        missing: The label of CLINC150 that these have; by default they are such that fit none of its labels.
    """

    name: str
    teams: Teams
    sets: tuple[str, ...]
    labelled: int = 50
    corpus: int = 2000
    test: int = 1500
    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 3e-4
    max_length: int = 128
    encoders: tuple[Encoder, ...] = ()
    student: Encoder | None = None
    renamed: bool = False
    rare: int | None = None
    strangers: int = 0
    missing: str | None = None

    @property
    def family(self) -> str:
        """Lines of one family differ in corpus and student alone: their teachers are the same."""
        return self.name.split(" (")[0] + " (plain)" * any(each.kind == "plain" for each in self.encoders)

    def encoder_of(self, teacher: int) -> Encoder:
        """What a teacher is made of."""
        return self.encoders[teacher] if self.encoders else Encoder()

    def own_name(self, teacher: int, label: str) -> str:
        """What a teacher calls a label."""
        return f"{label} by another name" if self.renamed and teacher % 2 else label

    def split(self, data: Path, seed: int) -> Split:
        """Cut the texts; the seed says how.

        Raises:
            FileNotFoundError: The data is not there.
        """
        knowing: defaultdict[str, list[int]] = defaultdict(list)
        for i, team in enumerate(self.teams(data)):
            for label in team:
                knowing[label].append(i)
        train, test = (
            [Row(t, y, knowing[y][0]) for t, y in part if y in knowing] for part in _pairs(data, self.sets)
        )
        draw = random.Random(f"{self.family}/{seed}")
        labelled, rest = self._cut(train, draw)
        labelled = [
            replace(row, owner=knowing[row.label][place % len(knowing[row.label])])
            for place, row in enumerate(labelled)
        ]
        corpus = self._thinned(draw.sample(rest, min(len(rest), self.corpus)), next(iter(knowing)))
        corpus += draw.sample(_strangers(data, self.missing), self.strangers) if self.strangers else []
        return Split(tuple(labelled), tuple(corpus), tuple(draw.sample(test, min(len(test), self.test))))

    def _cut(self, train: Sequence[Row], draw: random.Random) -> tuple[list[Row], list[Row]]:
        """Of each class the labelled texts, and the rest."""
        by_label: defaultdict[str, list[Row]] = defaultdict(list)
        for row in train:
            by_label[row.label].append(row)
        labelled, rest = [], []
        for rows in by_label.values():
            draw.shuffle(rows)
            taken = min(self.labelled, len(rows) // 2)
            labelled += rows[:taken]
            rest += rows[taken:]
        return labelled, rest

    def _thinned(self, corpus: list[Row], label: str) -> list[Row]:
        if self.rare is None:
            return corpus
        kept = [row for row in corpus if row.label == label][: self.rare]
        return kept + [row for row in corpus if row.label != label]


def _pairs(data: Path, names: Sequence[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    train = [pair for name in names for pair in _read(data / name / "train.parquet")]
    return train, [pair for name in names for pair in _read(data / name / "test.parquet")]


def _read(path: Path) -> Iterable[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give the folder of the data sets with --data")
    table = pq.read_table(path, columns=["text", "label"])
    # A text that stands there twice would be in two parts.
    return dict(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)).items()


def _strangers(data: Path, label: str | None) -> list[Row]:
    """CLINC150's texts of a label, or that fit none of its labels; those of the test are not read."""
    if label is not None:
        pairs = _read(data / "clinc150" / "train.parquet")
        return [Row(text, name, -1) for text, name in pairs if name == label]
    parts = ("oos_train", "oos_valid")
    rows = [pair for part in parts for pair in _read(data / "clinc150" / f"{part}.parquet")]
    return [Row(text, label, -1) for text, label in rows]


def _domains(data: Path, *, folder: str, groups: Sequence[Sequence[str]]) -> list[list[str]]:
    domain_of: Mapping[str, str] = json.loads((data / folder / "intent_to_domain.json").read_text())
    return [sorted(label for label, domain in domain_of.items() if domain in group) for group in groups]


def _cross(data: Path) -> list[list[str]]:
    (banking,) = _domains(data, folder="clinc150", groups=[["banking"]])
    return [banking, sorted({label for _, label in _read(data / _BANKING77 / "train.parquet")})]


def _banking_in_halves(data: Path) -> list[list[str]]:
    labels = sorted({label for _, label in _read(data / _BANKING77 / "train.parquet")})
    return [labels[::2], labels[1::2]]


def _overlapping(data: Path, *, domains: Sequence[str], shared: int) -> list[list[str]]:
    """Teams of a domain each, and the first labels of the next domain as well."""
    teams = _domains(data, folder="clinc150", groups=[[domain] for domain in domains])
    return [team + teams[(i + 1) % len(teams)][:shared] for i, team in enumerate(teams)]


def _fixed(_: Path, *, teams: list[list[str]]) -> list[list[str]]:
    return teams


def _clinc(*domains: str) -> Teams:
    return partial(_domains, folder="clinc150", groups=[[domain] for domain in domains])


_THREE = ("banking", "travel", "kitchen_and_dining")
_TEN = (*_THREE, "auto_and_commute", "credit_cards", "home", "meta", "small_talk", "utility", "work")
_HWU = (
    ("general", "qa"),
    ("iot", "alarm", "cooking", "takeaway"),
    ("play", "audio", "music", "recommendation", "social", "news"),
    ("email", "calendar", "lists", "datetime", "transport", "weather"),
)
_HWU_IN_EIGHT = (
    ("general",),
    ("qa",),
    ("iot", "alarm"),
    ("cooking", "takeaway", "recommendation"),
    ("play", "audio", "music"),
    ("social", "news", "weather"),
    ("email", "lists"),
    ("calendar", "datetime", "transport"),
)
_CLINC = ("clinc150",)
_THREE_TEACHERS = Line("clinc150, 3 teachers", _clinc(*_THREE), _CLINC)

LINES: tuple[Line, ...] = (
    Line("clinc150, 2 teachers", _clinc(*_THREE[:2]), _CLINC),
    _THREE_TEACHERS,
    Line("clinc150, 10 teachers", _clinc(*_TEN), _CLINC, labelled=30, corpus=3000, batch_size=16),
    Line(
        "ag_news",
        partial(_fixed, teams=[["World", "Sports"], ["Business", "Sci/Tech"]]),
        ("ag_news",),
        labelled=500,
        corpus=3000,
        epochs=2,
        learning_rate=2e-4,
        max_length=32,
    ),
    Line(
        "trec6",
        partial(_fixed, teams=[["ABBR", "DESC", "ENTY"], ["HUM", "LOC", "NUM"]]),
        ("trec6",),
        labelled=300,
    ),
    Line(
        "hwu64",
        partial(_domains, folder="hwu64", groups=_HWU),
        ("hwu64",),
        batch_size=16,
    ),
    Line(
        "clinc150 banking + banking77",
        _cross,
        ("clinc150", _BANKING77),
        corpus=3000,
        batch_size=16,
    ),
)
"""The table of the README."""

HARD_LINES: tuple[Line, ...] = (
    replace(_THREE_TEACHERS, name="clinc150, 3 teachers (rare)", rare=5),
    replace(_THREE_TEACHERS, name="clinc150, 3 teachers (strangers)", strangers=200),
    replace(
        _THREE_TEACHERS, name="clinc150, 3 teachers (missing label)", strangers=75, missing="pto_request"
    ),
    replace(_THREE_TEACHERS, name="clinc150, 3 teachers (plain)", encoders=(Encoder("plain"),) * 3),
)
"""Cases in which it could do harm to learn from the corpus."""

SETTING_LINES: tuple[Line, ...] = (
    replace(_THREE_TEACHERS, name="clinc150, 3 teachers (student of 3 layers)", student=Encoder(layers=3)),
    replace(
        _THREE_TEACHERS,
        name="setting: ELECTRA and RoBERTa, BERT student",
        encoders=(Encoder("electra"), Encoder("roberta"), Encoder("electra", 3)),
        student=Encoder(),
    ),
    replace(
        _THREE_TEACHERS,
        name="setting: overlapping and renamed labels",
        teams=partial(_overlapping, domains=_THREE, shared=5),
        renamed=True,
    ),
)
"""The other settings of the paper: heterogeneous teachers, shared labels, a smaller or another student."""

HELD_OUT_LINES: tuple[Line, ...] = (
    Line("held out: clinc150, 2 teachers", _clinc("work", "utility"), _CLINC),
    Line(
        "held out: clinc150, 5 teachers",
        _clinc("auto_and_commute", "credit_cards", "home", "meta", "small_talk"),
        _CLINC,
    ),
    Line("held out: banking77 in halves", _banking_in_halves, (_BANKING77,), batch_size=16),
    Line(
        "held out: hwu64, 8 teachers",
        partial(_domains, folder="hwu64", groups=_HWU_IN_EIGHT),
        ("hwu64",),
        batch_size=16,
    ),
    Line(
        "held out: trec6, 3 teachers",
        partial(_fixed, teams=[["ABBR", "HUM"], ["DESC", "LOC"], ["ENTY", "NUM"]]),
        ("trec6",),
        labelled=300,
    ),
)
"""Other teachers, on which no setting of `consensus` was chosen."""

ALL_LINES = LINES + HARD_LINES + SETTING_LINES + HELD_OUT_LINES
