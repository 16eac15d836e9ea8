"""Make batches of texts of similar length, in an order that depends only on the seed and the epoch."""

from collections.abc import Sequence

import numpy as np

POOL = 8  # batches whose texts are sorted by length together


def steps_per_epoch(texts: int, batch_size: int) -> int:
    return -(-texts // batch_size)


class Epochs:
    """Divide texts of known lengths into the batches of a run; each text occurs once in an epoch"""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.steps = steps_per_epoch(len(lengths), batch_size)
        self.latest: tuple[int, list[np.ndarray]] | None = None  # an epoch's number and batches

    def batch(self, t: int) -> np.ndarray:
        """Return the numbers of the texts in the batch of step t = 1, 2, ..."""
        epoch, number = divmod(t - 1, self.steps)
        return self.batches(epoch)[number]

    def texts(self, steps: int) -> int:
        """Return the number of texts in the batches of the first steps"""
        epochs, rest = divmod(steps, self.steps)
        return epochs * len(self.lengths) + sum(map(len, self.batches(epochs)[:rest] if rest else []))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch"""
        if not self.latest or self.latest[0] != epoch:
            self.latest = epoch, shuffled_batches(self.lengths, self.batch_size, self.seed, epoch)
        return self.latest[1]


def shuffled_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch

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
