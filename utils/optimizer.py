"""AdamW with gradient accumulation, clipping and loss scaling."""

import math
from collections.abc import Iterable, Mapping

import jittor as jt
import numpy as np

from utils import parallel
from utils.checkpoint import check_fit

FIRST_SCALE = 2.0**16  # of the loss, in float16
SCALE_RISES_AFTER = 2000  # steps without an overflow
OF_SCALE = ("loss_scale", "steps_at_scale")


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2).

    `named_parameters` are pairs of a name and a Var, as `module.named_parameters()` gives them; those whose gradient is
    stopped are left alone. Only weights of two and more dimensions decay, which leaves out biases and the scales of
    normalisation layers. Weights and moments are float32. `factors` of the learning rate are given by how names begin; others have 1.

    `updates` counts the steps taken, `skipped` those left out because the gradient was not finite.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, jt.Var]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        factors: Mapping[str, float] | None = None,
    ):
        self.parameters = {name: parameter for name, parameter in named_parameters if not parameter.is_stop_grad()}
        self.first = {name: jt.zeros(parameter.shape).stop_grad() for name, parameter in self.parameters.items()}
        self.second = {name: jt.zeros(parameter.shape).stop_grad() for name, parameter in self.parameters.items()}
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        matches = {name: [factor for start, factor in (factors or {}).items() if name.startswith(start)] for name in self.parameters}
        self.factors = {name: found[0] if found else 1.0 for name, found in matches.items()}
        self.updates = self.skipped = 0
        self.scales_loss, self.loss_scale, self.steps_at_scale = False, 1.0, 0

    def scale_loss(self) -> None:
        """From here on takes the gradient of the loss times `loss_scale`, and divides it by that, so that its small numbers do not vanish
        in float16. The scale is halved where the gradient overflows, and doubled where it long has not.

        Micikevicius et al. 2018, "Mixed precision training", section 3.2.
        """
        self.scales_loss, self.loss_scale = True, FIRST_SCALE

    def step(self, losses: Iterable[jt.Var], lr: float, max_norm: float = math.inf) -> float:
        """One update by the gradient of the mean of `losses`, over all processes too, whose global norm is returned.

        A gradient longer than `max_norm` is scaled down to it first. `losses` yields one scalar Var a micro-batch: a
        generator that builds each when it is asked for it keeps one graph in memory at a time. Where the norm is inf or
        nan, nothing changes but `skipped`.
        """
        parameters = list(self.parameters.values())
        gradients, count = None, 0
        for loss in losses:
            parts = jt.grad(loss * self.loss_scale if self.scales_loss else loss, parameters, retain_graph=False)
            if gradients is not None:
                parts = [total + part for total, part in zip(gradients, parts, strict=True)]
            gradients = [part.float32().stop_grad() for part in parts]
            jt.sync(gradients)  # runs the micro-batch now, so that its graph is free before the next is built
            del parts
            count += 1
        gradients = parallel.mean(gradients)
        count *= self.loss_scale
        norm = global_norm(gradients) / count
        self.adapt_scale(math.isfinite(norm))
        if not math.isfinite(norm):
            self.skipped += 1
            return norm
        self.updates += 1
        scale = min(1.0, max_norm / (norm + 1e-6)) / count
        beta1, beta2 = self.betas
        correction = 1.0 / math.sqrt(1.0 - beta2**self.updates)
        for (name, weight), gradient in zip(self.parameters.items(), gradients, strict=True):
            first, second = self.first[name], self.second[name]
            own = lr * self.factors[name]
            rate = own / (1.0 - beta1**self.updates)
            decay = 1.0 - own * self.weight_decay if weight.ndim >= 2 else 1.0
            gradient = gradient * scale
            first.update(first * beta1 + gradient * (1.0 - beta1)).stop_grad()
            second.update(second * beta2 + gradient * gradient * (1.0 - beta2)).stop_grad()
            weight.update(weight * decay - first / (second.sqrt() * correction + self.eps) * rate)
        # Lazy expressions would pile up from step to step.
        jt.sync([*parameters, *self.first.values(), *self.second.values()])
        return norm

    def adapt_scale(self, finite: bool) -> None:
        """Halves or doubles the scale of the loss after a step whose gradient was finite, or not."""
        if not self.scales_loss:
            return
        self.steps_at_scale = self.steps_at_scale + 1 if finite else 0
        if not finite:
            self.loss_scale = max(1.0, self.loss_scale / 2)
        elif self.steps_at_scale == SCALE_RISES_AFTER:
            self.loss_scale, self.steps_at_scale = self.loss_scale * 2, 0

    def state(self) -> dict[str, jt.Var | np.ndarray]:
        """The moments, "first.<name>" and "second.<name>", not copied; "updates" and "skipped"; where the loss is scaled, `OF_SCALE`."""
        state = {f"first.{name}": moment for name, moment in self.first.items()}
        state |= {f"second.{name}": moment for name, moment in self.second.items()}
        counters = ("updates", "skipped", *(OF_SCALE if self.scales_loss else ()))
        return state | {name: np.array([getattr(self, name)]) for name in counters}

    def load(self, arrays: dict[str, np.ndarray], source: str = "the checkpoint") -> None:
        """Takes back what `state()` gave, as arrays, of a scaled loss or not: a run may change its precision.

        Raises UserError naming each that does not fit; `source` is their file.
        """
        expected, found = ({name: value for name, value in state.items() if name not in OF_SCALE} for state in (self.state(), arrays))
        check_fit({name: value.shape for name, value in expected.items()}, found, source, "the optimizer")
        for name in self.parameters:
            self.first[name].update(jt.array(arrays[f"first.{name}"])).stop_grad()
            self.second[name].update(jt.array(arrays[f"second.{name}"])).stop_grad()
        jt.sync([*self.first.values(), *self.second.values()])
        for name in ("updates", "skipped", *(name for name in OF_SCALE if self.scales_loss and name in arrays)):
            setattr(self, name, arrays[name][0].item())


def global_norm(gradients: list[jt.Var]) -> float:
    """Euclidean norm of all gradients as one vector, in float64: a float32 sum of millions of squares loses digits."""
    squares = [gradient.reshape(-1).float64().sqr().sum() for gradient in gradients]
    return math.sqrt(sum(float(square[0]) for square in jt.fetch_sync(squares)))
