"""How sure a teacher is of a text: Monte-Carlo dropout and the scores u (section 3)."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.muka.gpu_attention import any_shape

_TORCH_DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """The model's dropout layers with a rate above zero: torch's classes and leaves named like them."""
    return [module for module in model.modules() if _is_dropout(module) and _rate(module) > 0]


def _is_dropout(module: nn.Module) -> bool:
    named_so = "dropout" in type(module).__name__.lower() and not any(True for _ in module.children())
    return isinstance(module, _TORCH_DROPOUT) or named_so


def _rate(module: nn.Module) -> float:
    rate = getattr(module, "p", getattr(module, "drop_prob", 0.0))
    return float(rate) if isinstance(rate, int | float) else 0.0


def dropout_calls(model: nn.Module, batch: Mapping[str, Tensor]) -> list[bool]:
    """For each call of a dropout layer in a pass: whether it draws one mask for all texts of the batch.

    Some layers are never called: those of attention whose kernel would drop by itself, but only in a model
    that trains. And DeBERTa's of relative positions has one mask for all texts: in such a model the passes of
    a text must not share a batch.

    Args:
        model: A classifier.
        batch: Its input for some texts, best a prime number of them: the first dimension of what a layer is
            given is a multiple of it, or else that layer knows no texts.
    """
    texts, found = len(batch["input_ids"]), []

    def look(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].shape[0] % texts != 0)

    hooks = [layer.register_forward_pre_hook(look) for layer in dropout_modules(model)]
    try:
        with torch.inference_mode(), any_shape():
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def enable_dropout(model: nn.Module) -> Iterator[None]:
    """Put the dropout modules, and nothing else, into train mode for the block.

    Everything else stays as it is (norms, layer drop). Dropout that a model applies as a function, as
    transformers does inside SDPA attention, follows its parent's mode and so stays off.
    """
    modules = dropout_modules(model)
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.train()
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)


@dataclass(frozen=True)
class TeacherBelief:
    """What the scores may look at, for one teacher and n texts.

    Attributes:
        mean_probabilities: p̂ [n, c] float32, over the c distinct kept labels of the teacher.
        logits: z [n, k] float32 of the deterministic pass, over the classes whose labels are kept.
        pass_entropy: [n] float32, the mean over dropout passes of each pass's entropy (nats, over C).
        sampled_entropy: [n] float32, the entropy of the mean over passes (nats, over C).
        num_classes: C, with those that are dropped.
    """

    mean_probabilities: Tensor
    logits: Tensor
    pass_entropy: Tensor
    sampled_entropy: Tensor
    num_classes: int


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of distributions [..., C], with 0·log 0 = 0: [...]."""
    return -torch.xlogy(p, p).sum(-1)


def entropy_score(p_hat: Tensor, num_classes: int) -> Tensor:
    """Certainty u = 1 - H(p̂)/log C: one minus the normalised predictive entropy (the paper's).

    Args:
        p_hat: p̂ [..., C], mean of the distributions of the dropout passes.
        num_classes: C >= 2; the division makes teachers of different C comparable.

    Returns:
        u [...] in [0, 1]; 1 is certain.
    """
    return (1.0 - entropy(p_hat) / math.log(num_classes)).clamp(0.0, 1.0)


def entropy_of_mean(belief: TeacherBelief) -> Tensor:
    """`entropy_score` of the teacher's p̂: [n] in [0, 1]."""
    return entropy_score(belief.mean_probabilities, belief.mean_probabilities.shape[-1])


def max_probability(belief: TeacherBelief) -> Tensor:
    """The largest mean probability (Hendrycks and Gimpel 2017), moved so that a uniform answer scores 0.

    Returns:
        u [n] in [0, 1].
    """
    chance = 1.0 / belief.mean_probabilities.shape[-1]
    return ((belief.mean_probabilities.amax(-1) - chance) / (1.0 - chance)).clamp(0.0, 1.0)


def bald(belief: TeacherBelief) -> Tensor:
    """One minus the normalised mutual information of prediction and weights (Houlsby et al. 2011).

    Where all passes agree, the score is 1, even if they agree on a uniform answer, or on a class that is
    dropped: entropies of single passes are known over all classes only.

    Returns:
        u [n] in [0, 1].
    """
    information = belief.sampled_entropy - belief.pass_entropy
    return (1.0 - information / math.log(belief.num_classes)).clamp(0.0, 1.0)


def energy(belief: TeacherBelief) -> Tensor:
    """The negative free energy log Σ exp z - log k (Liu et al. 2020), squeezed into (0, 1) by softsign.

    It looks at the deterministic pass alone.

    Returns:
        u [n] in (0, 1).
    """
    negative_energy = belief.logits.logsumexp(-1) - math.log(belief.logits.shape[-1])
    return 0.5 + 0.5 * functional.softsign(negative_energy)


Score = Callable[[TeacherBelief], Tensor]
SCORES: Mapping[str, Score] = MappingProxyType(
    {"entropy": entropy_of_mean, "max_probability": max_probability, "bald": bald, "energy": energy}
)
