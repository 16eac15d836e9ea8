"""Make batches of texts of similar length, in an order that depends only on the seed and the epoch."""

from collections.abc import Sequence

import numpy as np

POOL = 8  # batches whose texts are sorted by length together


def steps_per_epoch(texts: int, batch_size: int) -> int:
    return -(-texts // batch_size)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the texts of each batch of an epoch, in which each text occurs once

    The texts are shuffled and cut into pools. Those of a pool are sorted by length, so that a batch has little padding.
    """
    rng = np.random.default_rng([seed, epoch])
    order, size = rng.permutation(len(lengths)), POOL * batch_size
    batches = []
    for start in range(0, len(order), size):
        pool = order[start : start + size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return the texts of each batch of an evaluation, sorted by length"""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padded(texts: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """Return texts as rows (B,T), padded on the right"""
    rows = np.full((len(texts), max(map(len, texts))), padding, np.int64)
    for row, ids in zip(rows, texts, strict=True):
        row[: len(ids)] = ids
    return rows
