"""Define the operations of GPT-2, each next to its backward, written by hand.

    y, saved = op(x, ...)               forward: the result, and the values that the backward reads
    dx, ...  = op_backward(dy, saved)   backward: one gradient per array argument, in argument order

The contract of a pair, checked by tests/test_contract.py here and in model.py, classifier.py, masked_loss.py, lora.py:

1. saved contains exactly the values that the backward reads. The backward's first line unpacks them, under the same
   names as in the forward.
2. A backward returns one gradient per floating-point array argument, in argument order, with that argument's shape and
   dtype. The gradient of an absent argument (None) is None, and that of a tree of parameters is a tree of its types.
3. dv is dloss/dv for the forward's variable v. A backward assigns to such names alone, to each of them once. du_dx is a
   local derivative. (gpt2_backward and classifier_backward assign to dx once per block.)
4. No function writes to its arguments, to dy or to saved. There are two exceptions: embedding_backward adds to its
   argument out, and model.gpt2_backward removes the values of a block from saved after using them, to free memory.
5. float32 stays float32 and float64 stays float64. The same code in float64 is the reference for float32.

B batch   T queries   S keys (past + T)   C width   H heads   D = C/H   V vocabulary   N context   I, O in and out
"""

import math

import numpy as np


def rows(a):
    """Reshape (..., C) to (rows, C), since one matmul for the whole batch is faster than one per sequence"""
    return a.reshape(-1, a.shape[-1])


def sum_rows(a):
    """Σ a over all axes except the last

    ones @ a is faster than a.sum((0, 1)), and its float32 error is 3 to 4 times smaller.
    """
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
    mean = x.sum(-1, keepdims=True) / C               # (B,T,1)  same bits as .mean(), faster for a single token
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

    Changing x also changes its mean and variance, which gives the two subtracted terms.
    """
    n, rstd, g = saved
    dg = sum_rows(dy * n)                             # (C,)
    db = sum_rows(dy)                                 # (C,)
    dn = dy * g                                       # (B,T,C)
    dx = rstd * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))        # (B,T,C)
    return dx, dg, db


SQRT_2_OVER_PI = math.sqrt(2 / math.pi)               # a Python float: np.float64 would turn float32 into float64


def gelu(x):
    """u = sqrt(2/π) (x + 0.044715 x³)            t = tanh u               y = x/2 (1 + t)"""
    u = SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))          # x's shape; x ** 3 takes 100 times as long
    t = np.tanh(u)                                             # x's shape
    y = x / 2 * (1 + t)                                        # x's shape
    return y, (x, t)


def gelu_backward(dy, saved):
    """dx = dy ( (1 + t)/2 + x/2 (1 - t²) du/dx )          du/dx = sqrt(2/π) (1 + 3 · 0.044715 x²)"""
    x, t = saved
    du_dx = SQRT_2_OVER_PI * (1 + 3 * 0.044715 * (x * x))      # x's shape
    dx = dy * ((1 + t) / 2 + x / 2 * (1 - t * t) * du_dx)      # x's shape
    return (dx,)


def softmax(s):
    """p_i = exp s_i / Σ_j exp s_j                over the last axis; subtracting max s prevents overflow"""
    e = np.exp(s - s.max(-1, keepdims=True))          # s's shape
    p = e / e.sum(-1, keepdims=True)                  # s's shape
    return p, (p,)


def softmax_backward(dp, saved):
    """ds = p (dp - Σ p dp)                       p sums to 1, so raising one p_i lowers the others"""
    (p,) = saved
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))   # s's shape
    return (ds,)


def dropout(x, rate, noise):
    """y = x keep / (1 - rate)                    keep is 0 with probability rate; without noise, y = x

    Each number of x is kept or dropped by one random byte, so rate is rounded to a multiple of 1/256.
    """
    drop = round(256 * rate)
    if noise is None or drop == 0:
        return x, (None, None)
    keep = noise.bytes(x.shape) >= drop               # x's shape
    scale = 256 / (256 - drop)
    y = x * keep * scale                              # x's shape
    return y, (keep, scale)


def dropout_backward(dy, saved):
    """dx = dy keep / (1 - rate)"""
    keep, scale = saved
    dx = dy if keep is None else dy * keep * scale    # x's shape
    return (dx,)


def attention(q, k, v, rate=0.0, noise=None):
    """
    s = q kᵀ / sqrt(D)      p = softmax(s where allowed)      y = dropout(p) v
    q, y (B,H,T,D)      k, v (B,H,S,D)      s, p (B,H,T,S)

    Query t is at position S - T + t and attends to the keys up to that position. The same mask serves training, where
    S = T, and decoding, where T = 1.
    """
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    s = q @ k.mT / math.sqrt(D)                       # (B,H,T,S)
    if T > 1:                                         # a single query attends to all keys
        s += np.triu(np.full((T, S), -np.inf, s.dtype), S - T + 1)
    p, s_softmax = softmax(s)                         # (B,H,T,S)
    p_drop, s_dropout = dropout(p, rate, noise)       # (B,H,T,S)
    y = p_drop @ v                                    # (B,H,T,D)
    return y, (q, k, v, p_drop, s_softmax, s_dropout)


def attention_backward(dy, saved):
    """
    dv = dropout(p)ᵀ dy      dp = (dy vᵀ) keep / (1 - rate)      ds = p (dp - Σ p dp)
    dq = ds k / sqrt(D)      dk = dsᵀ q / sqrt(D)

    A masked score has p = 0, so its ds is 0, and the mask needs no backward.
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

    The rows are added in a loop because a token can occur more than once. dwte[tokens] += dx would add only one of its
    rows. np.add.at would add all of them, but takes 10 times as long. With a tied head, out is the head's gradient of
    wte, to which the embedding's gradient is added.
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
    """z = x wᵀ                                   x (B,T,C)   w (V,C), wte if tied   ->   logits z (B,T,V)"""
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
    loss = (np.log(total) - (z_target - top)).mean()  # scalar
    return loss, (p, targets)


def cross_entropy_backward(dloss, saved):
    """dz = dloss (p - onehot(target)) / (B T)    p = softmax z"""
    p, targets = saved
    dz = p.copy()                                     # (B,T,V)
    dz[*np.indices(targets.shape), targets] -= 1
    dz *= dloss / targets.size
    return (dz,)
