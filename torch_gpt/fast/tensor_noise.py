"""Generate the bytes of torch_gpt.Noise inside a compiled step.

The numbers that name the noise are tensors. As Python numbers they would be constants of the compiled step, so that
every step would be compiled again.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from ..noise import key, philox


class TensorNoise(NamedTuple):
    """Hold the numbers of a Noise as int64 tensors (), and generate the same bytes

    Its user checks the name and the batch, as numbers_of does: a compiled step can't raise an error.
    """

    key_0: torch.Tensor
    key_1: torch.Tensor
    step: torch.Tensor
    sequence: torch.Tensor
    site: torch.Tensor

    def at(self, offset):
        """Return the noise of the place in the model that is `offset` sites later"""
        return TensorNoise(self.key_0, self.key_1, self.step, self.sequence, self.site + offset)

    def bytes(self, shape, device):
        """Return random uint8 numbers of a shape (B, ...)"""
        B, n = shape[0], math.prod(shape[1:])
        block = word(torch.arange(math.ceil(n / 16), device=device))
        sequence = word(self.sequence + torch.arange(B, device=device))[:, None]
        words = philox((block, self.step, sequence, 1 + self.site), (self.key_0, self.key_1))  # (B,n/16,4)
        numbers = words.int().view(torch.uint8)  # (B,n/16,16), the lowest byte of a word first
        return numbers.reshape(B, -1)[:, :n].reshape(shape)


def word(index):
    """Return a range of indices as 32-bit words

    The mask changes no number. It prevents TorchInductor from computing products of the words as indices, which have 32
    bits on CUDA.
    """
    return index & 0xFFFFFFFF


def numbers_of(noise, B):
    """Return the numbers (5,) of a Noise for TensorNoise; raise GPTError if a batch of B goes beyond its sequences"""
    noise.check_batch(B)
    return np.array([*key(noise.seed), noise.step, noise.sequence, noise.site], np.int64)
