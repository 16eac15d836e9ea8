"""The attention of ops.py, QUERIES queries at a time, with the same arguments and results

A tile of queries needs no key after its last query, its scores stay in the L2 cache, and threads share the tiles.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .. import ops
from .threads import side_by_side

QUERIES = 64  # in a tile


class Drawn(NamedTuple):
    """The part of a noise's bytes that belongs to one tile"""

    part: np.ndarray

    def bytes(self, shape):
        return self.part


def each_tile(f, q, k, v, noise=None):
    """Return f(q, k, v, noise) for each tile of queries and the keys that they may see"""
    T, S = q.shape[2], k.shape[2]
    drawn = None if noise is None else noise.bytes((*q.shape[:3], S))  # one stream for all queries

    def tile(t):
        queries, keys = slice(t, t + QUERIES), slice(S - T + t + QUERIES)
        part = None if drawn is None else Drawn(drawn[:, :, queries, keys])
        return f(q[:, :, queries], k[:, :, keys], v[:, :, keys], noise=part)

    return side_by_side(tile, range(0, T, QUERIES))


def attention(q, k, v, rate=0.0, noise=None):
    ys, tiles = zip(*each_tile(partial(ops.attention, rate=rate), q, k, v, noise if rate else None), strict=True)
    return np.concatenate(ys, 2), (tiles, k, v)


def attention_backward(dy, saved):
    """Several tiles see the same key: its gradients are added"""
    tiles, k, v = saved
    d_tiles = side_by_side(
        lambda i: ops.attention_backward(dy[:, :, i * QUERIES : (i + 1) * QUERIES], tiles[i]), range(len(tiles))
    )
    dk, dv = np.zeros_like(k), np.zeros_like(v)
    for _, dk_seen, dv_seen in d_tiles:
        dk[:, :, : dk_seen.shape[2]] += dk_seen
        dv[:, :, : dv_seen.shape[2]] += dv_seen
    return np.concatenate([dq for dq, _, _ in d_tiles], 2), dk, dv


def attend(q, k, v):
    """Return attention's y alone; nothing is saved for a backward"""
    return np.concatenate(each_tile(lambda *qkv, noise: ops.attention(*qkv)[0], q, k, v), 2)
