from pathlib import Path

import numpy as np
import pytest

from models.metrics.fid import bias_note, frechet_distance, kernel_distance, kernel_distance_of_all, moments, squared_mmd
from tests.golden.networks import normal
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "inception.npz")


def distance(a, b):
    (mean1, covariance1, _), (mean2, covariance2, _) = moments([a]), moments([b])
    return frechet_distance(mean1, covariance1, mean2, covariance2)


def test_moments_are_those_of_all_blocks_together():
    features = 1000 + normal("features", 57, 6)  # far from zero, where E[x²] − E[x]² would lose digits
    mean, covariance, count = moments(iter(np.split(features, [1, 20, 21, 50])))
    assert count == 57
    assert np.allclose(mean, features.mean(axis=0, dtype=np.float64), rtol=1e-12)
    assert np.allclose(covariance, np.cov(np.float64(features), rowvar=False), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["regular", "singular"])
def test_frechet_distance_agrees_with_pytorch_fid(case):
    a, b, expected = (GOLDEN[f"frechet/{case}/{key}"] for key in ("a", "b", "distance"))
    assert distance(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert distance(b, a) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distance_where_it_is_known():
    covariance = np.cov(normal("features", 57, 6), rowvar=False)
    mean, shift = np.zeros(6), np.array([3.0, 4.0, 0, 0, 0, 0])
    assert frechet_distance(mean, covariance, mean + shift, covariance) == pytest.approx(25, rel=1e-9)
    # where covariances commute, the sum of the squared differences of their roots
    assert frechet_distance(mean, 4 * covariance, mean, 9 * covariance) == pytest.approx(np.trace(covariance), rel=1e-9)
    assert frechet_distance(mean, np.diag([4.0, 1, 0, 0, 0, 0]), mean, np.diag([1.0, 9, 4, 0, 0, 0])) == pytest.approx(1 + 4 + 4)
    # small is not zero
    small = frechet_distance(np.zeros(2), np.diag([1, 1e-10]), np.zeros(2), np.diag([1, 4e-10]))
    assert small == pytest.approx(1e-10, rel=1e-4)


def test_frechet_distance_of_fewer_pictures_than_features_is_exact():
    a, b = np.float64(normal("a", 20, 200)), np.float64(normal("b", 90, 200) + 0.5)
    x, y = (features - features.mean(axis=0) for features in (a, b))
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    # from the features themselves: no eigenvalue that rounding made
    expected = shift + np.sum(x * x) / 19 + np.sum(y * y) / 89 - 2 * np.linalg.norm(x @ y.T, "nuc") / np.sqrt(19 * 89)
    assert distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 57])
def test_frechet_distance_of_a_set_to_itself_is_zero_and_never_less(n):
    for i in range(4):
        features = normal(f"set {i}", n, 24)
        assert 0 <= distance(features, features) < 1e-10


def test_bias_is_told_where_pictures_are_no_more_than_features():
    assert "1000 pictures" in bias_note(1000, 2048) and bias_note(2048, 2048)
    assert bias_note(2049, 2048) == ""


def test_squared_mmd_is_its_definition():
    x, y = np.float64(normal("x", 5, 3)), np.float64(normal("y", 7, 3))

    def mean(a, b, with_diagonal):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if with_diagonal or i != j]
        return sum((a[i].dot(b[j]) / 3 + 1) ** 3 for i, j in pairs) / len(pairs)

    assert squared_mmd(x, y) == pytest.approx(mean(x, x, False) + mean(y, y, False) - 2 * mean(x, y, True), rel=1e-12)


def test_squared_mmd_of_many_rows_is_that_of_one_matrix():
    x, y = np.float64(normal("x", 600, 3)), np.float64(normal("y", 257, 3))
    xx, yy, xy = ((a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - np.trace(xx)) / (600 * 599) + (yy.sum() - np.trace(yy)) / (257 * 256) - 2 * xy.mean()
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_all_is_in_units_of_the_photos():
    x, photos = 1 + np.float64(normal("x", 40, 3)), 2 * np.float64(normal("photos", 30, 3))
    units = photos.std()
    value = kernel_distance_of_all(x, photos)
    assert value == pytest.approx(squared_mmd(x / units, photos / units), rel=1e-9)
    assert kernel_distance_of_all(1000 * x, 1000 * photos) == pytest.approx(value, rel=1e-9)
    assert kernel_distance_of_all(photos, x) != pytest.approx(value, rel=0.1)


def test_kernel_distance_over_all_of_both_sets_is_the_mmd():
    x, y = normal("x", 8, 3), normal("y", 8, 3)
    mean, std = kernel_distance(x, y, subsets=5)
    assert mean == pytest.approx(squared_mmd(np.float64(x), np.float64(y)), rel=1e-9) and std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_over_subsets_is_unbiased_and_repeatable():
    x, y = normal("x", 60, 3), normal("y", 40, 3) + 0.5
    whole = squared_mmd(np.float64(x), np.float64(y))
    mean, std = kernel_distance(x, y, subsets=400, subset_size=10)
    assert std > 0 and abs(mean - whole) < 4 * std / np.sqrt(400)
    assert kernel_distance(x, y, subsets=400, subset_size=10) == (mean, std)
    assert kernel_distance(x, y, subsets=400, subset_size=10, seed=1) != (mean, std)


def test_kernel_distance_of_halves_of_one_set_is_about_zero_on_either_side():
    values = [kernel_distance(normal(f"{i} a", 30, 3), normal(f"{i} b", 30, 3), subsets=1)[0] for i in range(20)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(20)


def test_features_may_be_mapped_from_a_file(tmp_path):
    x, y = normal("x", 60, 3), normal("y", 40, 3)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert kernel_distance(mapped, y, subsets=3, subset_size=10) == kernel_distance(x, y, subsets=3, subset_size=10)
    assert np.array_equal(moments([mapped]).covariance, moments([x]).covariance)


@pytest.mark.parametrize("pictures", [0, 1])
def test_fewer_than_two_pictures_are_refused(pictures):
    one = normal("one", pictures, 3)
    with pytest.raises(UserError, match=f"at least 2 pictures.* has {pictures}"):
        moments([one])
    with pytest.raises(UserError, match="has 0"):
        moments([])
    with pytest.raises(UserError, match=f"at least 2 pictures.* has {pictures}"):
        kernel_distance(normal("many", 5, 3), one)
    with pytest.raises(UserError, match=f"at least 2 pictures.* has {pictures}"):
        kernel_distance_of_all(normal("many", 5, 3), one)


def test_features_that_are_no_numbers_are_refused():
    features = normal("features", 5, 3)
    features[3, 1] = np.nan
    for call in (lambda: moments([features]), *(lambda f=f: f(features, features) for f in (kernel_distance, kernel_distance_of_all))):
        with pytest.raises(UserError, match="not finite"):
            call()
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        moments(features)
