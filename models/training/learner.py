"""Networks that are trained together by one optimizer, with their averaged weights: what a stage learns with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jittor as jt
import numpy as np

from models.networks.layers import compute_dtype, own_weights
from models.networks.pretrained import initialise
from models.networks.recompute import recomputing
from utils import parallel
from utils.checkpoint import as_array, load_vars
from utils.ema import EMA
from utils.errors import TrainingError
from utils.optimizer import AdamW

FAILURES = 100  # steps in a row without a finite gradient, after which training gives up


@dataclass(frozen=True)
class Recipe:
    """How a set of networks is trained."""

    lr: Callable[[int], float]  # of the step, counted from 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    max_norm: float = 1.0  # gradients are clipped to this norm
    ema: float | None = 0.9999  # decay of the averaged weights; None: no averages
    factors: Mapping[str, float] = field(default_factory=dict)  # of the learning rate, by how the names of parameters begin


class Learner:
    """Networks, their averages and one AdamW. What is frozen in them (models.networks.layers.freeze) is neither trained nor stored.

    Inside `autocast("float16")` the loss is scaled; inside `recomputation` its graph is run before its gradient is asked for.
    """

    def __init__(self, networks: dict[str, jt.Module], recipe: Recipe):
        self.networks, self.recipe = networks, recipe
        self.weights = {name: unfrozen(network) for name, network in networks.items()}
        self.averages = {name: EMA(weights, recipe.ema) for name, weights in self.weights.items()} if recipe.ema is not None else {}
        parameters = [(f"{name}.{key}", var) for name, network in networks.items() for key, var in network.named_parameters()]
        self.optimizer = AdamW(parameters, betas=recipe.betas, weight_decay=recipe.weight_decay, factors=recipe.factors)
        if compute_dtype() == "float16":
            self.optimizer.scale_loss()
        self.failures = 0  # steps in a row, up to now, whose gradient was not finite

    def step(self, losses: Callable[[dict], dict[str, jt.Var]], batches: list[dict], step: int) -> dict[str, float]:
        """One update by the mean over `batches` of losses(batch)["loss"], and over all processes; returns what to log.

        `losses` gives scalars by name; the means of all of them are logged. A step whose gradient is not finite changes no weight. Raises
        TrainingError after FAILURES of those in a row.
        """
        scalars = []

        def micro_batches() -> Iterator[jt.Var]:
            for batch in batches:
                scalars.append(losses(batch))
                if recomputing():
                    scalars[-1]["loss"].sync()  # run together, the forward and the backward pass would hold more at once
                yield scalars[-1]["loss"]

        lr = self.recipe.lr(step)
        norm = self.optimizer.step(micro_batches(), lr, self.recipe.max_norm)
        self.failures = 0 if np.isfinite(norm) else self.failures + 1
        if self.failures >= FAILURES:
            raise TrainingError(
                f"The gradient has not been finite in the {FAILURES} steps up to {step + 1}: training has diverged. Nothing was saved "
                "since it began to. Go on from the last checkpoint with a lower learning rate (--lr), or with --amp float32 or bfloat16."
            )
        if np.isfinite(norm):
            for average in self.averages.values():
                average.update(step)
        means = {name: float(np.mean([float(part[name].item()) for part in scalars])) for name in scalars[0]}
        scale = {"loss_scale": self.optimizer.loss_scale} if self.optimizer.scales_loss else {}
        return parallel.mean_scalars(means) | {"lr": lr, "grad_norm": norm, "skipped": self.optimizer.skipped} | scale

    def initialise(self, name: str, path: Path) -> None:
        """Starts one of the networks, and its average, from published weights (models.networks.pretrained.initialise)."""
        initialise(self.networks[name], path)
        self.restart_average(name)

    def restart_average(self, name: str) -> None:
        """Begins the average of a network anew from its present weights."""
        if name in self.averages:
            self.averages[name].load({key: as_array(var) for key, var in self.weights[name].items()}, name)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the networks hold their averaged weights, where they have some, and no gradients are kept."""
        with ExitStack() as stack, jt.no_grad():
            for average in self.averages.values():
                stack.enter_context(average.applied())
            yield

    def to_export(self, name: str) -> dict[str, jt.Var]:
        """All weights of a network as they are to be used, but for lent ones: averages where there are some. The Vars themselves, not
        copies."""
        return own_weights(self.networks[name]) | (self.averages[name].averages if name in self.averages else {})

    def state(self) -> dict[str, jt.Var | np.ndarray]:
        """Weights, averages and optimizer. The Vars themselves, not copies."""
        state = {f"optimizer.{key}": value for key, value in self.optimizer.state().items()}
        for name, weights in self.weights.items():
            state |= {f"model.{name}.{key}": value for key, value in weights.items()}
        for name, average in self.averages.items():
            state |= {f"ema.{name}.{key}": value for key, value in average.averages.items()}
        return state

    def load(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Takes back what `state` gave, as arrays. Raises UserError naming every array that does not fit; `source` is their file."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

        for name, weights in self.weights.items():
            load_vars(weights, part(f"model.{name}."), source, name)
        for name, average in self.averages.items():
            average.load(part(f"ema.{name}."), source)
        self.optimizer.load(part("optimizer."), source)


def verdict(discriminator: Learner, losses: Callable[[dict], dict[str, jt.Var]], judged: list[dict], step: int) -> dict[str, float]:
    """A discriminator's step on what has just been made; returns what to log of it."""
    scalars = discriminator.step(losses, judged, step)
    return {f"discriminator_{name}": scalars[name] for name in ("loss", "grad_norm", "skipped")}


def start_from(stage, published: Mapping[str, Path]) -> None:
    """Starts networks of a stage, by name, from published weights (`Learner.initialise`)."""
    for network, path in published.items():
        next(learner for learner in stage.learners.values() if network in learner.networks).initialise(network, path)


def unfrozen(network: jt.Module) -> dict[str, jt.Var]:
    """The weights and buffers of a network by name, but for those of frozen modules."""
    frozen = {name for name, module in network.named_modules() if getattr(module, "_frozen", False)}
    return {name: var for name, var in network.state_dict().items() if name.rpartition(".")[0] not in frozen}
