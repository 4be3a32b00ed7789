"""How far one set of pictures is from another by a network's features: FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018).

Features are arrays [N, D], in memory or mapped from a file; everything is computed in float64. The names FID and KID belong to features of
models/networks/inception.py; with those of another network the numbers have another meaning.
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
    """A sentence to show beside a Fréchet distance whose smaller set has `count` pictures; "" where these are more than the features."""
    if count > dimensions:
        return ""
    return (
        f"From {count} pictures, no more than there are features ({dimensions}), the distance is biased upwards: compare it only "
        f"with those from as many pictures. KID has no such bias."
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


def kernel_distance_of_all(features: np.ndarray, photos: np.ndarray) -> float:
    """KID of features [N, D] and photos' [M, D] by all pairs, both divided by the photos' standard deviation. Lower is better.

    The deviation is one number, of all the photos' features. Some networks' features are small, and beside the kernel's 1 they would hardly
    count; in these units they do. The estimate is unbiased, and may come out below 0. Raises UserError for fewer than 2 pictures.
    """
    _check_count(min(len(features), len(photos)))
    features, photos = _finite(features[:]), _finite(photos[:])
    deviation = photos.std()
    return squared_mmd(features / deviation, photos / deviation)


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3) of x [n, D] and y [m, D]; kernel (x·y / D + 1)³."""

    def kernel(products: np.ndarray) -> np.ndarray:
        k = products / x.shape[1] + 1
        return k * k * k

    def total(a: np.ndarray, b: np.ndarray) -> float:
        # a few rows at a time: the matrix of ten thousand pictures would take a gigabyte
        return sum(kernel(a[first : first + 256] @ b.T).sum() for first in range(0, len(a), 256))

    def mean_of_pairs(a: np.ndarray) -> float:
        with_itself = kernel((a * a).sum(axis=1)).sum()
        return (total(a, a) - with_itself) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * total(x, y) / (len(x) * len(y)))


def _finite(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features are [N, D], not {list(features.shape)}")
    if not np.isfinite(features).all():
        raise UserError("the features of some picture are not finite numbers: the network's weights are damaged, get them anew")
    return features


def _check_count(count: int) -> None:
    if count < 2:
        raise UserError(f"FID and KID compare sets of at least 2 pictures, and one of the sets has {count}: give it more")
