"""Draw balanced rows, and split rows into training, validation and test, both by label and by a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import GPTError

VAL, TEST = 0.1, 0.2  # shares of the rows; the rest is for training
MOST_LABELS = 1000
SHOWN = 40  # characters of a label in a message


class Split(NamedTuple):
    """Hold the indices of the rows for training, validation and test"""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def balanced(labels: Sequence[str], seed: int, name: str = "the data") -> np.ndarray:
    """Return the indices of as many rows of each label as the rarest has, drawn by the seed, in ascending order

    name is the file's, for error messages.
    """
    names, groups = grouped(labels, random_order(len(labels), seed, 0))
    n, rarest = min((len(group), label) for group, label in zip(groups, names, strict=True))
    if n == 1 and len(groups) > 1:
        raise GPTError(
            f"{name} has one row with the label {rarest[:SHOWN]!r}: to balance the labels, remove it or add others."
        )
    return np.sort(np.concatenate([group[:n] for group in groups]))


def split(labels: Sequence[str], seed: int, name: str = "the data") -> Split:
    """Return the indices of 70 % of the rows for training, 10 % for validation and 20 % for test, shuffled by the seed

    The shares hold for all rows and for those of each label, up to rounding. Each label has a row in train, and no part
    is empty. Raise GPTError if there are too few or too many labels. name is the file's, for error messages.
    """
    order = random_order(len(labels), seed, 1)
    names, groups = grouped(labels, order)
    check(names, len(labels), name)
    sizes = np.array([len(group) for group in groups])
    test = rounded(TEST * sizes, sizes - 1)
    val = rounded((TEST + VAL) * sizes - test, sizes - 1 - test)
    parts = [np.split(group, [a, a + b]) for group, a, b in zip(groups, test, val, strict=True)]
    rows_test, rows_val, rows_train = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    position = np.argsort(order)
    return Split(*(rows[np.argsort(position[rows])] for rows in (rows_train, rows_val, rows_test)))


def random_order(n: int, seed: int, stream: int) -> np.ndarray:
    """Return n indices, shuffled by the seed; each stream of a seed is another order"""
    return np.argsort(np.random.default_rng([seed, stream]).random(n), kind="stable")


def grouped(labels: Sequence[str], order: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Return the sorted labels, and for each of them the indices of its rows in this order"""
    rows: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for i in order.tolist():
        rows[labels[i]].append(i)
    return list(rows), [np.array(indices) for indices in rows.values()]


def check(names: Sequence[str], rows: int, name: str) -> None:
    """Raise GPTError if a classifier can't be trained and tested on so many rows with these labels"""
    if len(names) == 1:
        raise GPTError(f"{name} has one label, {names[0][:SHOWN]!r}: a classifier needs at least two.")
    if len(names) > MOST_LABELS:
        raise GPTError(f"{name} has {len(names):,} labels, such as {names[0][:SHOWN]!r}: at most {MOST_LABELS:,} work.")
    if rows < 2 * len(names):
        raise GPTError(
            f"{name} has {len(names):,} labels in {rows:,} rows: a classifier needs two rows for each label on average."
        )


def rounded(exact: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return whole numbers close to the exact ones, with their sum, rounded too, but at least 1

    The largest fractions are rounded up. No number exceeds its entry in `most`.
    """
    counts = np.clip(np.floor(exact).astype(int), 0, most)
    while counts.sum() < max(1, round(exact.sum())):
        counts[np.argmax(np.where(counts < most, exact - counts, -np.inf))] += 1
    return counts
