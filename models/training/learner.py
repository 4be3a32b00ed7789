"""Networks that are trained together by one optimizer, with their averaged weights: what a stage is made of."""

from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jittor as jt
import numpy as np

from models.networks.pretrained import initialise
from models.presets import Config
from utils.checkpoint import load_strict, module_arrays
from utils.ema import EMA
from utils.lr_schedule import warmup_cosine
from utils.optimizer import AdamW


class Learner:
    def __init__(self, networks: dict[str, jt.Module], config: Config, lr: float, steps: int):
        self.networks = networks
        self.config, self.lr, self.steps = config, lr, steps
        self.averages = {name: EMA(network, config.ema) for name, network in networks.items()}
        parameters = [(f"{name}.{key}", var) for name, network in networks.items() for key, var in network.named_parameters()]
        self.optimizer = AdamW(parameters, weight_decay=config.weight_decay)

    def update(self, losses: Iterable[jt.Var], step: int) -> dict[str, float]:
        """One step of the optimizer and of the averages by the mean of `losses` (one a micro-batch); returns what to log."""
        lr = warmup_cosine(step, self.lr, self.config.warmup, self.steps)
        norm = self.optimizer.step(losses, lr, self.config.max_norm)
        for average in self.averages.values():
            average.update(step)
        scale = {"loss_scale": self.optimizer.loss_scale} if self.optimizer.scales_loss else {}
        return {"lr": lr, "grad_norm": norm, "skipped": self.optimizer.skipped} | scale

    def initialise(self, name: str, path: Path) -> None:
        """Starts one of the networks, and its average, from published weights (models.networks.pretrained.initialise)."""
        initialise(self.networks[name], path)
        self.averages[name].load(module_arrays(self.networks[name]), str(path))

    @contextmanager
    def averaged(self):
        """Inside, the networks hold their averaged weights, and no gradients are kept."""
        with ExitStack() as stack, jt.no_grad():
            for average in self.averages.values():
                stack.enter_context(average.applied())
            yield

    def state(self) -> dict[str, jt.Var | np.ndarray]:
        """Weights, averages and optimizer: what is there, not copies."""
        state = {f"optimizer.{key}": value for key, value in self.optimizer.state().items()}
        for name, network in self.networks.items():
            state |= {f"model.{name}.{key}": value for key, value in network.state_dict().items()}
            state |= {f"ema.{name}.{key}": value for key, value in self.averages[name].averages.items()}
        return state

    def load(self, arrays: dict[str, np.ndarray], source: str) -> None:
        """Takes back what `state` gave, as arrays. Raises UserError naming every array that does not fit."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}

        for name, network in self.networks.items():
            load_strict(network, part(f"model.{name}."), source)
            self.averages[name].load(part(f"ema.{name}."), source)
        self.optimizer.load(part("optimizer."), source)
