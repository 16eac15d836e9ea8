"""Train a product of two narrow matrices instead of a matrix: low-rank adaptation, LoRA (Hu et al., 2021).

The model runs with w + scale a b in place of w, and only a and b are trained. So its forward and backward stay as they
are: the backward returns the gradient of the sum, from which lora_backward computes those of a and b. Keeping the sum
merges the adapter into plain weights.

The pairs keep the contract of ops.py with one exception: adapt and its parts return only the gradients of the adapters,
because the parameters of the model are fixed.

I, O in and out   R rank   C width
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .params import MLP, Attn, Block, Linear

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")       # the matrices of a block
FIXED: Any = None                                                        # in place of an adapter: not trained


class Adapter(NamedTuple):
    """w + scale a b"""

    a: Any                                                               # (I,R)
    b: Any                                                               # (R,O)


def lora(w, a, b, scale):
    """y = w + scale a b                          w, y (I,O)   a (I,R)   b (R,O)"""
    y = w + scale * (a @ b)                                              # (I,O)
    return y, (a, b, scale)


def lora_backward(dy, saved):
    """dw = dy         da = scale dy bᵀ         db = scale aᵀ dy"""
    a, b, scale = saved
    dw = dy                                                              # (I,O)
    da = scale * (dy @ b.mT)                                             # (I,R)
    db = scale * (a.mT @ dy)                                             # (R,O)
    return dw, da, db


def adapt_linear(p, adapter, scale):
    """Return the Linear p with w + scale a b as its w; return p itself if adapter is None"""
    if adapter is None:
        return p, (None,)
    w, s_lora = lora(p.w, adapter.a, adapter.b, scale)                   # (I,O)
    return Linear(w, p.b), (s_lora,)


def adapt_linear_backward(dy, saved):
    """Return the gradients of adapter, or None if it is None; dy is a Linear too"""
    (s_lora,) = saved
    if s_lora is None:
        return None
    da, db = lora_backward(dy.w, s_lora)[1:]                             # (I,R), (R,O)
    return Adapter(da, db)


def adapt_block(p, adapters, scale):
    """Return the Block p with its adapted matrices; adapters is a Block too"""
    c_attn, s_c_attn = adapt_linear(p.attn.c_attn, adapters.attn.c_attn, scale)
    attn_proj, s_attn_proj = adapt_linear(p.attn.c_proj, adapters.attn.c_proj, scale)
    c_fc, s_c_fc = adapt_linear(p.mlp.c_fc, adapters.mlp.c_fc, scale)
    mlp_proj, s_mlp_proj = adapt_linear(p.mlp.c_proj, adapters.mlp.c_proj, scale)
    y = Block(p.ln_1, Attn(c_attn, attn_proj), p.ln_2, MLP(c_fc, mlp_proj))
    return y, (s_c_attn, s_attn_proj, s_c_fc, s_mlp_proj)


def adapt_block_backward(dy, saved):
    """Return the gradients of adapters, a Block like it; dy is a Block too"""
    s_c_attn, s_attn_proj, s_c_fc, s_mlp_proj = saved
    d_mlp_proj = adapt_linear_backward(dy.mlp.c_proj, s_mlp_proj)
    d_c_fc = adapt_linear_backward(dy.mlp.c_fc, s_c_fc)
    d_attn_proj = adapt_linear_backward(dy.attn.c_proj, s_attn_proj)
    d_c_attn = adapt_linear_backward(dy.attn.c_attn, s_c_attn)
    return Block(FIXED, Attn(d_c_attn, d_attn_proj), FIXED, MLP(d_c_fc, d_mlp_proj))


def adapt(h, adapters, scale):
    """Return the blocks h with their adapted matrices

    adapters is a list of Block like h, with an Adapter or None for each Linear, and None for each LayerNorm.
    """
    y, s_h = [], []
    for p_i, adapters_i in zip(h, adapters, strict=True):
        y_i, s_i = adapt_block(p_i, adapters_i, scale)
        y.append(y_i)
        s_h.append(s_i)
    return y, (s_h,)


def adapt_backward(dy, saved):
    """Return the gradients of adapters, a list like it; dy are the gradients of the adapted blocks"""
    (s_h,) = saved
    return [adapt_block_backward(dy_i, s_i) for dy_i, s_i in zip(dy, s_h, strict=True)]


def new_adapters(config, rank, targets=TARGETS, first=0, seed=0):
    """Return a list of Block with float32 adapters of the matrices that targets names, from block number first on

    a is uniform from -1 / sqrt(I) to 1 / sqrt(I), and b is 0, as in PEFT. So the adapted model starts as the model.
    """
    rng = np.random.default_rng(seed)
    C = config.n_embd
    shapes = dict(zip(TARGETS, [(C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)], strict=True))

    def adapter(block, target):
        if block < first or target not in targets:
            return None
        I, O = shapes[target]
        limit = 1 / math.sqrt(I)
        a = rng.uniform(-limit, limit, (I, rank)).astype(np.float32)
        return Adapter(a, np.zeros((rank, O), np.float32))

    def block(i):
        c_attn, attn_proj, c_fc, mlp_proj = (adapter(i, target) for target in TARGETS)
        return Block(FIXED, Attn(c_attn, attn_proj), FIXED, MLP(c_fc, mlp_proj))

    return [block(i) for i in range(config.n_layer)]
