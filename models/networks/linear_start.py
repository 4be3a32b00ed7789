"""The linear start: what the conditions and the noisy latents say linearly of the clean ones, so that the UNet has only the rest to learn.

Latents are modelled as x_0 = M + r. M follows from the conditions:

    M = mean of the reference's latents + Σ_class share(class, cell) · (m_class + y(cell) · n_class)

with y from −1 at the top to 1 at the bottom; where the reference is not told, what words lead one to expect stands for its mean, or without
words the mean of the training set, and a mask that is not told has shares of 0. The rest r is Gaussian noise, independent in the
coefficients of the orthonormal discrete cosine transform (DCT), of power S(channel, frequency). Then, with x_t = α x_0 + σ ε, exactly

    E[x_0 | x_t] = M + DCT⁻¹( α S / (α² S + σ²) · DCT(x_t − α M) )
    E[ε | x_t]   =     DCT⁻¹(   σ / (α² S + σ²) · DCT(x_t − α M) )

It is the preconditioning of Karras et al. 2022 (table 1), frequency by frequency and with the conditions. M = 0 and S = 1 say nothing: the
expected velocity is 0, which is how it starts.

A UNet that has time to learn all of it does better without. Then only painting uses the model: it starts from M, noised to a share of the
process, instead of pure noise (`noisy_start`).
"""

from collections.abc import Callable, Iterator

import jittor as jt
import numpy as np
from jittor import nn

RIDGE = 1.0  # cells: a class that is seen in fewer moves the mean little
CASES = 4  # mask told or not, reference told or not: each leaves a rest of its own


def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II, float32 [n, n]: coefficients = matrix @ values."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    matrix = np.cos(np.pi * (2 * i + 1) * k / (2 * n)) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def dct(x: jt.Var, inverse: bool = False) -> jt.Var:
    """The DCT of each channel of [B, C, h, w], or its inverse."""
    b, c, h, w = x.shape
    rows, columns = (jt.array(np.ascontiguousarray(m.T) if inverse else m) for m in (dct_matrix(h), dct_matrix(w)))
    x = nn.matmul_transpose(x.reshape(b * c * h, w), columns)  # along the width
    x = nn.conv2d(x.reshape(b * c, h, w, 1), rows.reshape(h, h, 1, 1))  # along the height, without a transpose
    return x.reshape(b, c, h, w)


def heights(h: int) -> np.ndarray:
    """y of each row of cells, −1 at the top to 1 at the bottom, float32 [h, 1]."""
    return np.linspace(-1, 1, h, dtype=np.float32)[:, None]


class LinearStart(nn.Module):
    """Statistics of a training set's latents, and what they expect of noisy ones."""

    def __init__(self, channels: int, num_classes: int, size: tuple[int, int]):
        super().__init__()
        self.mean = jt.zeros(channels).stop_grad()  # of the set's latents
        self.classes = jt.zeros(2 * channels, num_classes).stop_grad()  # m and n
        self.power = jt.ones(CASES, channels, *size).stop_grad()  # S by case, of latents of size (h, w)

    def prior(self, shares: jt.Var, reference_mean: jt.Var, known: jt.Var, without: jt.Var | None = None) -> tuple[jt.Var, jt.Var]:
        """M and S, [B, C, h, w] each, of class shares [B, 29, h, w], the mean of the reference's latents [B, C] and `known` [B]; `without`
        [B, C] stands for that mean where the reference is not told, by default the training set's."""
        h, w = shares.shape[2:]
        classes = nn.conv2d(shares, self.classes.unsqueeze(-1).unsqueeze(-1))  # [B, 2C, h, w]
        m, n = classes.chunk(2, dim=1)
        column = known.reshape(-1, 1)
        base = reference_mean * column + (self.mean.unsqueeze(0) if without is None else without) * (1 - column)
        mean = base.unsqueeze(-1).unsqueeze(-1) + m + n * jt.array(heights(h))
        mask_told = (shares.reshape(shares.shape[0], -1).sum(dim=1) > 0).float32()  # [B]
        cases = [(1 - mask_told) * (1 - known), (1 - mask_told) * known, mask_told * (1 - known), mask_told * known]
        selected = jt.stack(cases, dim=1)  # [B, 4], a one in each row
        power = nn.matmul(selected, self.resized_power(h, w).reshape(CASES, -1))
        return mean, power.reshape(mean.shape)

    def resized_power(self, h: int, w: int) -> jt.Var:
        """S at another size: a frequency is a share of the highest one there is, whatever the number of cells."""
        if tuple(self.power.shape[2:]) == (h, w):
            return self.power
        power = self.power.numpy()
        for axis, n in ((2, h), (3, w)):
            old = (np.arange(power.shape[axis]) + 0.5) / power.shape[axis]
            power = np.apply_along_axis(lambda s, old=old, n=n: np.interp((np.arange(n) + 0.5) / n, old, s), axis, power)
        return jt.array(power.astype(np.float32))

    def is_measured(self) -> bool:
        return bool((self.power.numpy() != 1).any())

    def measure(self, latents: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]) -> None:
        """Takes the statistics of a training set.

        `latents()` begins a pass over it: the latents of each picture, float [C, h, w], and its class shares, float [29, h, w].
        """
        mean, classes = fit_means(latents)
        power = fit_power(latents, mean, classes)
        for var, value in ((self.mean, mean), (self.classes, np.concatenate([*classes])), (self.power, power)):
            var.update(jt.array(value.astype(np.float32))).stop_grad()


