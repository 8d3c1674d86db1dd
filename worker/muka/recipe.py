"""What one amalgamation asks for: the method's and the training's settings, checked on construction."""

import math
from dataclasses import dataclass
from typing import Literal

METHODS = ("muka",)
SCORES = ("entropy", "max_probability", "bald", "energy")

Precision = Literal["auto", "float32", "bfloat16"]
Integration = Literal["soft", "hard"]
Reweight = Literal["margin", "none"]


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}; allowed: {', '.join(allowed)}")


def _within(field: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        left, right = ("(" if open_low else "["), ("]" if math.isfinite(high) else ")")
        raise ValueError(f"{field} is {value}; allowed: {left}{low}, {high}{right}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the teachers' answers become golden supervision (MUKA, sections 3 to 5).

    Attributes:
        name: Registered method, one of `METHODS`.
        integration: `soft` weights teachers by softmax(u/τ), `hard` takes the most certain one alone.
        score: The certainty score u, one of `SCORES`; `entropy` is the paper's.
        mc_samples: K, dropout passes per text and teacher; 0 scores the deterministic pass.
        temperature: τ of the soft integration.
        teacher_temperature: T, on the teachers' and the student's logits.
        reweight: `margin` weights each text by the best minus the second-best score.
        adaptive: Stop sampling a text once its ranking is decided; K is then the most passes.
        adaptive_bound: The margin above which, plus two standard errors, a ranking is decided.
    """

    name: str = "muka"
    integration: Integration = "soft"
    score: str = "entropy"
    mc_samples: int = 16
    temperature: float = 0.2
    teacher_temperature: float = 1.0
    reweight: Reweight = "margin"
    adaptive: bool = False
    adaptive_bound: float = 0.1

    def __post_init__(self) -> None:
        _one_of("name", self.name, METHODS)
        _one_of("integration", self.integration, ("soft", "hard"))
        _one_of("score", self.score, SCORES)
        _one_of("reweight", self.reweight, ("margin", "none"))
        _within("mc_samples", self.mc_samples, 0, 1024)
        _within("temperature", self.temperature, 0.0, 1e6, open_low=True)
        _within("teacher_temperature", self.teacher_temperature, 0.0, 1e6, open_low=True)
        _within("adaptive_bound", self.adaptive_bound, 0.0, 1.0)
        if self.adaptive and self.mc_samples < 2:
            raise ValueError(f"mc_samples is {self.mc_samples}; allowed: [2, 1024] with adaptive sampling")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the student is trained (section 6).

    Attributes:
        epochs: Times that every text is seen.
        batch_size: Texts per optimizer step, whatever the memory (smaller micro-batches accumulate).
        learning_rate: Peak of the linear warm-up and decay.
        max_length: Tokens per text, specials included; the model's own maximum caps it.
        seed: Of the student's head, dropout and the order of texts.
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
        _one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        _within("epochs", self.epochs, 1, 10_000)
        _within("batch_size", self.batch_size, 1, 65_536)
        _within("learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        _within("max_length", self.max_length, 2, 1_000_000)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("warmup_ratio", self.warmup_ratio, 0.0, 1.0)
        _within("weight_decay", self.weight_decay, 0.0, 1.0)
        _within("max_grad_norm", self.max_grad_norm, 0.0, math.inf, open_low=True)
