"""Are rows balanced and split by label and seed, and are labels refused with which that is impossible?"""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from numpy_gpt.errors import GPTError
from numpy_gpt.finetune.split import MOST_LABELS, balanced, split

SPAM = ["ham"] * 4827 + ["spam"] * 747


def counts(labels, rows):
    return Counter(labels[i] for i in rows)


def assert_is_partition(parts, n):
    assert sorted(np.concatenate(parts)) == list(range(n))


def test_balanced_takes_as_many_rows_of_each_label_as_the_rarest_has():
    labels = list("aababcabaaca")
    rows = balanced(labels, 1)
    assert counts(labels, rows) == {"a": 2, "b": 2, "c": 2}
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert {5, 10} < set(rows.tolist())  # all rows of c


def test_balanced_rows_depend_on_the_seed_and_on_nothing_else():
    first, second = balanced(SPAM, 1), balanced(SPAM, 2)
    assert len(first) == 2 * 747
    assert np.array_equal(first, balanced(SPAM, 1))
    assert not np.array_equal(first, second)
    assert abs(np.mean(first[:747]) - 4826 / 2) < 200  # 4 standard deviations of the mean of uniform draws


def test_balanced_draws_each_row_equally_often():
    labels = ["a"] * 8 + ["b"] * 2
    drawn = Counter(i for seed in range(400) for i in balanced(labels, seed).tolist())
    assert all(60 < drawn[i] < 140 for i in range(8))  # 100 expected, 4.6 standard deviations


def test_split_of_the_balanced_spam_rows_has_the_shares_of_each_label():
    labels = [SPAM[i] for i in balanced(SPAM, 0)]
    train, val, test = split(labels, 0)
    assert_is_partition((train, val, test), 1494)
    assert (len(val), len(test)) == (149, 299)
    for part, share in ((train, 0.7), (val, 0.1), (test, 0.2)):
        assert all(abs(n - share * 747) < 1 for n in counts(labels, part).values())
    assert counts(labels, train) == {"ham": 523, "spam": 523}


@pytest.mark.parametrize(
    "sizes", [(5, 5), (9, 1), (2, 2), (3, 1), (1, 1, 4), (7, 13, 29, 51), (100, 1, 1), (1, 1, 1, 10), (3,) * 50]
)
def test_split_is_a_stratified_partition_for_any_sizes(sizes):
    labels = [str(k) for k, n in enumerate(sizes) for _ in range(n)]
    train, val, test = split(labels, 3)
    n = len(labels)
    assert_is_partition((train, val, test), n)
    assert len(test) == max(1, round(n / 5))
    assert 1 <= len(val) <= n / 10 + 1
    assert set(counts(labels, train)) == set(labels)
    if n >= 10 and 1 not in sizes:
        for part, share in ((test, 0.2), (train, 0.7)):
            found = counts(labels, part)
            assert all(abs(found[str(k)] - share * size) < 1 for k, size in enumerate(sizes))


def test_ten_rows_of_two_labels_are_split():
    labels = ["ham", "spam"] * 5
    train, val, test = split(labels, 0)
    assert (len(train), len(val), len(test)) == (7, 1, 2)
    assert counts(labels, test) == {"ham": 1, "spam": 1}


def test_split_is_shuffled_by_the_seed():
    first, again, other = split(SPAM, 1), split(SPAM, 1), split(SPAM, 2)
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
        assert abs(np.corrcoef(a, np.arange(len(a)))[0, 1]) < 0.2
        spam = [SPAM[i] == "spam" for i in a]
        half = len(a) // 2
        assert abs(np.mean(spam[:half]) - np.mean(spam[half:])) < 0.12


def test_rows_are_drawn_by_uniform_doubles_alone():
    # NumPy keeps the stream of doubles in new versions, in contrast to that of permutations
    def drawn(labels, stream):
        draws = np.random.default_rng([7, stream]).random(len(labels))
        order = sorted(range(len(labels)), key=lambda i: draws[i])
        return order, *([i for i in order if labels[i] == label] for label in "ab")

    _, a, b = drawn("abbabbbb", 0)
    assert balanced("abbabbbb", 7).tolist() == sorted([*a, *b[:2]])
    labels = "aabbaabbab"
    order, a, b = drawn(labels, 1)
    train, val, test = split(labels, 7)
    assert test.tolist() == [i for i in order if i in (a[0], b[0])]
    assert val.tolist() == [a[1]]
    assert train.tolist() == [i for i in order if i in (*a[2:], *b[1:])]


def test_splits_of_two_seeds_are_independent():
    parts = [set(split(SPAM, seed).test.tolist()) for seed in range(3)]
    for a, b in combinations(parts, 2):
        assert abs(len(a & b) / len(a) - 0.2) < 0.06  # as independent draws of 20 %


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["ham"] * 10, "spam.tsv has one label, 'ham': a classifier needs at least two."),
        (["a" * 50] * 3, f"spam.tsv has one label, '{'a' * 40}': a classifier needs at least two."),
        (
            ["ham", "spam", "spam"],
            "spam.tsv has 2 labels in 3 rows: a classifier needs two rows for each label on average.",
        ),
        (
            [f"{x / 10}" for x in range(300)],
            "spam.tsv has 300 labels in 300 rows: a classifier needs two rows for each label on average.",
        ),
        (
            [f"{x:04}" for x in range(MOST_LABELS + 1)] * 3,
            "spam.tsv has 1,001 labels, such as '0000': at most 1,000 work.",
        ),
    ],
)
def test_unusable_labels_are_refused(labels, message):
    with pytest.raises(GPTError) as e:
        split(labels, 0, "spam.tsv")
    assert str(e.value) == message


def test_label_of_a_single_row_cannot_be_balanced():
    with pytest.raises(GPTError) as e:
        balanced(["v1", *SPAM], 0, "spam.csv")
    assert str(e.value) == "spam.csv has one row with the label 'v1': to balance the labels, remove it or add others."


def test_one_label_is_balanced_as_it_is():
    assert balanced(["ham"], 0).tolist() == [0]
