"""Find the number of rows from which a matmul's rows don't depend on the number of rows."""

import numpy as np

from ...params import GPT2

MOST = 64  # rows that are compared: no matmul of decoding has more
LARGE = 2**20  # numbers in a matrix that no BLAS treats as small


def min_rows(p: GPT2) -> int:
    """Return the least R for which R or more rows, up to MOST, give each row the same bits in every linear layer

    A BLAS library has other kernels for a single row, and some have others for small matrices, which add in another
    order. Decoding in at least R rows gives each sequence the logits that it gets alone.
    """
    layer = p.h[0]
    weights = (layer.attn.c_attn.w, layer.attn.c_proj.w, layer.mlp.c_fc.w, layer.mlp.c_proj.w)
    return max(map(min_rows_of, [*weights, (p.wte if p.head is None else p.head.w).mT]))


def min_rows_of(w: np.ndarray) -> int:
    """Return min_rows for one matrix w (I,O)"""
    if w.size >= LARGE:
        return 2
    x = np.random.default_rng(0).standard_normal((MOST, len(w))).astype(w.dtype)
    y = x @ w
    R = MOST
    while R > 2 and np.array_equal(x[1 - R :] @ w, y[1 - R :]):
        R -= 1
    return R
