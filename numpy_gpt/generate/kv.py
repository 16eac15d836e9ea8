"""The keys and values that one layer has seen: a new token attends to them, and nothing is computed twice.

One KV is for a group of sequences of one length, so that nothing is padded; a batch of prompts has one for each length.
"""

import numpy as np


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


def one_row(groups, starts):
    """
    groups of new tokens, each (B,T), and the position of each one's first -> tokens (1,R), positions (R,), for each
    group the slice of its rows, and of all the rows those that are the last of a sequence
    """
    positions, rows, last, R = [], [], [], 0
    for (B, T), start in zip((tokens.shape for tokens in groups), starts, strict=True):
        positions.append(np.tile(np.arange(start, start + T), B))
        rows.append(slice(R, R + B * T))
        last.append(np.arange(R + T - 1, R + B * T, T))
        R += B * T
    tokens = np.concatenate([tokens.ravel() for tokens in groups])
    return tokens[None], np.concatenate(positions), rows, np.concatenate(last)
