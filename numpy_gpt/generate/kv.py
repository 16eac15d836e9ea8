"""The keys and values that one layer has seen: a new token attends to them, and nothing is computed twice.

One KV is for a group of sequences of one length, so that nothing is padded; a batch of prompts has one for each length.
"""

from typing import NamedTuple

import numpy as np

from ..fast.attention import attend
from ..model import merge_heads, split_qkv


class KV:
    def __init__(self, B, H, N, D, dtype=np.float32):
        self.k = np.empty((B, H, N, D), dtype)
        self.v = np.empty((B, H, N, D), dtype)
        self.length = 0

    def append(self, k, v):
        """k, v (B,H,T,D) of the new tokens -> (B,H,S,D) of all so far, as views: nothing that was there is copied"""
        start, self.length = self.length, self.length + k.shape[2]
        self.k[:, :, start : self.length] = k
        self.v[:, :, start : self.length] = v
        return self.k[:, :, : self.length], self.v[:, :, : self.length]

    def attend(self, qkv):
        """Return what attention gives for new positions: qkv (B,T,3C) -> (B,T,C)"""
        q, k, v = split_qkv(qkv, self.k.shape[1])  # (B,H,T,D)
        k, v = self.append(k, v)  # (B,H,S,D)
        return merge_heads(attend(q, k, v))

    def take(self, sequences):
        """Copies of these sequences, in this order: one that is done is left out, one may be there twice"""
        _, H, N, D = self.k.shape
        taken = KV(len(sequences), H, N, D, self.k.dtype)
        taken.append(self.k[sequences, :, : self.length], self.v[sequences, :, : self.length])
        return taken


def new_kv(config, dtype=np.float32, B=1, N=None):
    """One KV a layer, with room for N positions, or the whole context"""
    D = config.n_embd // config.n_head
    return [KV(B, config.n_head, N or config.n_ctx, D, dtype) for _ in range(config.n_layer)]


class Groups(NamedTuple):
    """The kvs of several groups in one layer, whose new positions stand in one row"""

    kvs: list[KV]
    rows: list[slice]  # of each group in the row

    def attend(self, qkv):
        """qkv (1,R,3C) -> (1,R,C)"""
        ctx = []
        for kv, rows in zip(self.kvs, self.rows, strict=True):
            new = qkv[:, rows].reshape(len(kv.k), -1, qkv.shape[-1])  # (B,T,3C)
            ctx.append(kv.attend(new).reshape(1, -1, qkv.shape[-1] // 3))
        return np.concatenate(ctx, 1)
