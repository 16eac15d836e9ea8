"""Compute the loss of logits and their gradient by a hand-written Triton kernel, for training on CUDA.

A program reads its row of logits twice. The second time the row is in the GPU's L2 cache. The gradient replaces the
logits, so that memory is read once and written once.
"""

import torch
import triton
import triton.language as tl

WIDTH = 4096  # logits of a row that a program reads at once
LOWEST = tl.constexpr(-1e38)  # smaller than any logit; -inf would give inf - inf


@triton.jit
def loss_kernel(z, targets, losses, V, n_vocab, rows, WIDTH: tl.constexpr):
    """Replace a row of z (R,V) by (softmax(z) - onehot(target)) / rows, and store its (log Σ exp z - z[target]) / rows

    Ids from n_vocab on only pad the vocabulary: their probability is 0.
    """
    r = tl.program_id(0)
    row, target = z + r.to(tl.int64) * V, tl.load(targets + r)
    z_target = tl.load(row + target).to(tl.float32)
    largest = tl.full((WIDTH,), LOWEST, tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)  # Σ exp(z - largest), of every WIDTH-th logit
    for start in range(0, n_vocab, 2 * WIDTH):  # two logits for each correction of the sum
        i = start + tl.arange(0, WIDTH)
        a = tl.load(row + i, i < n_vocab, LOWEST, eviction_policy="evict_last").to(tl.float32)
        b = tl.load(row + i + WIDTH, i + WIDTH < n_vocab, LOWEST, eviction_policy="evict_last").to(tl.float32)
        higher = tl.maximum(largest, tl.maximum(a, b))
        total = total * tl.exp(largest - higher) + tl.exp(a - higher) + tl.exp(b - higher)
        largest = higher
    best = tl.max(largest)
    log_sum = best + tl.log(tl.sum(total * tl.exp(largest - best)))
    scale = 1.0 / rows
    tl.store(losses + r, (log_sum - z_target) * scale)
    for start in range(0, V, WIDTH):
        i = start + tl.arange(0, WIDTH)
        p = tl.exp(tl.load(row + i, i < n_vocab, -float("inf")).to(tl.float32) - log_sum)
        tl.store(row + i, tl.where(i == target, p - 1, p) * scale, i < V, eviction_policy="evict_first")


def loss_and_grads(n, w, targets, dw, n_vocab, rows):
    """Return the loss of a chunk n (R,C), as its part of the mean over all rows, and dn; add its part of dw to dw

    Arguments and results are those of head.loss_and_grads.
    """
    z = n @ w.mT  # (R,V)
    losses = torch.empty(len(n), dtype=torch.float32, device=n.device)
    loss_kernel[len(n),](z, targets, losses, len(w), n_vocab, rows, WIDTH, num_warps=8)
    dz = z
    dw += dz.mT @ n  # (V,C)
    return losses.sum(), dz @ w
