"""Compute the operations of numpy_gpt/ops.py by PyTorch's own kernels. Autograd computes the backward.

Copies of the reference's formulas would share its mistakes, so they couldn't confirm its results.

B batch   T queries   S keys (past + T)   C width   H heads   D = C/H   V vocabulary   N context   I, O in and out
"""

import math

import torch
import torch.nn.functional as F


def linear(x, w, b=None):
    """y = x w + b                                x (B,T,I)   w (I,O)   b (O,)   ->   y (B,T,O)"""
    return F.linear(x, w.mT, b)


def layernorm(x, g, b, eps=1e-5):
    """n = (x - mean x) / sqrt(var x + eps)       y = g n + b              moments over the last axis

    If the variance overflows, 1 / sqrt(inf) = 0, and the kernel returns b. This function returns NaN instead.
    """
    y, _, rstd = torch.native_layer_norm(x, g.shape, g, b, eps)      # F.layer_norm's kernel
    return y.masked_fill(rstd == 0, math.nan)


def gelu(x):
    """u = sqrt(2/π) (x + 0.044715 x³)            t = tanh u               y = x/2 (1 + t)"""
    return F.gelu(x, approximate="tanh")


def softmax(s):
    """p_i = exp s_i / Σ_j exp s_j                over the last axis"""
    return F.softmax(s, -1)


def dropout(x, rate, noise):
    """y = x keep / (1 - rate)                    keep is 0 with probability rate; without noise, y = x

    F.dropout draws other numbers on each device. This function uses the same random bytes as numpy_gpt.
    """
    drop = round(256 * rate)
    if noise is None or drop == 0:
        return x
    keep = noise.bytes(x.shape, x.device) >= drop     # x's shape
    scale = 256 / (256 - drop)
    return x * keep * scale


def attention(q, k, v, rate=0.0, noise=None, mask=None):
    """
    s = q kᵀ / sqrt(D)      p = softmax(s where allowed)      y = dropout(p) v
    q, y (B,H,T,D)      k, v (B,H,S,D)      s, p (B,H,T,S)

    PyTorch's is_causal aligns the mask to the upper left, which is right only if T = S. Otherwise the kernel gets an
    explicit mask. If the kv has a fixed size, mask (B,1,T,S) replaces the causal mask, and there is no dropout. The
    kernel can't use given dropout bytes, so with dropout the formula is written out.
    """
    if mask is not None:
        return F.scaled_dot_product_attention(q, k, v, mask)
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    causal = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if noise is None or rate == 0:
        return F.scaled_dot_product_attention(q, k, v, None if T in (1, S) else causal, is_causal=T == S)
    s = q @ k.mT / math.sqrt(D)                       # (B,H,T,S)
    p = softmax(s.masked_fill(~causal, -math.inf))      # (B,H,T,S)
    return dropout(p, rate, noise) @ v                # (B,H,T,D)


def embedding(tokens, wte, wpe, positions=None):
    """x = wte[token] + wpe[position]             tokens (B,T) ints, positions (T,), or 0 to T - 1  ->  x (B,T,C)"""
    if positions is None:
        positions = torch.arange(tokens.shape[1], device=wpe.device)
    return F.embedding(tokens, wte) + F.embedding(positions, wpe)


def unembedding(x, w):
    """z = x wᵀ                                   x (B,T,C)   w (V,C), wte if tied   ->   logits z (B,T,V)"""
    return F.linear(x, w)


def cross_entropy(z, targets):
    """loss = mean( log Σ exp z - z[target] )     z (B,T,V)   targets (B,T) ints   ->   a scalar"""
    return F.cross_entropy(z.flatten(0, 1), targets.flatten())
