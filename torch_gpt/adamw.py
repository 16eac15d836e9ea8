"""AdamW in place, its learning rate, and clipping: the steps of numpy_gpt/adamw.py, to the last bit.

torch.optim.AdamW rounds otherwise (lerp, addcmul, fused multiply-add, another order in every variant), so here each
product, sum and quotient stands alone.
"""

import math

import numpy as np
import torch

from numpy_gpt.adamw import Moments, check_eps, check_max_norm, check_settings, check_step, cosine
from numpy_gpt.errors import GPTError
from numpy_gpt.params import named, tree_map

__all__ = ["clip", "cosine", "moments", "step"]


def moments(params):
    """Where Adam starts: zeros"""
    return Moments(tree_map(torch.zeros_like, params), tree_map(torch.zeros_like, params))


@torch.no_grad()
def step(params, grads, moments, t, lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1):
    """Step number t = 1, 2, ...: params and moments are updated in place; matrices decay, biases and gains don't"""
    check_step(params, grads, moments)
    t, lr, beta1, beta2, eps, weight_decay = check_settings(t, lr, beta1, beta2, eps, weight_decay)
    check_eps(eps, beta2, t, params)
    leaves = zip(named(params), named(grads), named(moments.m), named(moments.v), strict=True)
    for (_, p), (_, g), (_, m), (_, v) in leaves:
        decay = weight_decay if p.ndim == 2 else 0.0
        update(p, g, m, v, t, lr, beta1, beta2, eps, decay)


def update(p, g, m, v, t, lr, beta1, beta2, eps, decay):
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
    """Rounded correctly: on a CPU with AVX-512 PyTorch's own misses the last bit of a fifth of all float32 numbers"""
    exact = v.device.type == "cpu" and v.dtype != torch.bfloat16  # which NumPy lacks
    return torch.from_numpy(np.sqrt(v.numpy())) if exact else v.sqrt()


def clip(grads, max_norm):
    """Scale the gradients in place so that their norm, all as one vector, is at most max_norm -> the norm before"""
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
