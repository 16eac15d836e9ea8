"""The random numbers of numpy_gpt/noise.py, bit for bit, on any device: Philox4x32-10 in signed 64-bit integers.

PyTorch can't multiply unsigned words. In int64 the product of two 32-bit words may come out negative, but its 64 bits
are right: shifted and masked, so are both halves.
"""

import math

import torch

from numpy_gpt.noise import Name

TILE = 1 << 14  # counters at a time: what a round works on stays in the L2 cache


def philox(counter, key):
    """counter: four words, int64 tensors or ints; key: two -> (..., 4) int64, by ten rounds of two wide products"""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        x, y = a * 0xD2511F53, c * 0xCD9E8D57  # 32 x 32 -> 64 bits
        a, b, c, d = high(y) ^ b ^ k0, low(y), high(x) ^ d ^ k1, low(x)
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return torch.stack(torch.broadcast_tensors(a, b, c, d), -1)


def high(x):
    return x >> 32 & 0xFFFFFFFF


def low(x):
    return x & 0xFFFFFFFF


def key(seed):
    return seed % 2**32, seed // 2**32


def keys(seed, samples, device="cpu"):
    """Return for each sample the key's two words and the sample's number, as a tensor (B,3)

    They are no constants of a compiled function, so another seed or number compiles nothing.
    """
    return torch.tensor([(*key(seed), sample) for sample in samples], dtype=torch.int64, device=device)


def uniform(keys, step, V):
    """Draw (B,V) float64: for each sample a number in (0, 1) for each token id"""
    block = torch.arange(math.ceil(V / 4), device=keys.device)
    zero = torch.zeros_like(block)
    k0, k1, sample = keys.unsqueeze(-1).unbind(1)  # (B,1) each
    words = philox((block, zero + step, sample, zero), (k0, k1))  # (B,V/4,4)
    return (words.flatten(1)[:, :V].double() + 0.5) * 2.0**-32


class Noise(Name):
    __slots__ = ()

    def at(self, offset):
        return self._replace(site=self.site + offset)

    def bytes(self, shape, device="cpu"):
        """(B, ...) uint8: row b is the stream of sequence + b, from its beginning"""
        self.check_batch(shape[0])
        n = math.prod(shape[1:])
        blocks = math.ceil(n / 16)
        out = torch.empty(shape[0], blocks, 4, 4, dtype=torch.uint8, device=device)
        for b in range(shape[0]):
            for start in range(0, blocks, TILE):
                index = torch.arange(start, min(start + TILE, blocks), device=device)
                counter = (index, self.step, self.sequence + b, 1 + self.site)  # in the last word sampling has 0
                words = philox(counter, key(self.seed))
                for byte in range(4):
                    out[b, start : start + TILE, :, byte] = words >> 8 * byte & 255
        return out.reshape(shape[0], -1)[:, :n].reshape(shape)
