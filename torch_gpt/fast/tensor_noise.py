"""Generate the bytes of torch_gpt.Noise inside a compiled step.

The numbers that name the noise are tensors. As Python numbers they would be constants of the compiled step, so that
every step would be compiled again. For the compiler, the bytes are the result of one operator. Otherwise it
would compile the rounds of Philox again for each place with dropout.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from ..noise import key, philox


class TensorNoise(NamedTuple):
    """Hold the numbers of a Noise as int64 tensors, and generate the same bytes

    Its user checks the name and the batch, as numbers_of does: a compiled step can't raise an error.
    """

    stream: torch.Tensor  # (4,): the two words of the key, the step, the sequence
    site: torch.Tensor  # ()

    def at(self, offset):
        """Return the noise of the place in the model that is `offset` sites later"""
        return TensorNoise(self.stream, self.site + offset)

    def bytes(self, shape, device):
        """Return random uint8 numbers of a shape (B, ...); the device is that of the numbers"""
        B, n = shape[0], math.prod(shape[1:])
        return random_blocks(self.stream, self.site, B, -(-n // 16))[:, :n].reshape(shape)


def numbers_of(noise, B):
    """Return the numbers (5,) of a Noise, for tensor_noise; raise GPTError if a batch of B goes beyond its sequences"""
    noise.check_batch(B)
    return np.array([*key(noise.seed), noise.step, noise.sequence, noise.site], np.int64)


def tensor_noise(numbers):
    """Return the noise of numbers (5,), a tensor on the device"""
    return TensorNoise(numbers[:4], numbers[4])


@torch.library.custom_op("torch_gpt::random_blocks", mutates_args=())
def random_blocks(stream: torch.Tensor, site: torch.Tensor, B: int, blocks: int) -> torch.Tensor:
    """Return the bytes (B, 16 blocks) of TensorNoise(stream, site)"""
    return compiled_blocks()(stream, site, B, blocks)


@random_blocks.register_fake
def _(stream, site, B, blocks):
    return torch.empty(B, 16 * blocks, dtype=torch.uint8, device=stream.device)


@random_blocks.register_kernel("cuda")
def _(stream, site, B, blocks):
    from . import noise_kernel  # Triton isn't installed everywhere

    return noise_kernel.random_blocks(stream, site, B, blocks)


@cache
def compiled_blocks():
    """Return the function of random_blocks for all shapes, compiled in its first call"""
    return torch.compile(blocks_of_words, dynamic=True)


def blocks_of_words(stream, site, B, blocks):
    k0, k1, step, sequence = stream
    sequences = sequence + torch.arange(B, device=stream.device)[:, None]
    words = philox((torch.arange(blocks, device=stream.device), step, sequences, 1 + site), (k0, k1))  # (B,blocks,4)
    return words.int().view(torch.uint8).reshape(B, -1)  # the lowest byte of a word first
