"""Classify texts: the blocks of GPT-2, and a head with a row for each class, on the last token of a text.

The texts of a batch are padded on the right. A token attends only to itself and to the tokens before it, so padding
doesn't change the logits.

B texts   T tokens   C width   K classes
"""

import numpy as np

from .model import block, block_backward
from .ops import layernorm, layernorm_backward, unembedding, unembedding_backward
from .params import Block, Head, LayerNorm


def classifier(x, last, h, ln_f, head, config, noise=None):
    """
    x = the blocks h of x                         z = ln_f(x[last]) wᵀ
    x (B,T,C)      last (B,), the position of each text's last token      w (K,C)      logits z (B,K)

    x is the residual stream before the first block of h. If only the last blocks are trained, the blocks before them
    compute x, and h are the trained ones.
    """
    s_h = []
    for i, p_i in enumerate(h):
        x, s_i = block(x, p_i, config, None, noise and noise.at(3 * i))  # (B,T,C)
        s_h.append(s_i)
    n, s_ln_f = layernorm(x[np.arange(len(x)), last], *ln_f)             # (B,C)
    z, s_head = unembedding(n, head.w)                                   # (B,K)
    return z, (s_h, s_ln_f, s_head, x.shape, last)


def classifier_backward(dz, saved):
    """Return dx and the gradients of h, ln_f and head; after the last block, only last tokens have a gradient"""
    s_h, s_ln_f, s_head, shape, last = saved
    dn, dw = unembedding_backward(dz, s_head)                            # (B,C), (K,C)
    dlast, *d_ln_f = layernorm_backward(dn, s_ln_f)                      # (B,C)
    dx = np.zeros(shape, dz.dtype)                                       # (B,T,C)
    dx[np.arange(len(dx)), last] = dlast
    d_h: list[Block] = []
    for s_i in reversed(s_h):
        dx, d_i = block_backward(dx, s_i)                                # (B,T,C)
        d_h.insert(0, d_i)
    return dx, d_h, LayerNorm(*d_ln_f), Head(dw)
