"""The learning rate as a function of the step."""

import math
from collections.abc import Callable


def warmup_cosine(peak: float, warmup: int, total: int, floor: float = 0.0) -> Callable[[int], float]:
    """Linear warm-up to `peak`, then half a cosine down to `floor` (Loshchilov & Hutter 2017, "SGDR", eq. 5).

    Steps count from 0, and step 0 is not wasted on a rate of zero: step `warmup` - 1 is the first at `peak`. From step `total` on the rate
    stays at `floor`.
    """

    def lr(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return lr


def warmup_halving(peak: float, warmup: int, every: int) -> Callable[[int], float]:
    """Linear warm-up to `peak` as above, which is halved after each `every` steps, counted from the first."""

    def lr(step: int) -> float:
        return peak * min(1.0, (step + 1) / max(1, warmup)) * 0.5 ** (step // every)

    return lr


def warmup_linear(peak: float, warmup: int, hold: int, total: int) -> Callable[[int], float]:
    """Linear warm-up to `peak`, which is held up to step `hold`; then a straight line down to 0 at step `total`, and 0 from there on."""

    def lr(step: int) -> float:
        fall = 1.0 - (step - hold) / max(1, total - hold)
        return peak * max(0.0, min(1.0, (step + 1) / warmup, fall))

    return lr
