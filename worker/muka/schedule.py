"""The learning rate, as a function of the step alone; so there is no scheduler state to save."""

import math


def learning_rate_factor(step: int, total_steps: int, warmup_ratio: float) -> float:
    """Linear warm-up, then linear decay.

    Args:
        step: 0 for the first.
        total_steps: Of the whole training.
        warmup_ratio: Share of the steps in which the rate rises.

    Returns:
        A factor in (0, 1]: it is 1 at the end of the warm-up and never 0, so no step is for nothing.
    """
    warmup = math.ceil(total_steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    return (total_steps - step) / (total_steps - warmup)
