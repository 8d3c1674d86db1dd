"""The teachers' stored outputs: content-addressed pieces, so that no job and no attempt repeats a pass.

One shard's outputs of one teacher are up to three pieces, because they depend on different things: `logits`
and `features` on teacher and texts alone, `samples` on the dropout passes as well.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from app.storage import ArtifactStore
from worker.muka import Sampling, TeacherOutputs
from worker.muka.precision import resolve
from worker.muka.recipe import Precision

_FORMAT = 2
"""Raised when worker.muka computes other numbers from the same inputs."""

Tensors = dict[str, torch.Tensor]


class Piece(StrEnum):
    """A part of `TeacherOutputs` that is stored on its own."""

    LOGITS = "logits"
    """Of the deterministic pass."""
    FEATURES = "features"
    """Of the deterministic pass, where a method wants them."""
    SAMPLES = "samples"
    """What the dropout passes gave."""


_TENSORS = {
    Piece.LOGITS: ("logits",),
    Piece.FEATURES: ("features",),
    Piece.SAMPLES: ("mc_probabilities", "passes", "pass_entropy"),
}


@dataclass(frozen=True)
class Conditions:
    """What the numbers of all teachers depend on, beside teacher and texts."""

    sampling: Sampling
    max_length: int
    precision: Precision
    device: torch.device
    company: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    """Digests and labels of all teachers: adaptive sampling of one depends on the others."""

    def key(self, piece: Piece, teacher: str, texts: Sequence[str], shard: int) -> str:
        """Where the store keeps a piece for these texts as the corpus' shard of that number."""
        facts: dict[str, Any] = {
            "format": _FORMAT,
            "piece": piece,
            "teacher": teacher,
            "texts": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
            "max_length": self.max_length,
            "precision": str(resolve(self.precision, self.device)),
            "device": self.device.type,
            "versions": [torch.__version__, transformers.__version__],
        }
        if piece is Piece.SAMPLES:
            facts |= self._of_samples(shard)
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"scores/{digest}.safetensors"

    def _of_samples(self, shard: int) -> dict[str, Any]:
        asked = self.sampling
        facts: dict[str, Any] = {"passes": asked.passes, "dropout": [asked.seed, shard]}
        if asked.adaptive_bound is not None:
            facts |= {"bound": asked.adaptive_bound, "score": asked.score, "company": self.company}
        return facts


def find(store: ArtifactStore, key: str) -> Tensors | None:
    """The tensors of a stored piece, if it is there."""
    return load_file(store.local_path(key)) if store.exists(key) else None


def keep(store: ArtifactStore, key: str, piece: Piece, outputs: TeacherOutputs) -> None:
    """Store a piece of outputs; one that is there already stays."""
    if store.exists(key):
        return
    with store.staging() as folder:
        path = folder / "outputs.safetensors"
        save_file({name: getattr(outputs, name).contiguous() for name in _TENSORS[piece]}, path)
        store.put_file(key, path)
