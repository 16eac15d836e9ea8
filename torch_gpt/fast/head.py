"""Compute the head's loss and gradients in chunks of rows, so that the logits of a batch never exist as a whole.

The logits of a large batch and their gradient would take more memory than all layers. So the gradient of a chunk is
computed in the forward, next to its loss. Matmuls are in the dtype of n, softmax and sums in float32.

B batch   T positions   R rows of a chunk   C width   V vocabulary, with the ids that pad it
n the head's input   w the head's weights (V,C)   z logits (R,V)
"""

import math
from functools import partial

import torch

ROWS = 8192  # most rows of a chunk


def chunked_loss(n, w, targets, n_vocab, chunk_grads):
    """Return the mean cross-entropy of n (B,T,C) and targets (B,T), a scalar; ids from n_vocab on only pad w

    chunk_grads is loss_and_grads, compiled or not.
    """
    n, targets = n.flatten(0, 1), targets.flatten()
    if torch.is_grad_enabled():
        return ChunkedLoss.apply(n, w, targets, n_vocab, chunk_grads)
    loss = partial(chunk_loss, w=w.to(n.dtype), n_vocab=n_vocab, rows=len(n))
    return torch.stack([loss(*chunk) for chunk in chunks(n, targets)]).sum()


def chunks(*arrays):
    """Yield the arrays in chunks of rows; all chunks have one size if it divides the number of rows"""
    n = math.ceil(len(arrays[0]) / ROWS)
    return zip(*(a.chunk(n) for a in arrays), strict=True)


class ChunkedLoss(torch.autograd.Function):
    """Compute the loss and its gradients in the forward; the backward only scales them"""

    @staticmethod
    def forward(ctx, n, w, targets, n_vocab, chunk_grads):
        n, w_n = n.detach(), w.detach().to(n.dtype)  # or the compiler would warn about n.grad
        losses, dns = [], []
        dw = torch.zeros_like(w, dtype=at_least_float32(w.dtype))
        for n_i, targets_i in chunks(n, targets):
            loss, dn = chunk_grads(n_i, w_n, targets_i, dw, n_vocab, len(n))
            losses.append(loss)
            dns.append(dn)
        ctx.save_for_backward(torch.cat(dns), dw.to(w.dtype))
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx, dloss):
        dn, dw = ctx.saved_tensors
        return dn * dloss, dw * dloss, None, None, None


def loss_and_grads(n, w, targets, dw, n_vocab, rows):
    """Return the loss of a chunk n (R,C), as its part of the mean over all rows, and dn; add its part of dw to dw

    z = n wᵀ      dz = (softmax(z) - onehot(target)) / rows      dn = dz w      dw += dzᵀ n
    """
    z, log_sum = logits(n, w, n_vocab)  # (R,V), (R,1)
    target = targets[:, None]  # (R,1)
    loss = (log_sum - z.gather(1, target)).sum() / rows
    p = (z - log_sum).exp()  # (R,V)
    ids = torch.arange(len(w), device=w.device)  # (V,)
    dz = (torch.where(ids == target, p - 1, p) / rows).to(n.dtype)  # (R,V)
    dw += dz.mT @ n  # (V,C)
    return loss, dz @ w


def chunk_loss(n, targets, w, n_vocab, rows):
    """Return the loss of a chunk n (R,C), as its part of the mean over all rows"""
    z, log_sum = logits(n, w, n_vocab)
    return (log_sum - z.gather(1, targets[:, None])).sum() / rows


def logits(n, w, n_vocab):
    """Return z (R,V), with -inf for the ids that pad the vocabulary, and log Σ exp z (R,1)"""
    z = n @ w.mT
    z = z.to(at_least_float32(z.dtype))
    z[:, n_vocab:] = -math.inf
    largest = z.amax(1, keepdim=True)  # with logsumexp, the compiler would read z once more
    return z, largest + (z - largest).exp().sum(1, keepdim=True).log()


def at_least_float32(dtype):
    return torch.promote_types(dtype, torch.float32)
