import jittor as jt
import numpy as np

from models.networks.discriminators import ProjectedDiscriminator, SpectralConv2d
from models.training.learner import Learner, Recipe


def test_the_largest_singular_value_becomes_one():
    jt.set_global_seed(3)
    conv = SpectralConv2d(6, 5, 3, padding=1)
    conv.bias.update(jt.zeros(5)), conv.weight.update(conv.weight * 9)
    x = jt.array(np.eye(6 * 9).reshape(54, 6, 3, 3).astype(np.float32))
    for _ in range(60):
        y = conv(x)
    matrix = y.numpy()[:, :, 1, 1].T  # what the convolution makes of every basis vector at the centre
    assert abs(np.linalg.svd(matrix, compute_uv=False)[0] - 1) < 1e-3


def test_the_estimate_is_kept_with_the_weights_and_gets_no_gradient():
    jt.set_global_seed(3)
    discriminator = ProjectedDiscriminator((4, 6))
    learner = Learner({"discriminator": discriminator}, Recipe(lambda step: 0.01, ema=None))
    before = {name: var.numpy() for name, var in discriminator.state_dict().items()}
    maps = [np.random.default_rng(i).standard_normal((2, c, 5, 5)).astype(np.float32) for i, c in enumerate((4, 6))]

    def losses(batch):
        scores = discriminator([jt.array(array) for array in batch])
        assert [tuple(score.shape) for score in scores] == [(2, 1, 5, 5)] * 2
        return {"loss": sum(score.mean() for score in scores)}

    assert learner.step(losses, [maps], 0)["grad_norm"] > 0
    changed = {name for name, var in discriminator.state_dict().items() if not np.array_equal(before[name], var.numpy())}
    assert {name.rpartition(".")[2] for name in changed} == {"u", "weight", "bias"}
    assert not any(name.endswith(".u") for name in learner.optimizer.parameters)
    assert sum(name.endswith(".u") for name in learner.state()) == 6