def fit_means(latents: Callable) -> tuple[np.ndarray, np.ndarray]:
    """The set's mean [C], and by ridge regression m and n as [2, C, 29], of what a picture's latents differ from their own mean by."""
    mean, count, gram, product = 0.0, 0, 0.0, 0.0
    for picture, shares in latents():
        picture, shares = picture.astype(np.float64), shares.astype(np.float64)
        own = picture.mean(axis=(1, 2), keepdims=True)
        mean, count = mean + own[:, 0, 0], count + 1
        inputs = np.concatenate([shares, shares * heights(shares.shape[1])]).reshape(2 * len(shares), -1)  # [58, hw]
        gram = gram + inputs @ inputs.T
        product = product + inputs @ (picture - own).reshape(len(picture), -1).T  # [58, C]
    solved = np.linalg.solve(gram + RIDGE * np.eye(len(gram)), product)
    return mean / count, solved.reshape(2, -1, solved.shape[1]).transpose(0, 2, 1)


def fit_power(latents: Callable, mean: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The power of the rest in each coefficient, by case, [4, C, h, w]."""
    power, count = 0.0, 0
    for picture, shares in latents():
        rows, columns = dct_matrix(picture.shape[1]), dct_matrix(picture.shape[2])
        told = np.tensordot(classes[0], shares, 1) + np.tensordot(classes[1], shares, 1) * heights(shares.shape[1])
        own = picture.mean(axis=(1, 2), keepdims=True)
        rests = np.stack([picture - base - part for part in (0, told) for base in (mean[:, None, None], own)])
        power, count = power + (rows @ rests @ columns.T) ** 2, count + 1
    # Neighbouring frequencies are alike, and a set has few pictures.
    return np.maximum(smoothed(power / count), 1e-6)


def smoothed(power: np.ndarray) -> np.ndarray:
    """Powers [..., h, w], each the geometric mean of its 3x3 neighbours, but for the lowest frequency in either direction."""
    logs = np.log(np.maximum(power, 1e-12))
    padded = np.pad(logs[..., 1:, 1:], [(0, 0)] * (logs.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    h, w = logs.shape[-2] - 1, logs.shape[-1] - 1
    logs[..., 1:, 1:] = sum(padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3)) / 9
    return np.exp(logs)


def noisy_start(noise: jt.Var, alpha: float, sigma: float, mean: jt.Var, power: jt.Var) -> jt.Var:
    """Noisy latents x_t [B, C, h, w] for painting to start from instead of pure noise, of normal `noise` [B, C, h, w] and a
    `LinearStart.prior`. The rest is drawn white, with the mean of its power over frequencies: no worse than with the power of each, and
    simpler. Starting from what is known of each class and place is the idea of "SCP-Diff" (Gao et al. 2024)."""
    variance = power.mean(dims=(2, 3), keepdims=True) * float(alpha**2) + float(sigma**2)
    return mean * float(alpha) + noise * variance.sqrt()


def expected(x: jt.Var, alpha: float | np.ndarray, sigma: float | np.ndarray, mean: jt.Var, power: jt.Var) -> tuple[jt.Var, jt.Var]:
    """E[x_0 | x_t] and E[ε | x_t], [B, C, h, w], of noisy latents x under a `LinearStart.prior`. alpha, sigma: numbers or [B, 1, 1, 1]."""
    alpha, sigma = (jt.array(np.float32(value)) for value in (alpha, sigma))
    rest = dct(x - mean * alpha) / (power * alpha * alpha + sigma * sigma)
    return mean + dct(rest * power * alpha, inverse=True), dct(rest * sigma, inverse=True)
