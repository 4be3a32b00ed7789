"""An endless stream of batches in which everything random follows from the seed and the number of the example.

Nothing is drawn from a generator that lives on between steps, so a run that goes on after so many examples sees exactly those, in the order
and with the augmentations, that an uninterrupted run would have seen; the number of threads changes nothing, nor does the size of a batch.
"""

import functools
import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from utils.errors import UserError

SHUFFLE = 1  # keeps the stream that orders an epoch apart from the streams (seed, number) of the examples


def batches(dataset, batch_size, seed, start=0, workers=2, share=(0, 1)):
    """Yields batch after batch, without end, from example number `start` on.

    dataset: has `len()` and `example(index, rng) -> dict[str, np.ndarray]`, which draws all its chance from the
    `np.random.Generator` it is given and is safe to call from several threads.
    Each batch is a dict of the examples' arrays stacked along a new first axis. Every epoch is a new permutation of the
    whole data set; a batch may straddle two epochs. workers: threads that prepare examples ahead; 0 uses the caller's.
    share: (i, n) gives the i-th of n equal parts of every batch; n divides batch_size.

    An exception in `example` is raised here, at the batch it belongs to. Closing the generator stops the threads.
    Raises UserError when the data set is empty.
    """
    part, parts = share
    size, part_size = len(dataset), batch_size // parts
    if size == 0:
        raise UserError("The data set is empty: there is nothing to make a batch of.")

    @functools.lru_cache(maxsize=2)  # the running epoch and the one a batch may straddle into
    def order(epoch):
        return np.random.default_rng((seed, epoch, SHUFFLE)).permutation(size)

    def example(number):
        epoch, place = divmod(number, size)
        return dataset.example(int(order(epoch)[place]), np.random.default_rng((seed, number)))

    def numbers(first):
        return range(first + part * part_size, first + (part + 1) * part_size)

    if workers == 0:
        for first in itertools.count(start, batch_size):
            yield stack([example(number) for number in numbers(first)])

    ahead = 1 + -(-2 * workers // part_size)  # batches: one, and enough to give every thread two examples
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    waiting = deque()
    try:
        for first in itertools.count(start, batch_size):
            waiting.append([pool.submit(example, number) for number in numbers(first)])
            if len(waiting) > ahead:
                yield stack([future.result() for future in waiting.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)


def spread(count, most):
    """Indices of at most `most` of `count` things, in order: all of them, or an even spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def dealt(count, most, *seed):
    """`count` of the numbers 0..most−1 in random order, none again before all have come. seed: whole numbers."""
    rounds = range(max(1, -(-count // most)))
    return np.concatenate([np.random.default_rng([*seed, i]).permutation(most) for i in rounds])[:count]


def stack(examples):
    """A batch of examples: their arrays by name, along a new first axis."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
