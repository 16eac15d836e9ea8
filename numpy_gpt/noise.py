"""Random numbers that NumPy and PyTorch draw alike, on any device, in any order: Philox4x32-10.

A counter-based generator is a pure function: 128 bits of counter and 64 of key give 128 random bits (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011). What a number is for goes into the counter, so that it doesn't
depend on what was drawn before: a sequence has the same mask in any batch, and when a checkpointed block runs again.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np

from .errors import GPTError
from .number import is_index

TILE = 1 << 14  # counters at a time: what a round works on stays in the L2 cache


def philox(counter, key):
    """counter: four uint32 words, arrays or single; key: two -> (..., 4) uint32, by ten rounds of two wide products"""
    a, b, c, d = (np.asarray(word, np.uint32) for word in counter)
    k0, k1 = key
    for _ in range(10):
        x, y = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)  # 32 x 32 -> 64 bits
        a, b, c, d = high(y) ^ b ^ k0, low(y), high(x) ^ d ^ k1, low(x)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d], -1)


def high(x):
    return (x >> 32).astype(np.uint32)


def low(x):
    return x.astype(np.uint32)


def key(seed):
    return seed % 2**32, seed // 2**32


def uniform(seed, sample, step, ids):
    """Draw a number in (0, 1) for each token id

    It depends on the seed, the sample's number, the step and the id alone, so only the ids that are needed are drawn.
    """
    if 4 * len(ids) < ids.max():
        words = philox((ids // 4, step, sample, 0), key(seed))[np.arange(len(ids)), ids % 4]
    else:  # so many that it is cheaper to draw all
        words = philox((np.arange(ids.max() // 4 + 1), step, sample, 0), key(seed)).ravel()[ids]
    return (words + 0.5) * 2.0**-32


def below(n, seed, step, numbers):
    """A whole number from 0 to n - 1 for each of these sequences of a step: where its window starts"""
    words = philox((numbers, step % 2**32, 0, 2**32 - 1), key(seed)).astype(np.uint64)
    return np.floor((words[:, 0] << 21 | words[:, 1] >> 11) * 2.0**-53 * n).astype(np.int64)


# Each part of a name is less than this. A word of the counter holds 1 + site: 0 is for sampling, 2^32 - 1 for windows.
LIMITS = {"seed": 2**64, "step": 2**32, "sequence": 2**32, "site": 2**32 - 2}


class Parts(NamedTuple):
    seed: int
    step: int
    sequence: int = 0  # the number of the batch's first sequence in the step
    site: int = 0  # 0: the embedding; in block i, 1 + 3i: probabilities, 2 + 3i: attention branch, 3 + 3i: MLP branch


class Name(Parts):
    """The name of a stream of random bytes: one for every sequence, step and place in the model"""

    __slots__ = ()

    def __new__(cls, seed, step, sequence=0, site=0):
        parts = Parts(seed, step, sequence, site)
        for name, value in parts._asdict().items():
            if not is_index(value) or not 0 <= operator.index(value) < LIMITS[name]:
                most = LIMITS[name] - 1
                raise GPTError(f"{name} of Noise is {value!r:.40}: it must be a whole number from 0 to {most}.")
        return super().__new__(cls, *map(operator.index, parts))

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        """Check here too: _replace calls it"""
        return cls(*iterable)

    def check_batch(self, B):
        """Raise GPTError if the last sequence of a batch has no number"""
        if self.sequence + B > LIMITS["sequence"]:
            raise GPTError(
                f"sequence of Noise is {self.sequence}: a batch of {B} goes beyond 2**32 sequences in a step."
            )


class Noise(Name):
    __slots__ = ()

    def at(self, offset):
        return self._replace(site=self.site + offset)

    def bytes(self, shape):
        """(B, ...) uint8: row b is the stream of sequence + b, from its beginning"""
        self.check_batch(shape[0])
        n = math.prod(shape[1:])
        blocks = math.ceil(n / 16)
        words = np.empty((shape[0], blocks, 4), "<u4")
        for b in range(shape[0]):
            for start in range(0, blocks, TILE):
                index = np.arange(start, min(start + TILE, blocks), dtype=np.uint32)
                counter = (index, self.step, self.sequence + b, 1 + self.site)  # in the last word sampling has 0
                words[b, start : start + TILE] = philox(counter, key(self.seed))
        return words.view(np.uint8).reshape(shape[0], -1)[:, :n].reshape(shape)
