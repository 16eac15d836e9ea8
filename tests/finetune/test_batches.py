"""Does an epoch contain each text once, in batches of similar length, in an order given by seed and epoch?"""

import numpy as np
import pytest

from numpy_gpt.finetune.batches import POOL, Epochs, padded, shuffled_batches, sorted_batches

B = 4
LENGTHS = np.random.default_rng(0).permutation(90)  # almost three pools; each text has a length of its own


def listed(batches):
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("n", [1, B, B + 1, POOL * B, 90])
def test_epoch_contains_each_text_once(n):
    batches = shuffled_batches(LENGTHS[:n], B, seed=0, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert len(batches) == -(-n // B)
    assert max(map(len, batches)) <= B


def test_batches_of_a_pool_are_consecutive_in_the_order_of_lengths():
    lengths = LENGTHS[: POOL * B]
    ranks = np.argsort(np.argsort(lengths))
    found = sorted(ranks[batch].tolist() for batch in shuffled_batches(lengths, B, seed=0, epoch=0))
    assert found == [list(range(i, i + B)) for i in range(0, POOL * B, B)]


def test_batches_are_not_in_the_order_of_lengths():
    longest = [LENGTHS[batch].max() for batch in shuffled_batches(LENGTHS[: POOL * B], B, seed=0, epoch=0)]
    assert longest != sorted(longest)


def test_texts_of_a_pool_change_with_the_epoch():
    first, second = (shuffled_batches(LENGTHS, B, seed=0, epoch=epoch) for epoch in (0, 1))
    assert not {frozenset(batch) for batch in listed(first)} & {frozenset(batch) for batch in listed(second)}


@pytest.mark.parametrize("other", [{"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}])
def test_order_is_given_by_seed_and_epoch(other):
    first = listed(shuffled_batches(LENGTHS, B, seed=0, epoch=0))
    assert listed(shuffled_batches(LENGTHS, B, seed=0, epoch=0)) == first
    assert listed(shuffled_batches(LENGTHS, B, **other)) != first


def test_steps_continue_in_the_next_epoch_in_any_order_of_calls():
    epochs = Epochs(LENGTHS, B, seed=3)
    expected = [batch for epoch in range(3) for batch in listed(shuffled_batches(LENGTHS, B, 3, epoch))]
    assert epochs.steps == 23
    for t in (1, 23, 24, 69, 46, 47, 2):
        assert epochs.batch(t).tolist() == expected[t - 1], t


def test_number_of_texts_is_that_of_the_batches_before():
    epochs = Epochs(LENGTHS, B, seed=3)  # the batch of 2 texts can be at any place
    sizes = [len(epochs.batch(t)) for t in range(1, 70)]
    assert sizes.count(2) == 3
    assert [epochs.texts(steps) for steps in range(70)] == [0, *np.cumsum(sizes).tolist()]


def test_batches_of_an_evaluation_are_sorted_by_length():
    batches = sorted_batches(LENGTHS, B)
    assert LENGTHS[np.concatenate(batches)].tolist() == list(range(90))
    assert [len(batch) for batch in batches] == [4] * 22 + [2]


def test_shorter_texts_are_padded_on_the_right():
    rows = padded([[5], [1, 2, 3], [7, 8]], 9)
    assert rows.tolist() == [[5, 9, 9], [1, 2, 3], [7, 8, 9]]
    assert rows.dtype == np.int64
