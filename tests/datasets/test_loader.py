import itertools
import threading
import time

import numpy as np
import pytest

from datasets.loader import batches
from utils.errors import UserError


class Numbers:
    """Example i holds i and a random number; `fail_at` is an index that cannot be made."""

    def __init__(self, size, fail_at=None, delay=0.0):
        self.size, self.fail_at, self.delay = size, fail_at, delay
        self.made = []

    def __len__(self):
        return self.size

    def example(self, index, rng):
        if index == self.fail_at:
            raise OSError("damaged")
        time.sleep(self.delay * rng.random())  # threads finish out of order
        self.made.append(index)
        return {"index": np.int64(index), "noise": rng.normal(size=(2, 3)).astype(np.float32)}


def take(count, *args, **options):
    stream = batches(*args, **options)
    result = list(itertools.islice(stream, count))
    stream.close()
    return result


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in ("index", "noise")
    )


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_shares_make_up_the_batch():
    whole = take(3, Numbers(10), 4, seed=0)
    shares = [take(3, Numbers(10), 4, seed=0, share=(part, 2)) for part in range(2)]
    together = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert same(whole, together)


def test_batches_are_stacked_examples():
    (batch,) = take(1, Numbers(10), 4, seed=0)
    assert batch["index"].shape == (4,) and batch["index"].dtype == np.int64
    assert batch["noise"].shape == (4, 2, 3) and batch["noise"].dtype == np.float32


@pytest.mark.parametrize("workers", [0, 3])
def test_every_epoch_is_a_new_permutation_of_everything(workers):
    stream = take(9, Numbers(12), 4, seed=5, workers=workers)
    epochs = np.concatenate([batch["index"] for batch in stream]).reshape(3, 12)
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_straddle_epochs_without_losing_an_example():
    stream = take(7, Numbers(5), 3, seed=1)
    drawn = np.concatenate([batch["index"] for batch in stream])
    for start in range(0, 20, 5):
        assert sorted(drawn[start : start + 5]) == list(range(5))


def test_a_batch_may_be_larger_than_the_data_set():
    (batch,) = take(1, Numbers(3), 7, seed=0)
    assert np.bincount(batch["index"]).tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


def test_threads_change_nothing():
    one = take(8, Numbers(7), 3, seed=2, workers=0)
    assert same(one, take(8, Numbers(7, delay=0.01), 3, seed=2, workers=4))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_continues_the_same_stream(workers):
    whole = take(12, Numbers(7), 3, seed=3, workers=workers)
    resumed = take(7, Numbers(7), 3, seed=3, start=15, workers=workers)
    assert same(whole[5:], resumed)


def test_no_example_is_lost_or_comes_twice_where_the_size_of_a_batch_changes():
    """Which examples were seen counts, not how many batches they came in."""
    before, after = take(4, Numbers(30), 3, seed=3), take(3, Numbers(30), 6, seed=3, start=12)
    assert sorted(np.concatenate([batch["index"] for batch in (*before, *after)])) == list(range(30))


def test_each_example_has_its_own_chance():
    stream = take(10, Numbers(5), 3, seed=4)
    noise = np.concatenate([batch["noise"] for batch in stream])
    assert len(np.unique(noise[:, 0, 0])) == 30  # also where the same picture comes again


def test_the_seed_decides_order_and_chance():
    first, second = take(4, Numbers(20), 5, seed=0), take(4, Numbers(20), 5, seed=1)
    assert not np.array_equal(first[0]["index"], second[0]["index"])
    assert not np.array_equal(first[0]["noise"], second[0]["noise"])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_reaches_the_caller_at_its_step(workers):
    order = np.concatenate([batch["index"] for batch in take(4, Numbers(8), 2, seed=0)])
    stream = batches(Numbers(8, fail_at=order[5]), 2, seed=0, workers=workers)
    next(stream), next(stream)
    with pytest.raises(OSError, match="damaged"):
        next(stream)
    assert not loader_threads()


def test_closing_stops_the_threads():
    stream = batches(Numbers(8), 2, seed=0, workers=3)
    next(stream)
    assert loader_threads()
    stream.close()
    assert not loader_threads()


def test_prefetching_is_bounded():
    dataset = Numbers(1000)
    stream = batches(dataset, 2, seed=0, workers=2)
    next(stream)
    time.sleep(0.1)
    assert 2 < len(dataset.made) <= 8
    stream.close()


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="empty"):
        next(batches(Numbers(0), 2, seed=0))
