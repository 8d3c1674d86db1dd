"""How the training went."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from worker.plots.canvas import BLUE, INK, ORANGE, blank

_MEMORY = 0.8
"""Of the running mean: what each point leaves of the mean before it."""


def draw(curve: Sequence[Mapping[str, Any]], training: Mapping[str, Any]) -> Figure:
    """Loss over steps.

    Args:
        curve: points with `step` and `loss`.
        training: `steps` and `epoch_losses` of the whole training.
    """
    figure, axes = blank(8, 4)
    steps = [point["step"] for point in curve]
    losses = [point["loss"] for point in curve]
    axes.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=1, label="step")
    axes.plot(steps, running_mean(losses), color=BLUE, linewidth=2, label="running mean")
    means = training["epoch_losses"]
    ends = [training["steps"] * (epoch + 1) / len(means) for epoch in range(len(means))]
    axes.plot(ends, means, "o", color=ORANGE, markeredgecolor=INK, markersize=6, label="mean of epoch")
    axes.set(title="Training loss", xlabel="step", ylabel="loss", ylim=(0, None))
    axes.set_xlim(0, training["steps"] * 1.01)
    axes.legend(loc="upper right")
    return figure


def running_mean(values: Sequence[float]) -> list[float]:
    """Exponential, without a bias to where it starts: [n] to [n]."""
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total = _MEMORY * total + (1 - _MEMORY) * value
        weight = _MEMORY * weight + (1 - _MEMORY)
        means.append(total / weight)
    return means
