"""Classify texts by the residual stream of their last tokens, through a head with one row for each class.

The texts of a batch are padded on the right. A token attends only to itself and to tokens before it, so the logits are
independent of padding. The pair keeps the contract of ops.py.

B texts   T tokens   C width   K classes
"""

import numpy as np

from .model import block, block_backward
from .ops import layernorm, layernorm_backward, unembedding, unembedding_backward
from .params import Block, Head, LayerNorm


def classifier(x, last, h, ln_f, head, config, noise=None):
    """
    y = h(x), one block after the other           z = ln_f(y[last]) wᵀ
    x, y (B,T,C)      last (B,) ints, the position of each text's last token      w (K,C)      logits z (B,K)

    x is the residual stream before the first block of h. h can be all blocks of a model, its last ones, or none. If h
    begins with block i of the model, noise.at(1 + 3 * i) has the dropout masks of gpt2.
    """
    s_h = []
    for i, p_i in enumerate(h):
        x, s_i = block(x, p_i, config, None, noise and noise.at(3 * i))  # (B,T,C)
        s_h.append(s_i)
    x_last = x[np.arange(len(x)), last]                                  # (B,C)
    n, s_ln_f = layernorm(x_last, *ln_f)                                 # (B,C)
    z, s_head = unembedding(n, head.w)                                   # (B,K)
    return z, (s_h, s_ln_f, s_head, x.shape, last)


def classifier_backward(dz, saved):
    """Return dx and the gradients of h, ln_f and head; the last block's result has a gradient at last tokens alone"""
    s_h, s_ln_f, s_head, shape, last = saved
    dn, dw = unembedding_backward(dz, s_head)                            # (B,C), (K,C)
    dx_last, *d_ln_f = layernorm_backward(dn, s_ln_f)                    # (B,C)
    dx = np.zeros(shape, dz.dtype)                                       # (B,T,C)
    dx[np.arange(len(dx)), last] = dx_last
    d_h: list[Block] = []
    for s_i in reversed(s_h):
        dx, d_i = block_backward(dx, s_i)                                # (B,T,C)
        d_h.insert(0, d_i)
    return dx, d_h, LayerNorm(*d_ln_f), Head(dw)
