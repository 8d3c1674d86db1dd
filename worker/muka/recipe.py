"""What one amalgamation asks for beside its method: how to sample the teachers, how to train the student."""

import math
from dataclasses import dataclass
from typing import Literal

from worker.muka.parameters import one_of, within

SCORES = ("entropy", "max_probability", "bald", "energy")
UNSAMPLED_SCORES = frozenset({"energy"})
"""Those that look at the deterministic pass alone."""

Precision = Literal["auto", "float32", "bfloat16"]
Integration = Literal["soft", "hard"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a teacher is asked for its certainty: by Monte-Carlo dropout (sections 3 and 9.5).

    Attributes:
        passes: K, dropout passes per text; 0 leaves the deterministic pass alone.
        seed: Of the dropout masks.
        adaptive_bound: Sampling of a text stops once its margin exceeds this plus two standard errors (both
            shrink as K comes nearer), and K is the most passes; None takes exactly K.
        score: By which the margin is measured; of no use without a bound.
    """

    passes: int = 0
    seed: int = 1
    adaptive_bound: float | None = None
    score: str = "entropy"

    def __post_init__(self) -> None:
        one_of("score", self.score, SCORES)
        within("passes", self.passes, 0, 1024)
        within("seed", self.seed, 0, 2**63 - 1)
        if self.adaptive_bound is not None:
            within("adaptive_bound", self.adaptive_bound, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the student is trained (section 6).

    Attributes:
        epochs: Times that every text is seen.
        batch_size: Texts per optimizer step, whatever the memory (smaller micro-batches accumulate).
        learning_rate: Peak of the linear warm-up and decay.
        max_length: Tokens per text, specials included; the model's own maximum caps it.
        seed: Of the student's head, of adapters, dropout and the order of texts. The teachers' dropout
            has a seed of its own, so that another student does not ask the teachers again.
        precision: `auto` takes bfloat16 where the processor or GPU is really faster with it.
        warmup_ratio: Share of all steps in which the learning rate rises.
        weight_decay: Of AdamW, on matrices only (not on biases and norms).
        max_grad_norm: The gradient's norm is clipped to this.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 2e-5
    max_length: int = 128
    seed: int = 1
    precision: Precision = "auto"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        within("epochs", self.epochs, 1, 10_000)
        within("batch_size", self.batch_size, 1, 65_536)
        within("learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        within("max_length", self.max_length, 2, 1_000_000)
        within("seed", self.seed, 0, 2**63 - 1)
        within("warmup_ratio", self.warmup_ratio, 0.0, 1.0)
        within("weight_decay", self.weight_decay, 0.0, 1.0)
        within("max_grad_norm", self.max_grad_norm, 0.0, math.inf, open_low=True)
