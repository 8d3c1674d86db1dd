"""Losses of the student."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Numbers of 16 bits as float32; others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def kl_to_golden(student_logits: Tensor, q: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(q ‖ softmax(s/T)) of every text, at least in float32 whatever the autocast type, with 0·log 0 = 0.

    Args:
        student_logits: s [n, |L|], any floating type.
        q: Golden supervision [n, |L|], rows sum to one.
        temperature: T > 0.

    Returns:
        [n] float32, in nats.
    """
    log_s = torch.log_softmax(at_least_float32(student_logits) / temperature, dim=-1)
    target = at_least_float32(q)
    return (torch.xlogy(target, target) - target * log_s).sum(-1)


def weighted_kl(student_logits: Tensor, q: Tensor, m: Tensor, temperature: float = 1.0) -> Tensor:
    """mean_x m(x)·KL(q(·|x) ‖ softmax(s(x)/T)) (section 6).

    Args:
        student_logits: s [n, |L|].
        q: Golden supervision [n, |L|].
        m: Weight of each text [n].
        temperature: T > 0.

    Returns:
        A scalar, float32 (float64 where the arguments are).
    """
    return (at_least_float32(m) * kl_to_golden(student_logits, q, temperature)).mean()
