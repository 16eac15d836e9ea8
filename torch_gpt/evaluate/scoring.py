"""Score tokens: compute the log-probability of each, and whether it is the best token at its position."""

from functools import partial

import torch
import torch.nn.functional as F

from numpy_gpt.checks import check_finite

from ..generate.step import head
from ..language_model import check, on_device
from ..model import block
from ..ops import embedding
from ..params import explained_memory_errors

ROWS = 1024  # positions whose logits are in memory at a time: 200 MB in the 124M
REMEDY = "use a smaller model, --dtype bfloat16 or --device cpu."


def scorer(m):
    """Return score with its first argument m, which is checked"""
    check(m)
    return partial(score, m)


@torch.no_grad()
def score(m, tokens, positions, targets):
    """Return the log-probability of each target (R,), and whether it is the best token (R,), as NumPy arrays

    tokens (B,T); positions (R,): the index in the flattened tokens of the position before each target; targets (R,).
    """
    tokens, positions, targets = (on_device(a, m) for a in (tokens, positions, targets))
    found = []
    with explained_memory_errors(REMEDY):
        x = last_block(tokens, m.params, m.config).flatten(0, 1)[None, positions]  # (1,R,C)
        for rows in torch.arange(len(targets), device=targets.device).split(ROWS):
            logits = head(x[:, rows], m.params)
            check_finite("the output", logits, m.params, torch.isfinite)
            found.append(score_rows(logits, targets[rows]))
        logprobs, best = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return logprobs.double().numpy(), best.numpy()


def last_block(tokens, p, config):
    """Return the output (B,T,C) of the last block for tokens (B,T)"""
    x = embedding(tokens, p.wte, p.wpe)
    for p_i in p.h:
        x = block(x, p_i, config)
    return x


def score_rows(z, targets):
    """z[target] - log Σ exp z, and whether target = argmax z      z (R,V), targets (R,) -> two of (R,)"""
    dtype = torch.promote_types(z.dtype, torch.float32)  # bfloat16 would round the sum to 8 bits
    return -F.cross_entropy(z.to(dtype), targets, reduction="none"), z.argmax(-1) == targets
