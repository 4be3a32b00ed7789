"""The options that every stage has. A stage's own `Options` extend them."""

from dataclasses import dataclass, replace
from pathlib import Path

from models.training.learner import Recipe
from utils.lr_schedule import warmup_cosine
from utils.options import option

MOST_PIXELS, MOST_EXAMPLES = 8192, 4096  # a side, and at once; of stages with defaults of their own too


@dataclass(frozen=True)
class StageOptions:
    width: int = option(
        512, "of the pictures it works on, in pixels; results are always written at 512x384", least=1, most=MOST_PIXELS, fixed=True
    )
    height: int = option(384, "of the same", least=1, most=MOST_PIXELS, fixed=True)
    steps: int = option(100_000, "updates", least=1)
    batch_size: int = option(8, "examples a micro-batch, of all processes together", least=1, most=MOST_EXAMPLES)
    accumulate: int = option(1, "micro-batches a step", least=1, most=MOST_EXAMPLES)
    lr: float = option(1e-4, "highest learning rate, reached after the warm-up", least=1e-12)
    warmup: int = option(1000, "steps in which the learning rate rises; then it falls as a cosine", least=1)
    weight_decay: float = option(0.01, "of AdamW", least=0)
    max_norm: float = option(1.0, "gradients are clipped to this norm", least=1e-12)
    ema: float = option(0.9999, "decay of the averaged weights", least=0, most=0.999999)
    validate_every: int = option(2000, "steps", least=1)
    preview_every: int = option(2000, "steps", least=1)
    save_every: int = option(1000, "steps", least=1)

    def faults(self, others: dict[str, "StageOptions"]) -> list[str]:
        """What does not go together, of these options and of those of the run's `others` by stage: a sentence for each."""
        return []

    def for_published_weights(self, weights: dict[str, Path], said: dict) -> "StageOptions":
        """With what the command line says, of a stage of whose networks these, by name, start from published weights (--init_<network>)."""
        return replace(self, **said)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def recipe(self) -> Recipe:
        return Recipe(warmup_cosine(self.lr, self.warmup, self.steps), weight_decay=self.weight_decay, max_norm=self.max_norm, ema=self.ema)
