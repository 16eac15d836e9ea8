"""Run one step of decoding: from the new tokens of several groups to the logits after each sequence."""

import torch

from numpy_gpt.checks import check_kv
from numpy_gpt.generate.step import one_row

from ..model import block
from ..ops import embedding, layernorm, unembedding
from .kv import Groups


@torch.no_grad()
def gpt2_next(groups, p, config, kv):
    """Return the logits (ΣB,V) after the last token of each sequence; append the new tokens to the groups' kvs

    groups: the new tokens (B,T) of each group; kv: the kv of each group. All new tokens are side by side in one row of
    R = Σ B T and share the matmuls with the weights.
    """
    x, last = read(groups, p, config, kv)
    return head(x[:, last], p)


@torch.no_grad()
def gpt2_all(tokens, p, config, kv):
    """Return the logits (T,V) after each of the new tokens (1,T) of one sequence; append the tokens to its kv"""
    x, _ = read([tokens], p, config, [kv])
    return head(x, p)


def read(groups, p, config, kv):
    """Run the blocks on the new tokens: return x (1,R,C), and the index of each sequence's last token in the row"""
    check_kv(kv, groups, p)
    tokens, positions, rows, last = one_row(groups, [past[0].length for past in kv])
    tokens, positions = (torch.from_numpy(a).to(p.wte.device) for a in (tokens, positions))
    x = embedding(tokens, p.wte, p.wpe, positions)  # (1,R,C)
    for p_i, *kv_i in zip(p.h, *kv, strict=True):
        x = block(x, p_i, config, Groups(kv_i, rows))
    return x, last


def head(x, p):
    """Return the logits (R,V) of x (1,R,C), the output of the last block"""
    n = layernorm(x, *p.ln_f)  # (1,R,C)
    return unembedding(n, p.wte if p.head is None else p.head.w)[0]  # (R,V)
