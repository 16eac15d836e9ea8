"""Implement the AdamW optimiser in place, its learning rate schedule, and gradient clipping.

Steps compute the same bits as numpy_gpt/adamw.py: every product, sum and quotient is an operation of its own.
torch.optim.AdamW rounds differently. It uses lerp, addcmul and fused multiply-add, in an order that depends on the
variant.
"""

import math

import numpy as np
import torch

from numpy_gpt.adamw import Moments, check_eps, check_max_norm, check_settings, check_step, cosine
from numpy_gpt.errors import GPTError
from numpy_gpt.params import GPT2, named, tree_map

__all__ = ["clip", "cosine", "moments", "step"]


def moments(params: GPT2) -> Moments:
    """Return Adam's moments before the first step: two trees like params, full of zeros

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.init(torch_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1))
        >>> torch_gpt.adamw.moments(m.params).v.wte.shape
        torch.Size([9, 6])
    """
    return Moments(tree_map(torch.zeros_like, params), tree_map(torch.zeros_like, params))


@torch.no_grad()
def step(
    params: GPT2,
    grads: GPT2,
    moments: Moments,
    t: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> None:
    """Update params and moments in place with the gradients grads; only matrices decay, not biases and gains

    Arguments:
        params: the parameters, a tree of arrays or tensors such as m.params.
        grads: the gradients, a tree like params, as loss_and_grads returns it.
        moments: the moments of the step before; moments(params) before the first step.
        t: the number of the step, from 1.
        lr: the learning rate.
        beta1, beta2: the factors of the running means m and v, from 0 to less than 1.
        eps: a number that is added to sqrt v̂.
        weight_decay: the rate at which matrices decay, times lr.

    Raises GPTError if an argument is invalid; nothing is changed then.

    Example:
        >>> import torch_gpt
        >>> m = torch_gpt.init(torch_gpt.Config(n_vocab=9, n_ctx=4, n_embd=6, n_head=2, n_layer=1))
        >>> moments = torch_gpt.adamw.moments(m.params)
        >>> for t in range(1, 101):
        ...     loss, grads = torch_gpt.loss_and_grads(m, tokens=[[1, 2, 3]], targets=[[2, 3, 4]])
        ...     torch_gpt.adamw.step(m.params, grads, moments, t, lr=0.01)
        >>> bool(loss < 0.1)
        True
    """
    check_step(params, grads, moments)
    t, lr, beta1, beta2, eps, weight_decay = check_settings(t, lr, beta1, beta2, eps, weight_decay)
    check_eps(eps, beta2, t, params)
    leaves = zip(named(params), named(grads), named(moments.m), named(moments.v), strict=True)
    for (_, p), (_, g), (_, m), (_, v) in leaves:
        decay = weight_decay if p.ndim == 2 else 0.0
        update(p, g, m, v, t, lr, beta1, beta2, eps, decay)


def update(p, g, m, v, t, lr, beta1, beta2, eps, decay):
    """Update an array p and its moments m and v, as numpy_gpt.adamw.update does"""
    c = math.sqrt(1 - beta2**t)
    a = (1 - beta1) * g
    m *= beta1
    m += a
    v *= beta2
    v += a * g * ((1 - beta2) / (1 - beta1))
    a = m / (sqrt(v) + eps * c)
    p *= 1 - lr * decay
    p -= a * (lr * c / (1 - beta1**t))


def sqrt(v):
    """Return sqrt v rounded correctly

    On a CPU with AVX-512, torch.sqrt gets the last bit of a fifth of all float32 numbers wrong, so NumPy's is used.
    """
    exact = v.device.type == "cpu" and v.dtype != torch.bfloat16  # NumPy has no bfloat16
    return torch.from_numpy(np.sqrt(v.numpy())) if exact else v.sqrt()


def clip(grads: GPT2, max_norm: float) -> float:
    """Scale the gradients in place so that the norm of all of them, as one vector, is at most max_norm

    Arguments:
        grads: the gradients, a tree such as loss_and_grads returns.
        max_norm: the largest norm, more than 0; inf measures the norm and changes nothing.

    Returns the norm before scaling.

    Raises GPTError if max_norm is invalid, or if a gradient has an inf or a NaN; nothing is changed then.

    Example:
        >>> import torch, torch_gpt
        >>> grads = [torch.tensor([3.0]), torch.tensor([4.0])]
        >>> torch_gpt.adamw.clip(grads, max_norm=1.0)
        5.0
        >>> [round(float(g[0]), 6) for g in grads]
        [0.6, 0.8]
    """
    check_max_norm(max_norm)
    squares = {name: float(g.double().square().sum()) for name, g in named(grads)}
    for name, s in squares.items():
        if not math.isfinite(s):
            raise GPTError(f"the gradient of {name} is not finite: nothing was updated; lower the learning rate.")
    norm = math.sqrt(sum(squares.values()))
    if norm > max_norm:
        for _, g in named(grads):
            g *= float(max_norm / norm)
    return norm
