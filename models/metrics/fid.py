"""How far one set of pictures is from another by their Inception features: FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018).

Features are arrays [N, D], of models/networks/inception.py as a rule, in memory or mapped from a file; everything is computed in float64.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from utils.errors import UserError


class Moments(NamedTuple):
    """What FID keeps of a set."""

    mean: np.ndarray  # [D]
    covariance: np.ndarray  # [D, D], divided by N − 1
    count: int  # N


def moments(blocks: Iterable[np.ndarray]) -> Moments:
    """Moments of the features that come in blocks [n, D], gone through once; a few hundred rows a block cost least.

    Holds a block and two matrices [D, D], however many there are. Raises UserError for fewer than 2 pictures in all.
    """
    count, mean, scatter = 0, 0.0, 0.0
    for block in blocks:
        block = _finite(block)
        if not len(block):
            continue
        n, block_mean = len(block), block.mean(axis=0)
        # Chan, Golub & LeVeque 1983: the step from one mean to the other scatters like one more row
        step = (block_mean - mean) * np.sqrt(count * n / (count + n))
        rows = np.vstack([block - block_mean, step])
        scatter = scatter + rows.T @ rows
        mean = mean + (block_mean - mean) * (n / (count + n))
        count += n
    _check_count(count)
    return Moments(mean, scatter / (count - 1), count)


def frechet_distance(mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 √(Σ₁Σ₂)), the squared Fréchet distance of two Gaussians: FID (equation 6). 0 or more; lower is better.

    With Σ₁ = S₁S₁ᵀ and Σ₂ = S₂S₂ᵀ the trace of √(Σ₁Σ₂) is the sum of the singular values of S₁ᵀS₂. The root itself, a matrix that may
    not exist or come out complex where there are no more pictures than features, is never computed.
    """
    trace_of_root = np.linalg.norm(_square_root(covariance1).T @ _square_root(covariance2), "nuc")
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(covariance1) + np.trace(covariance2) - 2 * trace_of_root
    return max(float(distance), 0.0)  # sets that are the same differ by rounding, in either direction


def _square_root(covariance: np.ndarray) -> np.ndarray:
    """S [D, rank] with SSᵀ the covariance [D, D]."""
    eigenvalues, vectors = np.linalg.eigh(covariance)  # in ascending order
    # What rounding makes of eigenvalues 0 must go: there are a thousand of them, and the root of 1e-16 is 1e-8.
    known = eigenvalues >= eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    return vectors[:, known] * np.sqrt(eigenvalues[known])


def bias_note(count: int, dimensions: int) -> str:
    """A sentence to show beside an FID of which the smaller set has `count` pictures; "" where these are more than the features."""
    if count > dimensions:
        return ""
    return (
        f"FID from {count} pictures, no more than there are features ({dimensions}), is biased upwards: compare it only with FIDs from "
        f"as many pictures. KID has no such bias."
    )


def kernel_distance(
    features1: np.ndarray, features2: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID of features [N, D] and [M, D]: mean and standard deviation of the squared MMD over random subsets of both. Lower is better.

    Each subset has `subset_size` pictures, or as many as the smaller set. The estimate is unbiased, so that it may come out below 0 where
    the sets hardly differ. Of arrays mapped from files only the rows of a subset are read. Raises UserError for fewer than 2 pictures.
    """
    size = min(subset_size, len(features1), len(features2))
    _check_count(size)
    random = np.random.default_rng(seed)

    def subset(features: np.ndarray) -> np.ndarray:
        # in order, so that a file is read from front to back
        return _finite(features[np.sort(random.choice(len(features), size, replace=False))])

    distances = [squared_mmd(subset(features1), subset(features2)) for _ in range(subsets)]
    return float(np.mean(distances)), float(np.std(distances))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3) of x [n, D] and y [m, D]; kernel (x·y / D + 1)³."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        k = a @ b.T / a.shape[1] + 1
        return k * k * k

    def mean_of_pairs(a: np.ndarray) -> float:
        k, n = kernel(a, a), len(a)
        return (k.sum() - np.trace(k)) / (n * (n - 1))  # without each with itself

    return mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean()


def _finite(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features are [N, D], not {list(features.shape)}")
    if not np.isfinite(features).all():
        raise UserError("the features of some picture are not finite numbers: the weights of Inception are damaged, download them again")
    return features


def _check_count(count: int) -> None:
    if count < 2:
        raise UserError(f"FID and KID compare sets of at least 2 pictures, and one of the sets has {count}: give it more")
