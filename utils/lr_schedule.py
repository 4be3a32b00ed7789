"""The learning rate as a function of the step."""

import math


def warmup_cosine(step: int, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear warm-up to `peak`, then half a cosine down to `floor` (Loshchilov & Hutter 2017, "SGDR", eq. 5).

    `step` counts from 0, and step 0 is not wasted on a rate of zero: step `warmup` - 1 is the first at `peak`. From
    step `total` on the rate stays at `floor`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
