"""Train a matrix by a sum of rank R: low-rank adaptation (Hu et al., 2021).

The model is computed with w + scale a b instead of w, and only a and b are trained. So the model needs no other
forward or backward, and a trained adapter is merged by keeping the sum. The gradient of the sum is the one of w, from
which those of a and b follow.

I, O in and out   R rank
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .params import MLP, Attn, Block, Linear

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # the matrices of a block


class Adapter(NamedTuple):
    """Hold the two factors of the change of a matrix"""

    a: Any  # (I, R)
    b: Any  # (R, O)


def lora(w, a, b, scale):
    """y = w + scale a b                          w, y (I,O)     a (I,R)     b (R,O)"""
    y = w + scale * (a @ b)                                              # (I,O)
    return y, (a, b, scale)


def lora_backward(dy, saved):
    """dw = dy          da = scale dy bᵀ          db = scale aᵀ dy"""
    a, b, scale = saved
    dw = dy                                                              # (I,O)
    da = scale * (dy @ b.mT)                                             # (I,R)
    db = scale * (a.mT @ dy)                                             # (R,O)
    return dw, da, db


def adapt_linear(p, adapter, scale):
    """Return the Linear p with an adapted w, or p itself if it has no adapter"""
    if adapter is None:
        return p, None
    w, s_lora = lora(p.w, *adapter, scale)                               # (I,O)
    return Linear(w, p.b), s_lora


def adapt_linear_backward(dy, saved):
    """Return the gradients of the adapter, or None if there is none"""
    s_lora = saved
    if s_lora is None:
        return None
    _, *dadapter = lora_backward(dy.w, s_lora)
    return Adapter(*dadapter)


def adapt(h, adapters, scale):
    """Return the blocks h, in which each matrix w that has an adapter is w + scale a b

    adapters is a list of Block like h, with an Adapter or None for each Linear, and None for each LayerNorm.
    """
    adapted, saved = [], []
    for p, r in zip(h, adapters, strict=True):
        c_attn, s_c_attn = adapt_linear(p.attn.c_attn, r.attn.c_attn, scale)
        attn_proj, s_attn_proj = adapt_linear(p.attn.c_proj, r.attn.c_proj, scale)
        c_fc, s_c_fc = adapt_linear(p.mlp.c_fc, r.mlp.c_fc, scale)
        mlp_proj, s_mlp_proj = adapt_linear(p.mlp.c_proj, r.mlp.c_proj, scale)
        adapted.append(Block(p.ln_1, Attn(c_attn, attn_proj), p.ln_2, MLP(c_fc, mlp_proj)))
        saved.append((s_c_attn, s_attn_proj, s_c_fc, s_mlp_proj))
    return adapted, saved


def adapt_backward(dh, saved):
    """Return the gradients of the adapters; dh are the gradients of the adapted blocks"""
    d_adapters = []
    for d, (s_c_attn, s_attn_proj, s_c_fc, s_mlp_proj) in zip(dh, saved, strict=True):
        d_attn = Attn(
            adapt_linear_backward(d.attn.c_attn, s_c_attn), adapt_linear_backward(d.attn.c_proj, s_attn_proj)
        )
        d_mlp = MLP(adapt_linear_backward(d.mlp.c_fc, s_c_fc), adapt_linear_backward(d.mlp.c_proj, s_mlp_proj))
        d_adapters.append(Block(None, d_attn, None, d_mlp))
    return d_adapters


def new_adapters(config, rank, targets=TARGETS, first=0, seed=0):
    """Return float32 adapters of the matrices `targets` in the blocks from number `first`

    b is 0, so that the adapted model starts equal to the model. a is uniform from -1 / sqrt(I) to 1 / sqrt(I), as in
    PEFT.
    """
    rng = np.random.default_rng(seed)
    C = config.n_embd
    sizes = {"attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "mlp.c_fc": (C, 4 * C), "mlp.c_proj": (4 * C, C)}

    def adapter(block, name):
        if block < first or name not in targets:
            return None
        i, o = sizes[name]
        return Adapter(((2 * rng.random((i, rank)) - 1) / math.sqrt(i)).astype(np.float32), np.zeros((rank, o), np.float32))

    return [
        Block(None, Attn(*(adapter(i, n) for n in TARGETS[:2])), None, MLP(*(adapter(i, n) for n in TARGETS[2:])))
        for i in range(config.n_layer)
    ]
