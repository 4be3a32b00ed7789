import jittor as jt
import numpy as np

from models.networks.discriminators import MultiscaleDiscriminator, ProjectedDiscriminator, SpectralConv2d
from models.networks.recompute import recomputation, recomputed
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


def test_a_look_at_a_network_does_not_change_it_and_a_recomputed_one_is_the_same():
    jt.set_global_seed(3)
    conv, x = SpectralConv2d(6, 5, 3, padding=1), jt.randn(2, 6, 8, 8)
    before = conv.u.numpy()
    with jt.no_grad():
        seen = conv(x).numpy()
    assert np.array_equal(conv.u.numpy(), before)
    with recomputation(True):
        y = recomputed(conv, x)
        y.sync()
        assert np.array_equal(conv.u.numpy(), before)
        again = jt.grad((y * y).sum(), [conv.weight], retain_graph=False)[0].numpy()
    once = conv.u.numpy()
    assert np.array_equal(y.numpy(), seen) and not np.array_equal(once, before)
    conv.u.update(jt.array(before)).stop_grad()
    plain = conv(x)
    gradient = jt.grad((plain * plain).sum(), [conv.weight])[0].numpy()
    np.testing.assert_allclose(again, gradient, rtol=1e-4, atol=1e-5 * np.abs(gradient).max())
    np.testing.assert_allclose(conv.u.numpy(), once, atol=1e-6)


def test_the_published_discriminator_has_two_scales_of_five_maps():
    discriminator = MultiscaleDiscriminator(32)
    weights = sum(p.numel() for p in discriminator.parameters() if not p.is_stop_grad())
    inner = sum(a * b * 16 for a, b in ((64, 128), (128, 256), (256, 512)))
    assert weights == 2 * (32 * 64 * 16 + 64 + inner + 512 * 16 + 1)
    maps = discriminator(jt.zeros((1, 32, 64, 96)))  # shapes are known without computing anything
    sizes = [(64, 33, 49), (128, 17, 25), (256, 9, 13), (512, 10, 14), (1, 11, 15)]
    assert [tuple(m.shape)[1:] for m in maps[0]] == sizes
    assert tuple(maps[1][0].shape)[1:] == (64, 17, 25)
