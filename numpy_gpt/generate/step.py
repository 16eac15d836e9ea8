"""One step of decoding: new tokens of several groups to the logits after each sequence."""

import numpy as np

from ..checks import check_kv
from ..model import block
from ..ops import embedding, layernorm, unembedding
from .kv import Groups


def gpt2_next(groups, p, config, kv):
    """groups of new tokens, each (B,T) ints and with its own kv -> logits (ΣB,V) after the last token of each sequence

    All of them stand in one row, R = Σ B T, and share the products with the weights. Nothing is saved.
    """
    check_kv(kv, groups, p)
    tokens, positions, rows, last = one_row(groups, [past[0].length for past in kv])
    x, _ = embedding(tokens, p.wte, p.wpe, positions)  # (1,R,C)
    for p_i, *kv_i in zip(p.h, *kv, strict=True):
        x = block(x, p_i, config, Groups(kv_i, rows))[0]  # a name for saved would keep it
    n, _ = layernorm(x[:, last], *p.ln_f)  # (1,ΣB,C)
    logits, _ = unembedding(n, p.wte if p.head is None else p.head.w)  # (1,ΣB,V)
    return logits[0]


def one_row(groups, starts):
    """
    groups of new tokens, each (B,T), and the position of each one's first -> tokens (1,R), positions (R,), for each
    group the slice of its rows, and of all the rows those that are the last of a sequence
    """
    positions, rows, last, R = [], [], [], 0
    for (B, T), start in zip((tokens.shape for tokens in groups), starts, strict=True):
        positions.append(np.tile(np.arange(start, start + T), B))
        rows.append(slice(R, R + B * T))
        last.append(np.arange(R + T - 1, R + B * T, T))
        R += B * T
    tokens = np.concatenate([tokens.ravel() for tokens in groups])
    return tokens[None], np.concatenate(positions), rows, np.concatenate(last)
