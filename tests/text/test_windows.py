"""Test that windows, batches and random starts contain the right tokens."""

import numpy as np
import pytest

from numpy_gpt.noise import below, key, philox
from numpy_gpt.text.windows import batches, random_batch, split, windows


def test_split_takes_the_last_tenth_for_validation():
    tokens = np.arange(1115394)
    train, val = split(tokens)
    assert (len(train), val[0], val[-1]) == (1003854, 1003854, 1115393)


def test_windows_begin_every_stride_tokens():
    w = windows(np.arange(12), 4, 3)
    assert w.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9, 10]]
    assert windows(np.arange(13), 4).tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]


@pytest.mark.parametrize("n", [2, 5, 8, 9, 10, 40, 41, 57, 65])
def test_batches_have_every_token_as_a_target_once(n):
    tokens = np.arange(n)
    found = list(batches(tokens, 8, 3))
    for x, y in found:
        assert (y == x + 1).all()
        assert len(x) <= 3
    assert sorted(i for _, y in found for i in y.ravel()) == list(range(1, n))


def test_limited_batches_are_spread_evenly():
    found = list(batches(np.arange(1000), 8, 3, limit=4))
    starts = [x[0] for xs, _ in found for x in xs]
    assert [len(xs) for xs, _ in found] == [3, 3, 3, 3]
    assert set(np.diff(starts)) == {80, 88}
    assert len(list(batches(np.arange(1000), 8, 3, limit=99))) == 43  # all


def test_random_window_depends_only_on_seed_step_and_number():
    tokens = np.arange(100_000)
    x, y = random_batch(tokens, 16, seed=5, step=7, numbers=np.arange(6))
    assert (x.shape, x.dtype) == ((6, 16), np.int64)
    assert (y == x + 1).all()
    np.testing.assert_array_equal(random_batch(tokens, 16, 5, 7, np.array([4, 1]))[0], x[[4, 1]])
    for other in ((6, 7), (5, 8)):
        assert (random_batch(tokens, 16, *other, np.arange(6))[0] != x).all()


def test_random_windows_start_everywhere_with_equal_probability():
    starts = below(10, seed=1, step=2, numbers=np.arange(20000))
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert (((counts - 2000) ** 2) / 2000).sum() < 27.9  # chi squared with 9 degrees of freedom: 99.9 % are smaller
    x, _ = random_batch(np.arange(20), 16, 0, 0, np.arange(200))
    assert set(x[:, 0]) == {0, 1, 2, 3}


def test_random_start_is_53_random_bits_times_n():
    random = philox((np.arange(5), 3, 0, 2**32 - 1), key(9))
    for n in (1, 1000, 10**9, 2**40):
        exact = [((int(a) << 21 | int(b) >> 11) * n) >> 53 for a, b, *_ in random]
        assert below(n, 9, 3, np.arange(5)).tolist() == exact
