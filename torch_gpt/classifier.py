"""Classify texts by the residual stream of their last tokens, through a head with one row for each class.

The texts of a batch are padded on the right. A token attends only to itself and to tokens before it, so the logits are
independent of padding. Autograd computes the backward.

B texts   T tokens   C width   K classes
"""

import torch

from .model import block
from .ops import layernorm, unembedding


def classifier(x, last, h, ln_f, head, config, noise=None):
    """
    y = h(x), one block after the other           z = ln_f(y[last]) wᵀ
    x, y (B,T,C)      last (B,) ints, the position of each text's last token      w (K,C)      logits z (B,K)

    x is the residual stream before the first block of h. h can be all blocks of a model, its last ones, or none. If h
    begins with block i of the model, noise.at(1 + 3 * i) has the dropout masks of gpt2.
    """
    for i, p_i in enumerate(h):
        x = block(x, p_i, config, None, noise and noise.at(3 * i))       # (B,T,C)
    x_last = x[torch.arange(len(x), device=x.device), last]              # (B,C)
    n = layernorm(x_last, *ln_f)                                         # (B,C)
    z = unembedding(n, head.w)                                           # (B,K)
    return z
