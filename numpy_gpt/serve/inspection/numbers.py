"""Convert numbers for JSON, and logits to probabilities."""

import base64
import math

import numpy as np


def encode(a, dtype):
    """Return the numbers of an array as base64 of the little-endian dtype"""
    return base64.b64encode(np.asarray(a, np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def log_softmax(z):
    """log p_i = z_i - log Σ_j exp z_j            over the last axis, in float64"""
    z = z.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def rounded(answer):
    """Return an answer of dicts and lists in which floats have 6 significant digits, and inf and NaN are None"""
    if isinstance(answer, dict):
        return {name: rounded(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [rounded(value) for value in answer]
    if isinstance(answer, float):
        return float(f"{answer:.6g}") if math.isfinite(answer) else None
    return answer
