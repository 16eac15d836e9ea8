"""Generate the bytes of torch_gpt.Noise by a hand-written Triton kernel, for training with dropout on CUDA."""

import torch
import triton
import triton.language as tl

WIDTH = 512  # blocks of 16 bytes that a program generates


@triton.jit
def noise_kernel(stream, site, words, blocks, WIDTH: tl.constexpr):
    """Store WIDTH blocks of four words for sequence b of the batch"""
    b = tl.program_id(1)
    block = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    seed = tl.load(stream + 1) << 32 | tl.load(stream)
    step, sequence = tl.load(stream + 2).to(tl.uint32), (tl.load(stream + 3) + b).to(tl.uint32)
    place = (tl.load(site) + 1).to(tl.uint32)  # 0 is for sampling
    counter = block.to(tl.uint32)
    zero = tl.zeros_like(counter)
    w0, w1, w2, w3 = tl.philox(seed, counter, zero + step, zero + sequence, zero + place)
    i = tl.program_id(0) * 4 * WIDTH + tl.arange(0, 4 * WIDTH)
    row = words + b.to(tl.int64) * 4 * blocks
    tl.store(row + i, tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(4 * WIDTH), i < 4 * blocks)


def random_blocks(stream, site, B, blocks):
    """Return random bytes (B, 16 blocks); stream and site are those of TensorNoise"""
    words = torch.empty(B, 4 * blocks, dtype=torch.int32, device=stream.device)
    noise_kernel[triton.cdiv(blocks, WIDTH), B](stream, site, words, blocks, WIDTH)
    return words.view(torch.uint8)  # the lowest byte of a word first
