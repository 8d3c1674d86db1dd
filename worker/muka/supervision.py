"""Golden supervision: whom to believe, how much, and what to teach (sections 4 and 5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.muka.label_space import LabelSpace
from worker.muka.recipe import Integration

MARGIN_FLOOR = 1e-6


def integration_weights(u: Tensor, integration: Integration, tau: float) -> Tensor:
    """How much each teacher counts for each text.

    Args:
        u: Scores [n, N].
        integration: `soft` is softmax(u/τ); `hard` is 1 for the best teacher. Equally good teachers
            share the 1, which is the limit of `soft` and does not depend on their order.
        tau: τ > 0; unused by `hard`.

    Returns:
        w [n, N]; each row sums to one.
    """
    if integration == "hard":
        best = (u == u.amax(-1, keepdim=True)).to(u.dtype)
        return best / best.sum(-1, keepdim=True)
    return torch.softmax(u / tau, dim=-1)


def margins(u: Tensor) -> Tensor:
    """The margin m: best minus second-best score, plus 1e-6, of every text.

    Args:
        u: Scores [n, N], N >= 2.

    Returns:
        m [n] > 0; small where two teachers are equally sure and would teach a conflict.
    """
    best, second = u.topk(2, dim=-1).values.unbind(-1)
    return best - second + MARGIN_FLOOR


def golden_supervision(p: Sequence[Tensor], w: Tensor, label_space: LabelSpace) -> Tensor:
    """q(y|x) = Σ_i w_i(x)·(P_i p_i)(y|x): shared labels add up.

    Args:
        p: For each teacher its deterministic distribution p_i [n, C_i].
        w: [n, N], rows sum to one.
        label_space: Knows P_i.

    Returns:
        q [n, |L|] in the type of w; rows sum to one.
    """
    q = w.new_zeros((w.shape[0], len(label_space)))
    for i, p_i in enumerate(p):
        q += w[:, i, None] * label_space.scatter(i, p_i)
    return q
