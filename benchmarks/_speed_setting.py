"""Texts and really fine-tuned teachers for the benchmark of speed: short texts and long ones."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.plain_muka import PlainSettings
from demo.encoder import minilm
from demo.support_inbox import TEAMS, messages
from worker.muka import Training, fine_tune

OUT = Path(__file__).with_name("out")
SHORT = (20, 32)
"""Tokens of a short text: about 25."""
LONG = PlainSettings.max_length
"""Tokens of a long text, at least."""
_FINE_TUNING = Training(epochs=4, learning_rate=2e-4)
_FOR_A_TEACHER = 640
"""Labelled texts at most, so that the first run stays short."""

Labelled = tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """One line of the benchmark.

    Attributes:
        name: "short" or "long".
        source: Where the texts are from.
        teachers: Folders of two fine-tuned classifiers.
        texts: Without labels; no teacher has seen them.
    """

    name: str
    source: str
    teachers: tuple[Path, Path]
    texts: tuple[str, ...]


def short_setting(data: Path, count: int) -> Setting:
    """Questions to a bank, half of the intents for each teacher."""
    if (data / "banking77").is_dir():
        rows, source = _read(data / "banking77"), "banking77"
    else:
        rows, source = _inbox(), "the demo's support inbox"
    lengths = _token_counts([text for text, _ in rows])
    fits = [SHORT[0] <= length <= SHORT[1] for length in lengths]
    corpus = [text for (text, _), fit in zip(rows, fits, strict=True) if fit]
    labelled = [row for row, fit in zip(rows, fits, strict=True) if not fit]
    names = sorted({label for _, label in rows})
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return _setting("short", source, halves, labelled, corpus[:count])


def long_setting(data: Path, count: int) -> Setting:
    """News, two topics for each teacher; some of one topic are joined until they are long."""
    if (data / "ag_news").is_dir():
        rows, source = _read(data / "ag_news"), "ag_news, joined"
        halves: tuple[Sequence[str], Sequence[str]] = ("World", "Sports"), ("Business", "Sci/Tech")
    else:
        rows, source = _inbox(), "the demo's support inbox, joined"
        halves = list(TEAMS["billing"]), list(TEAMS["shipping"])
    half = len(rows) // 2
    return _setting("long", source, halves, rows[:half], list(_joined(rows[half:], count)))


def _setting(
    name: str,
    source: str,
    halves: Sequence[Sequence[str]],
    labelled: Sequence[Labelled],
    texts: Sequence[str],
) -> Setting:
    folders = [
        _teacher(OUT / f"speed-{name}-{part}", set(labels), labelled) for part, labels in enumerate(halves)
    ]
    return Setting(name, source, (folders[0], folders[1]), tuple(texts))


def _teacher(folder: Path, labels: set[str], rows: Sequence[Labelled]) -> Path:
    if not (folder / "model.safetensors").exists():
        own = [(text, label) for text, label in rows if label in labels][:_FOR_A_TEACHER]
        texts, gold = [text for text, _ in own], [label for _, label in own]
        fine_tune(minilm(), texts, gold, training=_FINE_TUNING, output_dir=folder)
    return folder


def _read(folder: Path) -> list[Labelled]:
    import pyarrow.parquet as pq  # noqa: PLC0415  (without the data nobody needs it)

    table = pq.read_table(folder / "train.parquet", columns=["text", "label"])
    rows = [(row["text"], row["label"]) for row in table.to_pylist()]
    random.Random(1).shuffle(rows)
    return rows


def _inbox() -> list[Labelled]:
    return [(message.text, message.intent) for part in ("train", "corpus") for message in messages(part)]


def _joined(rows: Sequence[Labelled], count: int) -> Iterator[str]:
    """Texts of one label joined until each has enough words to be cut at `LONG` tokens."""
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    made = 0
    for text, label in rows:
        by_label[label].append(text)
        if made < count and sum(len(part.split()) for part in by_label[label]) >= LONG:
            yield " ".join(by_label.pop(label))
            made += 1


def _token_counts(texts: Sequence[str]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    return [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
