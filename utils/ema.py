"""Exponential moving average of weights."""

from contextlib import contextmanager

import jittor as jt
import numpy as np

from utils.checkpoint import as_array, check_fit


class EMA:
    """Keeps average <- d * average + (1 - d) * weight for each of a network's weights and buffers.

    The decay warms up, d = min(decay, (1 + step) / (10 + step)) (as in TensorFlow's ExponentialMovingAverage), so that
    the average soon forgets the random initialisation and is of use from the first validation on. The averages are Vars
    of their own, outside every graph.
    """

    def __init__(self, weights: dict[str, jt.Var], decay: float = 0.9999):
        self.decay = decay
        self.weights = weights
        # By way of NumPy: an assigned or cloned Var would share its memory with the network's.
        self.averages = {name: jt.array(as_array(weight)).stop_grad() for name, weight in self.weights.items()}

    def update(self, step: int) -> None:
        """Takes the present weights into the average. `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.averages.items():
            average.update(average * decay + self.weights[name] * (1.0 - decay))
            average.stop_grad()
        jt.sync(list(self.averages.values()))

    def load(self, arrays: dict[str, np.ndarray], source: str = "the checkpoint") -> None:
        """Takes the averages from `arrays`. Raises UserError naming each that does not fit; `source` is their file."""
        shapes = {name: average.shape for name, average in self.averages.items()}
        check_fit(shapes, arrays, source, "the averaged weights")
        for name, average in self.averages.items():
            average.update(jt.array(arrays[name]))
            average.stop_grad()
        jt.sync(list(self.averages.values()))

    @contextmanager
    def applied(self):
        """Inside, the network holds the averaged weights; afterwards its own again, whatever happened to it inside."""
        held = {}
        for name, weight in self.weights.items():
            held[name] = self.averages[name].detach()
            if weight.is_stop_grad():
                held[name].stop_grad()
            weight.swap(held[name])
        try:
            yield
        finally:
            for name, weight in self.weights.items():
                weight.swap(held[name])
