"""How the teachers' stored outputs are named: by content, so that no job and no attempt repeats a pass.

The corpus is cut into shards. What one teacher says about one shard is up to three pieces, because they
depend on different things: `logits` and `features` on teacher and texts alone, `samples` on the dropout
passes as well. API and workers compute the same names: the ones to tell what would be reused, the others to
reuse it.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from app.domain.methods import CATALOGUE
from app.domain.recipe import Recipe

PREFIX = "scores"
"""Of the store's keys."""
SHARD_TEXTS = 1024
"""Texts in a shard; fixed, because the dropout seeds count shards. The library's `SHARD_SIZE`."""


class Piece(StrEnum):
    """A part of a teacher's outputs that is stored on its own."""

    LOGITS = "logits"
    """Of the deterministic pass."""
    FEATURES = "features"
    """Of the deterministic pass, which keeps them whether or not the method at hand needs them."""
    SAMPLES = "samples"
    """What the dropout passes gave."""


@dataclass(frozen=True)
class Computation:
    """What the numbers depend on that no recipe tells: where they are computed."""

    precision: str
    """Of the matrix products: `float32` or `bfloat16`."""
    software: str
    """Kind of device, and versions."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job asks of all its teachers.

    Attributes:
        owner: Whose job it is. Another owner's outputs are not found: that they are there would tell who has
            the same texts and teachers.
        max_length: Tokens of a text.
        passes: K; the most passes with a bound.
        seed: Of the dropout masks.
        bound: Of adaptive sampling, which compares the teachers; None: exactly K passes.
        score: By which it compares them.
        features: Whether pooled features are wanted.
        company: Digests and labels of all teachers.
    """

    owner: str
    max_length: int
    passes: int = 0
    seed: int = 1
    bound: float | None = None
    score: str = "entropy"
    features: bool = False
    company: tuple[tuple[str, tuple[str | None, ...]], ...] = ()

    @classmethod
    def by(cls, recipe: Recipe, owner: str, company: tuple[tuple[str, tuple[str | None, ...]], ...]) -> Self:
        """What this recipe of the owner asks of the corpus."""
        settings = recipe.method.model_dump() if recipe.method.is_sampled else {}
        return cls(
            owner=owner,
            max_length=recipe.training.max_length,
            passes=settings.get("mc_samples", 0),
            seed=settings.get("mc_seed", 1),
            bound=settings.get("adaptive_bound") if settings.get("adaptive") else None,
            score=settings.get("score", "entropy"),
            features="teacher_features" in CATALOGUE[recipe.method.name]["needs"],
            company=company,
        )

    @cached_property
    def _company(self) -> str:
        """Once for all keys: the labels of many teachers are long."""
        return hashlib.sha256(json.dumps(self.company).encode()).hexdigest()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Those that a teacher's whole answer consists of."""
        features = (Piece.FEATURES,) if self.features else ()
        return (Piece.LOGITS, *features, *((Piece.SAMPLES,) if self.passes else ()))

    def key(self, piece: Piece, computation: Computation, *, teacher: str, texts: str, shard: int) -> str:
        """Where the store keeps a piece.

        Args:
            piece: which.
            computation: what computed it.
            teacher: the teacher's digest.
            texts: the shard's digest.
            shard: its number in the corpus.
        """
        facts: dict[str, Any] = {
            "owner": self.owner,
            "piece": piece,
            "teacher": teacher,
            "texts": texts,
            "max_length": self.max_length,
            "precision": computation.precision,
            "software": computation.software,
        }
        if piece is Piece.SAMPLES:
            facts |= {"passes": self.passes, "dropout": [self.seed, shard]}
            if self.bound is not None:
                facts |= {"bound": self.bound, "score": self.score, "company": self._company}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{PREFIX}/{digest}.safetensors"
