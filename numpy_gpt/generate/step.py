"""Run one step of decoding: from the new tokens of several groups to the logits after each sequence."""

import numpy as np

from ..checks import check_kv
from ..model import block
from ..ops import embedding, layernorm, unembedding
from .kv import Groups


def gpt2_next(groups, p, config, kv):
    """Return the logits (ΣB,V) after the last token of each sequence; append the new tokens to the groups' kvs

    groups: the new tokens (B,T) of each group; kv: the kv of each group. All new tokens are side by side in one row of
    R = Σ B T and share the matmuls with the weights. Nothing is saved for a backward.
    """
    x, last = read(groups, p, config, kv)
    return head(x[:, last], p)


def gpt2_all(tokens, p, config, kv):
    """Return the logits (T,V) after each of the new tokens (1,T) of one sequence; append the tokens to its kv"""
    x, _ = read([tokens], p, config, [kv])
    return head(x, p)


def read(groups, p, config, kv):
    """Run the blocks on the new tokens: return x (1,R,C), and the index of each sequence's last token in the row"""
    check_kv(kv, groups, p)
    tokens, positions, rows, last = one_row(groups, [past[0].length for past in kv])
    x, _ = embedding(tokens, p.wte, p.wpe, positions)  # (1,R,C)
    for p_i, *kv_i in zip(p.h, *kv, strict=True):
        x = block(x, p_i, config, Groups(kv_i, rows))[0]  # a variable for saved would keep it in memory
    return x, last


def head(x, p):
    """Return the logits (R,V) of x (1,R,C), the output of the last block"""
    n, _ = layernorm(x, *p.ln_f)  # (1,R,C)
    logits, _ = unembedding(n, p.wte if p.head is None else p.head.w)  # (1,R,V)
    return logits[0]


def one_row(groups, starts):
    """Put the new tokens of all groups into one row of R = Σ B T

    groups: the new tokens (B,T) of each group; starts: the position of each group's first new token -> tokens (1,R),
    positions (R,), the slice of each group in the row, and the index of each sequence's last token in the row
    """
    positions, rows, last, R = [], [], [], 0
    for (B, T), start in zip((tokens.shape for tokens in groups), starts, strict=True):
        positions.append(np.tile(np.arange(start, start + T), B))
        rows.append(slice(R, R + B * T))
        last.append(np.arange(R + T - 1, R + B * T, T))
        R += B * T
    tokens = np.concatenate([tokens.ravel() for tokens in groups])
    return tokens[None], np.concatenate(positions), rows, np.concatenate(last)
