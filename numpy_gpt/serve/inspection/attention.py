"""Compute attention probabilities: small images of all heads, one head row by row, and the numbers of one query.

An image has a byte for each probability p: round(255 sqrt p). The root makes small probabilities visible.
"""

import math

import numpy as np

from ... import ops
from .numbers import encode

SIZE = 32  # pixels on a side of a small image, at most


def answer_attention(request):
    """Return a small image of every head, in which a pixel is the maximum of a square of probabilities"""
    config, T = request.m.config, len(request.ids)
    span = math.ceil(T / SIZE)
    images = [
        shrink(probabilities(request.tensors, layer, head, 0, T), span)
        for layer in range(config.n_layer)
        for head in range(config.n_head)
    ]
    return {
        "layers": config.n_layer,
        "heads": config.n_head,
        "size": math.ceil(T / span),
        "span": span,
        "thumbnails": encode(to_bytes(np.stack(images)), np.uint8),
    }


def answer_head(request):
    """Return the rows of one head as bytes: `count` queries from the query `first` on, each with T keys"""
    layer, head, T = request.layer(), request.head(), len(request.ids)
    first = request.whole("first", 0, T - 1, default=0)
    count = request.whole("count", 1, T - first, default=T - first)
    p = probabilities(request.tensors, layer, head, first, count)  # (count, first + count)
    return to_bytes(np.pad(p, ((0, 0), (0, T - first - count)))).tobytes()


def answer_row(request):
    """Return the probabilities with which one query attends to the positions up to its own"""
    layer, head, position = request.layer(), request.head(), request.position()
    (p,) = probabilities(request.tensors, layer, head, position, 1)
    return {"probabilities": p.tolist()}


def probabilities(tensors, layer, head, first, count):
    """Return p (count, first + count) of a head for `count` queries from `first` on, and the keys up to the last one"""
    q, k, v = (tensors[f"h.{layer}.attn.{name}"][None, head : head + 1] for name in "qkv")  # (1,1,T,D)
    keys = slice(first + count)
    _, (_, _, _, p, *_) = ops.attention(q[:, :, first : first + count], k[:, :, keys], v[:, :, keys])
    return p[0, 0]


def shrink(p, span):
    """Return the maximum of each square of span x span numbers: (T,T) -> (ceil(T/span), ceil(T/span))"""
    starts = np.arange(0, len(p), span)
    return np.maximum.reduceat(np.maximum.reduceat(p, starts, 0), starts, 1)


def to_bytes(p):
    """Return round(255 sqrt p)"""
    return np.rint(255 * np.sqrt(p)).astype(np.uint8)
