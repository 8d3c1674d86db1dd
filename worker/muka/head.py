"""The student's head before the first step: the linear discriminant of its own encoder's features.

A head that is drawn at random has to be learnt from nothing, and pulls the encoder about meanwhile: with many
labels, few texts of each and few epochs, some labels are never learnt. Kumar et al. 2022
(https://arxiv.org/abs/2202.10054) therefore train the head alone first. Fisher's linear discriminant needs no
training: it has a closed form, for which one pass over the texts is enough.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.muka.attention import suited_attention
from worker.muka.batching import Rows, TokenisedTexts
from worker.muka.forward import forward
from worker.muka.memory import TokenBudget, in_token_batches
from worker.muka.precision import autocast
from worker.muka.seeds import derive_seed

REFERENCE_TEXTS = 16_384
"""It is learnt from so many texts at most, so that time does not depend on the corpus."""

_PRIOR = 1.0
"""So many texts at the mean of all are added to each label, so that one without texts starts there."""
_SHRINKAGE = 0.3
"""Of the covariance towards that of a ball: there are few texts for so many directions."""
_ROUNDING = 1e-10
"""Of the features' mean square: what varies less in float32 is no difference between texts."""
_CALIBRATED_ON = 2_048
"""Texts, by which it is told how sure to be."""
_SCALES, _HALVINGS = (1e-4, 10.0), 30
"""Between which of them the scale is looked for, by halving their logarithms' distance so often."""


def start_head(
    model: PreTrainedModel,
    texts: TokenisedTexts,
    columns: Mapping[str, Tensor],
    *,
    seed: int,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
    on_block: Callable[[], None] = lambda: None,
) -> bool:
    """Give the head the weights of the discriminant.

    Args:
        model: A classifier in eval mode, on its device.
        texts: n of them.
        columns: Golden supervision `q` [n, |L|] and weights `m` [n].
        seed: Of the choice of texts, where there are more than `REFERENCE_TEXTS`.
        temperature: T at which the student's answer is to be `q`.
        dtype: Of the matrix products.
        on_block: Called after every batch; what it raises ends this.

    Returns:
        False where the head stays as it is: it is no linear layer with a bias on one vector a text, or the
        features tell the texts not apart.

    Raises:
        OutOfMemoryError_: Not even one text fits.
    """
    head = _output_layer(model, columns["q"].shape[1])
    if head is None:
        return False
    rows = _reference(len(texts), seed)
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))

    def features(places: Rows) -> Tensor:
        seen.clear()
        with torch.inference_mode(), suited_attention(model), autocast(dtype, model.device):
            forward(model, texts.collate(rows[places], model.device))
        return seen[-1].double().cpu()

    total, kept = ClassMoments(columns["q"].shape[1], head.in_features), _Kept(len(rows))
    try:
        budget = TokenBudget.for_device(None, torch.device(model.device))
        for places, found in in_token_batches(features, texts.lengths[rows], budget):
            if found.ndim != 2:  # a vector for each token
                return False
            q, m = (columns[name][torch.from_numpy(rows[places])].double() for name in ("q", "m"))
            total.add(found, q, m)
            kept.add(places, found, q, m)
            on_block()
    finally:
        handle.remove()
    start = total.discriminant()
    if start is None:
        return False
    weight, bias = start
    scale = temperature * kept.scale(weight, bias)
    with torch.no_grad():
        head.weight.copy_(scale * weight)
        head.bias.copy_(scale * bias)
    return True


def _output_layer(model: PreTrainedModel, labels: int) -> nn.Linear | None:
    """The last linear layer behind the encoder, if it has a bias and an output for each label."""
    encoder = set(model.base_model.modules())
    behind = [each for each in model.modules() if isinstance(each, nn.Linear) and each not in encoder]
    if not behind or behind[-1].out_features != labels or behind[-1].bias is None:
        return None
    return behind[-1]


def _reference(n: int, seed: int) -> Rows:
    if n <= REFERENCE_TEXTS:
        return np.arange(n)
    generator = np.random.default_rng(derive_seed(seed, "head", n))
    return np.sort(generator.choice(n, REFERENCE_TEXTS, replace=False))


class ClassMoments:
    """Sums over texts, in float64: of each label, of features by label, of products of features."""

    def __init__(self, labels: int, width: int) -> None:
        self._texts = torch.zeros(labels, dtype=torch.float64)
        self._sums = torch.zeros(labels, width, dtype=torch.float64)
        self._squares = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Tensor, q: Tensor, m: Tensor) -> None:
        """Features [b, width], supervision [b, |L|], weights [b]."""
        weighted = q * m[:, None]
        self._texts += weighted.sum(0)
        self._sums += weighted.T @ features
        self._squares += features.T @ (features * weighted.sum(1, keepdim=True))

    def discriminant(self) -> tuple[Tensor, Tensor] | None:
        """Weights [|L|, width] and biases [|L|] of equally frequent normal clusters with one covariance."""
        n = self._texts.sum()
        mean = self._sums.sum(0) / n
        around = (self._sums - self._texts[:, None] * mean) / (self._texts + _PRIOR)[:, None]
        within = self._squares / n - torch.outer(mean, mean) - (around.T * (self._texts / n)) @ around
        ball = within.trace() / len(mean) * torch.eye(len(mean), dtype=torch.float64)
        shrunk = (1 - _SHRINKAGE) * within + _SHRINKAGE * ball
        if not (torch.isfinite(shrunk).all() and within.trace() > _ROUNDING * self._squares.trace() / n):
            return None
        weight = torch.linalg.solve(shrunk, around.T).T
        bias = -0.5 * (weight * around).sum(1) - weight @ mean
        return (weight, bias) if torch.isfinite(weight).all() else None


class _Kept:
    """Some of n texts, spread over all of them, by which it is told how sure to be."""

    def __init__(self, n: int) -> None:
        self._every = -(-n // _CALIBRATED_ON)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, places: Rows, features: Tensor, q: Tensor, m: Tensor) -> None:
        """Those of a batch: their numbers among the n, features [b, width], supervision, weights."""
        chosen = torch.from_numpy(places % self._every == 0)
        self._parts.append((features[chosen], q[chosen], m[chosen]))

    def scale(self, weight: Tensor, bias: Tensor) -> float:
        """By which the logits must be multiplied to be as sure as `q` is.

        It has the least KL(q ‖ softmax(scale · logits)). The derivative of that grows with the scale, so that
        halving an interval finds where it is 0.
        """
        features, q, m = (torch.cat(part) for part in zip(*self._parts, strict=True))
        logits = features @ weight.T + bias
        aim = (q * logits).sum(-1)
        low, high = _SCALES
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            slope = m @ ((torch.softmax(middle * logits, dim=-1) * logits).sum(-1) - aim)
            low, high = (low, middle) if slope > 0 else (middle, high)
        return math.sqrt(low * high)
