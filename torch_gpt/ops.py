"""The operations of numpy_gpt/ops.py as PyTorch has them: its own kernels, so that no mistake is shared, and autograd.

B batch   T queries   S keys (past + T)   C width   H heads   D = C/H   V vocabulary   N context   I, O in and out
"""

import torch.nn.functional as F


def linear(x, w, b=None):
    """y = x w + b                                x (B,T,I)   w (I,O)   b (O,)   ->   y (B,T,O)"""
    return F.linear(x, w.mT, b)


def layernorm(x, g, b, eps=1e-5):
    """n = (x - mean x) / sqrt(var x + eps)       y = g n + b              moments over the last axis"""
    return F.layer_norm(x, g.shape, g, b, eps)


def gelu(x):
    """u = sqrt(2/π) (x + 0.044715 x³)            t = tanh u               y = x/2 (1 + t)"""
    return F.gelu(x, approximate="tanh")


def softmax(s):
    """p_i = exp s_i / Σ_j exp s_j                over the last axis"""
    return F.softmax(s, -1)


def dropout(x, rate, noise):
    """y = x keep / (1 - rate)                    keep is 0 with probability rate; without noise, y = x

    F.dropout draws by itself and differently on every device; here the reference's bytes decide.
    """
    drop = round(256 * rate)
    if noise is None or drop == 0:
        return x
    keep = noise.bytes(x.shape, x.device) >= drop     # as x
    scale = 256 / (256 - drop)
    return x * keep * scale
