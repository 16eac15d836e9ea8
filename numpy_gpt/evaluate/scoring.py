"""Score tokens: compute the log-probability of each, and whether it is the best token at its position."""

from functools import partial

import numpy as np

from ..checks import check_finite, check_model, no_overflow
from ..fast.turns import one_at_a_time
from ..generate.step import head
from ..model import block
from ..ops import embedding

ROWS = 256  # positions whose logits are in memory at a time: 50 MB in the 124M


def scorer(m):
    """Return score with its first argument m, which is checked"""
    check_model(m)
    return partial(score, m)


def score(m, tokens, positions, targets):
    """Return the log-probability of each target (R,), and whether it is the best token (R,)

    tokens (B,T); positions (R,): the index in the flattened tokens of the position before each target; targets (R,).
    """
    logprobs, best = np.empty(len(targets)), np.empty(len(targets), bool)
    with one_at_a_time(), no_overflow("the output", m.params):
        x = last_block(tokens, m.params, m.config)  # (B,T,C)
        x = x.reshape(1, -1, x.shape[-1])[:, positions]  # (1,R,C)
        for start in range(0, len(targets), ROWS):
            rows = slice(start, start + ROWS)
            logits = head(x[:, rows], m.params)
            check_finite("the output", logits, m.params)
            logprobs[rows], best[rows] = score_rows(logits, targets[rows])
    return logprobs, best


def last_block(tokens, p, config):
    """Return the output (B,T,C) of the last block for tokens (B,T)"""
    x, _ = embedding(tokens, p.wte, p.wpe)
    for p_i in p.h:
        x = block(x, p_i, config)[0]  # a variable for saved would keep it in memory
    return x


def score_rows(z, targets):
    """z[target] - log Σ exp z, and whether target = argmax z      z (R,V), targets (R,) -> two of (R,)"""
    top = z.max(-1, keepdims=True)  # (R,1)
    total = np.exp(z - top).sum(-1, dtype=np.float64)  # (R,)
    z_target = np.take_along_axis(z, targets[:, None], -1)  # (R,1)
    return (z_target - top)[:, 0] - np.log(total), z.argmax(-1) == targets
