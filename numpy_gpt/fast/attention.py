"""Compute the attention pair of ops.py in tiles of QUERIES queries.

It is faster because a tile needs no key after its last query, its scores stay in the L2 cache, and threads share the
tiles.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .. import ops
from .threads import side_by_side

QUERIES = 64  # in a tile


class TileNoise(NamedTuple):
    """Hold the noise of a tile; ops.dropout calls its method bytes, as it calls that of a Noise"""

    drawn: np.ndarray  # the tile's part of the bytes of all queries

    def bytes(self, shape):
        """Return the bytes of the tile's probabilities, which have this shape"""
        return self.drawn


def each_tile(f, q, k, v, noise=None):
    """Return f(q, k, v, noise) for each tile of queries and the keys up to its last query"""
    T, S = q.shape[2], k.shape[2]
    drawn = None if noise is None else noise.bytes((*q.shape[:3], S))  # (B,H,T,S)  one stream for all tiles

    def tile(t):
        queries, keys = slice(t, t + QUERIES), slice(S - T + t + QUERIES)
        part = None if drawn is None else TileNoise(drawn[:, :, queries, keys])
        return f(q[:, :, queries], k[:, :, keys], v[:, :, keys], noise=part)

    return side_by_side(tile, range(0, T, QUERIES))


def attention(q, k, v, rate=0.0, noise=None):
    """Return y (B,H,T,D) of ops.attention and the saved values of all tiles"""
    ys, tiles = zip(*each_tile(partial(ops.attention, rate=rate), q, k, v, noise if rate else None), strict=True)
    return np.concatenate(ys, 2), (tiles, k, v)


def attention_backward(dy, saved):
    """Return dq, dk, dv of ops.attention; the gradients of a key or value from several tiles are added"""
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
    """Return y (B,H,T,D) of ops.attention without saving anything"""
    return np.concatenate(each_tile(lambda *qkv, noise: ops.attention(*qkv)[0], q, k, v), 2)
