"""Teacher outputs in the store, content-addressed: no job and no attempt repeats a pass."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import transformers

from app.storage import ArtifactStore
from worker.muka import SHARD_SIZE, Method, Teacher, TeacherOutputs, score_shard
from worker.muka.precision import resolve
from worker.muka.recipe import Precision

_FORMAT = 1
"""Raised when worker.muka computes other numbers from the same inputs."""


@dataclass(frozen=True)
class Scoring:
    """What the numbers of one teacher over one corpus depend on, beside the texts."""

    digest: str
    """The teacher's."""
    mc_samples: int
    seed: int
    max_length: int
    precision: Precision
    device: torch.device

    def key(self, texts: Sequence[str], shard: int) -> str:
        """Where the store keeps the outputs for these texts as the corpus' shard of that number."""
        facts = {
            "format": _FORMAT,
            "teacher": self.digest,
            "texts": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
            "mc_samples": self.mc_samples,
            # Without dropout passes neither the seed nor the shard's number is used.
            "dropout": [self.seed, shard] if self.mc_samples else None,
            "max_length": self.max_length,
            "precision": str(resolve(self.precision, self.device)),
            "device": self.device.type,
            "versions": [torch.__version__, transformers.__version__],
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"scores/{digest}.safetensors"


@dataclass(frozen=True)
class Scores:
    """One teacher's outputs for a whole corpus."""

    outputs: TeacherOutputs
    shards: int
    reused: int
    """Shards that were in the store already."""


def shards_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """The corpus in pieces of a fixed size."""
    return [texts[start : start + SHARD_SIZE] for start in range(0, len(texts), SHARD_SIZE)]


def score(
    store: ArtifactStore,
    texts: Sequence[str],
    scoring: Scoring,
    load: Callable[[], Teacher],
    *,
    on_texts: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> Scores:
    """A teacher's outputs: those in the store, and the missing ones computed and stored, shard by shard.

    Args:
        store: where they are kept.
        texts: the corpus.
        scoring: the settings.
        load: gives the teacher; not called when nothing is missing.
        on_texts: told how many more texts are done, in fractions of a text while it is sampled.
        should_stop: asked before every batch.

    Raises:
        StoppedError: `should_stop` answered True.
    """
    teacher: Teacher | None = None
    found, reused = [], 0
    for number, shard in enumerate(shards_of(texts)):
        key = scoring.key(shard, number)
        if store.exists(key):
            reused += 1
            on_texts(len(shard))
        else:
            teacher = teacher or load()
            outputs = _compute(teacher, shard, number, scoring, on_texts=on_texts, should_stop=should_stop)
            _keep(store, key, outputs)
        found.append(TeacherOutputs.load(store.local_path(key)))
    return Scores(TeacherOutputs.cat(found), len(found), reused)


def _compute(
    teacher: Teacher,
    texts: Sequence[str],
    number: int,
    scoring: Scoring,
    *,
    on_texts: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> TeacherOutputs:
    passes = 1 + (scoring.mc_samples if teacher.has_dropout else 0)
    return score_shard(
        teacher,
        texts,
        method=Method(mc_samples=scoring.mc_samples),
        seed=scoring.seed,
        shard=number,
        max_length=scoring.max_length,
        precision=scoring.precision,
        on_batch=lambda done: on_texts(done / passes),
        should_stop=should_stop,
    )


def _keep(store: ArtifactStore, key: str, outputs: TeacherOutputs) -> None:
    with store.staging() as folder:
        path = folder / "outputs.safetensors"
        outputs.save(path)
        store.put_file(key, path)
