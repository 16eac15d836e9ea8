"""Generate the random numbers of numpy_gpt/noise.py on any device: Philox4x32-10 in signed 64-bit integers.

PyTorch can't multiply unsigned words. The product of two 32-bit words in int64 can be negative, but its 64 bits are
right, and shifting and masking returns both halves.
"""

import math
from typing import Self

import torch

from numpy_gpt.noise import Name

COUNTERS = 1 << 14  # in a tile, so that the tensors of a round stay in the L2 cache


def philox(counter, key):
    """Return (..., 4) int64 random words: ten rounds of two wide products

    counter is four words, ints or int64 tensors (...), and key is two words.
    """
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        x, y = a * 0xD2511F53, c * 0xCD9E8D57  # 32 x 32 -> 64 bits
        a, b, c, d = high(y) ^ b ^ k0, low(y), high(x) ^ d ^ k1, low(x)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return torch.stack(torch.broadcast_tensors(a, b, c, d), -1)


def high(x):
    """Return the upper 32 bits of 64-bit words"""
    return x >> 32 & 0xFFFFFFFF


def low(x):
    """Return the lower 32 bits of 64-bit words"""
    return x & 0xFFFFFFFF


def key(seed):
    """Return the two 32-bit words of a seed, the lower one first"""
    return seed % 2**32, seed // 2**32


def keys(seed, samples, device="cpu"):
    """Return a tensor (B,3) of the key's two words and the number of each sample

    As tensors they aren't constants of a compiled function, so a new seed or number compiles nothing.
    """
    return torch.tensor([(*key(seed), sample) for sample in samples], dtype=torch.int64, device=device)


def uniform(keys, step, V):
    """Return (B,V) float64: a random number in (0, 1) for each sample and token id"""
    block = low(torch.arange(math.ceil(V / 4), device=keys.device))  # else the compiler multiplies in 32 bits on CUDA
    zero = torch.zeros_like(block)
    k0, k1, sample = keys.unsqueeze(-1).unbind(1)  # (B,1) each
    words = philox((block, zero + step, sample, zero), (k0, k1))  # (B,V/4,4)
    return (words.flatten(1)[:, :V].double() + 0.5) * 2.0**-32


class Noise(Name):
    """Generate the random bytes of dropout in a training step: Noise(seed, step)

    Pass it to loss_and_grads. The same seed and step give the same masks in numpy_gpt and torch_gpt. If a batch is a
    part of a larger one and starts at its sequence s, pass Noise(seed, step, sequence=s) to get the same masks.

    Example:
        >>> import torch_gpt
        >>> torch_gpt.Noise(seed=1, step=2).bytes((1, 4))
        tensor([[135, 131, 245,  28]], dtype=torch.uint8)
    """

    __slots__ = ()

    def at(self, offset: int) -> Self:
        """Return the noise of the place in the model that is `offset` sites later"""
        return self._replace(site=self.site + offset)

    def bytes(self, shape: tuple[int, ...], device: str | torch.device = "cpu") -> torch.Tensor:
        """Return random uint8 numbers of a shape (B, ...); row b is the beginning of the stream of sequence + b"""
        self.check_batch(shape[0])
        n = math.prod(shape[1:])
        blocks = math.ceil(n / 16)
        out = torch.empty(shape[0], blocks, 4, 4, dtype=torch.uint8, device=device)
        for b in range(shape[0]):
            for start in range(0, blocks, COUNTERS):
                index = torch.arange(start, min(start + COUNTERS, blocks), device=device)
                counter = (index, self.step, self.sequence + b, 1 + self.site)  # 0 in the last word is for sampling
                words = philox(counter, key(self.seed))
                for byte in range(4):
                    out[b, start : start + COUNTERS, :, byte] = words >> 8 * byte & 255
        return out.reshape(shape[0], -1)[:, :n].reshape(shape)
