"""A generative adversarial network of points, as a stage: what the training loop needs to know of one, which is nothing.

python tests/models/training/toy_gan.py FOLDER [STEP]        trains it in FOLDER, and is killed in the middle of STEP
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Linear
from models.training.learner import Learner, Recipe
from models.training.loop import train
from models.training.options import StageOptions
from models.training.run import Run
from utils.stop import Stop


@dataclass(frozen=True)
class Shape:
    width: int = 8
    inputs: int = 2
    outputs: int = 2


class Network(nn.Module):
    """Points [B, inputs] → [B, outputs]."""

    def __init__(self, config: Shape):
        super().__init__()
        self._config, self.fc1, self.fc2 = config, Linear(config.inputs, config.width), Linear(config.width, config.outputs)

    config = property(lambda self: self._config)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.fc2(jt.maximum(self.fc1(x), 0))


class Ring:
    """Points on a circle, with the noise that the generator starts from."""

    def __len__(self) -> int:
        return 20

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        angle = 2 * np.pi * index / len(self)
        return {"real": np.array([np.cos(angle), np.sin(angle)], np.float32), "noise": rng.standard_normal(2).astype(np.float32)}


class ToyGAN:
    name, builds_on, networks, columns = "toy", (), ("generator",), ("points",)
    Options = StageOptions

    def __init__(self, options: StageOptions, folder: Path):
        self.options = options
        self.generator, self.discriminator = Network(Shape()), Network(Shape(outputs=1))
        rates = {"generator": 1e-3, "discriminator": 4e-3}  # two time scales (Heusel et al. 2017)
        recipes = {
            name: Recipe(lambda step, rate=rate: rate, betas=(0.0, 0.9), weight_decay=0, ema=0.9 if name == "generator" else None)
            for name, rate in rates.items()
        }
        self.learners = {name: Learner({name: getattr(self, name)}, recipe) for name, recipe in recipes.items()}

    def datasets(self, train: list, validation: list) -> tuple[Ring, Ring]:
        return Ring(), Ring()

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        judged = self.learners["discriminator"].step(self.discriminator_loss, batches, step)
        made = self.learners["generator"].step(self.generator_loss, batches, step)
        return {f"discriminator_{name}": value for name, value in judged.items()} | made

    def discriminator_loss(self, batch: dict) -> dict[str, jt.Var]:
        real, fake = self.discriminator(jt.array(batch["real"])), self.discriminator(self.generator(jt.array(batch["noise"])).detach())
        return {"loss": jt.maximum(1 - real, 0).mean() + jt.maximum(1 + fake, 0).mean()}

    def generator_loss(self, batch: dict) -> dict[str, jt.Var]:
        return {"loss": -self.discriminator(self.generator(jt.array(batch["noise"]))).mean()}

    def validate(self, batch: dict) -> dict[str, float]:
        points = self.generator(jt.array(batch["noise"])).numpy()
        return {"val_radius": float(np.hypot(*points.T).mean())}

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return abs(metrics["val_radius"] - 1)

    def preview(self, pairs: list) -> list[list[np.ndarray]]:
        return [[np.zeros((8, 8, 3), np.uint8)]]


OPTIONS = StageOptions(steps=12, batch_size=4, validate_every=4, preview_every=12, save_every=4)


def trained(folder: Path, options: StageOptions = OPTIONS, change=lambda stage: None, stop: Stop | None = None) -> bool:
    """Trains it in a folder, after `change` has been done to the stage; returns whether it is done."""
    jt.set_global_seed(0)
    stage, stop = ToyGAN(options, folder), stop or Stop()
    change(stage)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.catch)
    return train(stage, ([], []), Run(folder, "toys", "tiny", {"toy": options}), [], workers=2, stop=stop)


if __name__ == "__main__":

    def die_at(stage: ToyGAN) -> None:
        """Replaces its step by one that the process does not survive."""
        step = stage.train_step

        def last_step(batches: list[dict], number: int) -> dict[str, float]:
            if number == int(sys.argv[2]):
                stage.learners["discriminator"].step(stage.discriminator_loss, batches, number)
                os.kill(os.getpid(), signal.SIGKILL)
            return step(batches, number)

        stage.train_step = last_step

    trained(Path(sys.argv[1]), change=die_at if len(sys.argv) > 2 else lambda stage: None)
