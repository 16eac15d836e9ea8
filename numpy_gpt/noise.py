"""Generate random numbers that are the same in NumPy and PyTorch, on any device, in any order: Philox4x32-10.

A counter-based generator is a pure function: 128 bits of counter and 64 bits of key give 128 random bits (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", 2011). The counter contains the purpose of a number: the step, the
sequence, the place in the model. So a number doesn't depend on earlier draws. A sequence gets the same dropout mask in
any batch, and again when a block is recomputed.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np

from .errors import GPTError
from .number import is_index

COUNTERS = 1 << 14  # in a tile, so that the arrays of a round stay in the L2 cache


def philox(counter, key):
    """Return (..., 4) uint32 random words: ten rounds of two wide products

    counter is four uint32 words, single or arrays (...), and key is two words.
    """
    a, b, c, d = (np.asarray(word, np.uint32) for word in counter)
    k0, k1 = key
    for _ in range(10):
        x, y = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)  # 32 x 32 -> 64 bits
        a, b, c, d = high(y) ^ b ^ k0, low(y), high(x) ^ d ^ k1, low(x)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d], -1)


def high(x):
    """Return the upper 32 bits of 64-bit words"""
    return (x >> 32).astype(np.uint32)


def low(x):
    """Return the lower 32 bits of 64-bit words"""
    return x.astype(np.uint32)


def key(seed):
    """Return the two 32-bit words of a seed, the lower one first"""
    return seed % 2**32, seed // 2**32


def uniform(seed, sample, step, ids):
    """Return a random number in (0, 1) for each token id

    The number depends only on the seed, the sample's number, the step and the id. So numbers of other ids needn't be
    drawn.
    """
    if 4 * len(ids) < ids.max():
        words = philox((ids // 4, step, sample, 0), key(seed))[np.arange(len(ids)), ids % 4]
    else:  # for many ids it is faster to draw all numbers up to the largest id
        words = philox((np.arange(ids.max() // 4 + 1), step, sample, 0), key(seed)).ravel()[ids]
    return (words + 0.5) * 2.0**-32


def below(n, seed, step, numbers):
    """Return a random whole number from 0 to n - 1 for each of the sequence numbers: the start of its window"""
    words = philox((numbers, step % 2**32, 0, 2**32 - 1), key(seed)).astype(np.uint64)
    return np.floor((words[:, 0] << 21 | words[:, 1] >> 11) * 2.0**-53 * n).astype(np.int64)


# Each part of a name is less than this. The last word of the counter is 1 + site; 0 is sampling, 2^32 - 1 windows.
LIMITS = {"seed": 2**64, "step": 2**32, "sequence": 2**32, "site": 2**32 - 2}


class Parts(NamedTuple):
    """Hold the fields of Name, which checks them"""

    seed: int
    step: int
    sequence: int = 0  # the number of the batch's first sequence in the step
    site: int = 0  # 0: the embedding; in block i, 1 + 3i: probabilities, 2 + 3i: attention branch, 3 + 3i: MLP branch


class Name(Parts):
    """Name a stream of random bytes; every sequence, step and place in the model has its own stream"""

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
        """Return a checked name; _replace calls this"""
        return cls(*iterable)

    def check_batch(self, B):
        """Raise GPTError if the number of a batch's last sequence is too large"""
        if self.sequence + B > LIMITS["sequence"]:
            raise GPTError(
                f"sequence of Noise is {self.sequence}: a batch of {B} goes beyond the 2**32 sequences of a step; use "
                "a smaller sequence."
            )


class Noise(Name):
    """Generate the random bytes of dropout in a training step: Noise(seed, step)

    Pass it to loss_and_grads. The same seed and step give the same masks in numpy_gpt and torch_gpt. If a batch is a
    part of a larger one and starts at its sequence s, pass Noise(seed, step, sequence=s) to get the same masks.

    Example:
        >>> import numpy_gpt
        >>> noise = numpy_gpt.Noise(seed=1, step=2)
        >>> noise.bytes((2, 4))
        array([[135, 131, 245,  28],
               [156, 125,  58,  99]], dtype=uint8)
        >>> noise._replace(sequence=1).bytes((1, 4))
        array([[156, 125,  58,  99]], dtype=uint8)
    """

    __slots__ = ()

    def at(self, offset: int) -> Self:
        """Return the noise of the place in the model that is `offset` sites later"""
        return self._replace(site=self.site + offset)

    def bytes(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return random uint8 numbers of a shape (B, ...); row b is the beginning of the stream of sequence + b"""
        self.check_batch(shape[0])
        n = math.prod(shape[1:])
        blocks = math.ceil(n / 16)
        words = np.empty((shape[0], blocks, 4), "<u4")
        for b in range(shape[0]):
            for start in range(0, blocks, COUNTERS):
                index = np.arange(start, min(start + COUNTERS, blocks), dtype=np.uint32)
                counter = (index, self.step, self.sequence + b, 1 + self.site)  # 0 in the last word is for sampling
                words[b, start : start + COUNTERS] = philox(counter, key(self.seed))
        return words.view(np.uint8).reshape(shape[0], -1)[:, :n].reshape(shape)
