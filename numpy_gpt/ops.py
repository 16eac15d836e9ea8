"""The operations of GPT-2, each next to the backward that is derived from it.

    y, saved = op(x, ...)               forward: the value, and what the backward will read
    dx, ...  = op_backward(dy, saved)   backward: one gradient per array argument, in argument order

The contract, to which tests/test_contract.py holds every pair:

1. saved holds exactly what the backward reads, and is unpacked on its first line under the same names.
2. A backward returns one gradient per floating-point array argument, in order, of its shape and dtype (None for None).
3. dv is dloss/dv for the forward's v, and a backward assigns nothing else (du_dx is a local derivative).
4. Nothing is written to: no argument, no dy, no saved. One exception, named: `out` of embedding_backward.
5. float32 stays float32 and float64 stays float64: the same code in float64 is the truth.

B batch   T queries   S keys (past + T)   C width   H heads   D = C/H   V vocabulary   N context   I, O in and out
"""

import math

import numpy as np


def rows(a):
    """(..., C) -> (rows, C): one matrix product for the whole batch is faster than one per sequence"""
    return a.reshape(-1, a.shape[-1])


def sum_rows(a):
    """Σ over all axes but the last, as ones @ a: faster than .sum((0, 1)), and 3-4 times more accurate in float32"""
    a = rows(a)
    return np.ones(len(a), a.dtype) @ a


def linear(x, w, b=None):
    """y = x w + b                                x (B,T,I)   w (I,O)   b (O,)   ->   y (B,T,O)"""
    y = rows(x) @ w                                   # (BT,O)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:-1], -1), (x, w, b)


def linear_backward(dy, saved):
    """dx = dy wᵀ      dw = xᵀ dy      db = Σ dy            sums run over batch and time"""
    x, w, b = saved
    dx = (rows(dy) @ w.mT).reshape(x.shape)           # (B,T,I)
    dw = rows(x).mT @ rows(dy)                        # (I,O)
    db = None if b is None else sum_rows(dy)          # (O,)
    return dx, dw, db


def layernorm(x, g, b, eps=1e-5):
    """n = (x - mean x) / sqrt(var x + eps)       y = g n + b              moments over the last axis"""
    C = x.shape[-1]
    mean = x.sum(-1, keepdims=True) / C               # (B,T,1)  .mean(): the same bits, half as fast on one token
    centred = x - mean                                # (B,T,C)
    var = (centred ** 2).sum(-1, keepdims=True) / C   # (B,T,1)  biased
    rstd = 1 / np.sqrt(var + eps)                     # (B,T,1)
    n = centred * rstd                                # (B,T,C)
    y = n * g + b                                     # (B,T,C)
    return y, (n, rstd, g)


def layernorm_backward(dy, saved):
    """
    dg = Σ dy n        db = Σ dy        dn = g dy
    dx = rstd (dn - mean dn - n mean(dn n))

    Moving x also moves its mean and variance: the two subtracted terms.
    """
    n, rstd, g = saved
    dg = sum_rows(dy * n)                             # (C,)
    db = sum_rows(dy)                                 # (C,)
    dn = dy * g                                       # (B,T,C)
    dx = rstd * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))        # (B,T,C)
    return dx, dg, db


SQRT_2_OVER_PI = math.sqrt(2 / math.pi)               # a Python float: np.sqrt's would turn float32 into float64


def gelu(x):
    """u = sqrt(2/π) (x + 0.044715 x³)            t = tanh u               y = x/2 (1 + t)"""
    u = SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))          # x's shape; x ** 3 takes 100 times as long
    t = np.tanh(u)
    y = x / 2 * (1 + t)
    return y, (x, t)


def gelu_backward(dy, saved):
    """dx = dy ( (1 + t)/2 + x/2 (1 - t²) du/dx )          du/dx = sqrt(2/π) (1 + 3 · 0.044715 x²)"""
    x, t = saved
    du_dx = SQRT_2_OVER_PI * (1 + 3 * 0.044715 * (x * x))
    dx = dy * ((1 + t) / 2 + x / 2 * (1 - t * t) * du_dx)
    return (dx,)


def softmax(s):
    """p_i = exp s_i / Σ_j exp s_j                over the last axis; s - max s keeps exp from overflowing"""
    e = np.exp(s - s.max(-1, keepdims=True))          # s's shape
    p = e / e.sum(-1, keepdims=True)                  # s's shape
    return p, (p,)


def softmax_backward(dp, saved):
    """ds = p (dp - Σ p dp)                       p sums to 1: raising one p_i lowers the others"""
    (p,) = saved
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))   # s's shape
    return (ds,)


def dropout(x, rate, noise):
    """y = x keep / (1 - rate)                    keep is 0 with probability rate; without noise, y = x

    One random byte decides for each number, so rate is rounded to 256ths.
    """
    drop = round(256 * rate)
    if noise is None or drop == 0:
        return x, (None, None)
    keep = noise.bytes(x.shape) >= drop               # x's shape
    scale = 256 / (256 - drop)
    y = x * keep * scale
    return y, (keep, scale)


def dropout_backward(dy, saved):
    """dx = dy keep / (1 - rate)"""
    keep, scale = saved
    dx = dy if keep is None else dy * keep * scale
    return (dx,)


def attention(q, k, v, rate=0.0, noise=None):
    """
    s = q kᵀ / sqrt(D)      p = softmax(s where allowed)      y = dropout(p) v
    q, y (B,H,T,D)      k, v (B,H,S,D)      s, p (B,H,T,S)

    Query t stands at position S - T + t and sees the keys up to it: one mask for training (S = T) and decoding (T = 1).
    """
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    s = q @ k.mT / math.sqrt(D)                       # (B,H,T,S)
    if T > 1:                                         # one query may see all keys
        s += np.triu(np.full((T, S), -np.inf, s.dtype), S - T + 1)
    p, s_softmax = softmax(s)                         # (B,H,T,S)
    p_drop, s_dropout = dropout(p, rate, noise)       # (B,H,T,S)
    y = p_drop @ v                                    # (B,H,T,D)
    return y, (q, k, v, p_drop, s_softmax, s_dropout)


def attention_backward(dy, saved):
    """
    dv = dropout(p)ᵀ dy      dp = (dy vᵀ) keep / (1 - rate)      ds = p (dp - Σ p dp)
    dq = ds k / sqrt(D)      dk = dsᵀ q / sqrt(D)

    A masked score has p = 0, so its ds is 0: the mask needs no backward.
    """
    q, k, v, p_drop, s_softmax, s_dropout = saved
    dv = p_drop.mT @ dy                               # (B,H,S,D)
    dp_drop = dy @ v.mT                               # (B,H,T,S)
    (dp,) = dropout_backward(dp_drop, s_dropout)      # (B,H,T,S)
    (ds,) = softmax_backward(dp, s_softmax)           # (B,H,T,S)
    dq = ds @ k / math.sqrt(q.shape[-1])              # (B,H,T,D)
    dk = ds.mT @ q / math.sqrt(q.shape[-1])           # (B,H,S,D)
    return dq, dk, dv


def embedding(tokens, wte, wpe, positions=None):
    """x = wte[token] + wpe[position]             tokens (B,T) ints, positions (T,), or 0 to T - 1  ->  x (B,T,C)"""
    if positions is None:
        positions = np.arange(tokens.shape[1])
    x = wte[tokens] + wpe[positions]                  # (B,T,C)
    return x, (tokens, wte, wpe, positions)


def embedding_backward(dx, saved, out=None):
    """dwte[token] = Σ dx over its occurrences    dwpe[position] = Σ dx over its occurrences

    A token may occur twice, and dwte[tokens] += dx would add only one of its rows. np.add.at would add all of them, but
    takes 10 times as long as a loop. With a tied head, `out` is the head's part of dwte: the embedding's part is added.
    """
    tokens, wte, wpe, positions = saved
    dwte = np.zeros_like(wte) if out is None else out # (V,C)
    for token, dx_row in zip(tokens.ravel(), rows(dx), strict=True):
        dwte[token] += dx_row
    dwpe = np.zeros_like(wpe)                         # (N,C)
    for position, dx_row in zip(positions, dx.sum(0), strict=True):
        dwpe[position] += dx_row
    return dwte, dwpe


def unembedding(x, w):
    """z = x wᵀ                                   x (B,T,C)   w (V,C), wte itself where tied   ->   logits z (B,T,V)"""
    z = rows(x) @ w.mT                                # (BT,V)
    return z.reshape(*x.shape[:-1], -1), (x, w)


def unembedding_backward(dz, saved):
    """dx = dz w       dw = dzᵀ x"""
    x, w = saved
    dx = (rows(dz) @ w).reshape(x.shape)              # (B,T,C)
    dw = rows(dz).mT @ rows(x)                        # (V,C)
    return dx, dw


def cross_entropy(z, targets):
    """loss = mean( log Σ exp z - z[target] )     z (B,T,V)   targets (B,T) ints   ->   a scalar"""
    top = z.max(-1, keepdims=True)                    # (B,T,1)
    e = np.exp(z - top)                               # (B,T,V)
    total = e.sum(-1, keepdims=True)                  # (B,T,1)
    p = e / total                                     # (B,T,V)
    z_target = np.take_along_axis(z, targets[..., None], -1)   # (B,T,1)
    loss = (np.log(total) - (z_target - top)).mean()
    return loss, (p, targets)


def cross_entropy_backward(dloss, saved):
    """dz = dloss (p - onehot(target)) / (B T)    p = softmax z"""
    p, targets = saved
    dz = p.copy()                                     # (B,T,V)
    dz[*np.indices(targets.shape), targets] -= 1
    dz *= dloss / targets.size
    return (dz,)
