"""The keys and values that one layer has seen: a new token attends to them, and nothing is computed twice."""

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


def new_kv(config, B=1, dtype=np.float32):
    """One KV a layer, with room for the whole context"""
    D = config.n_embd // config.n_head
    return [KV(B, config.n_head, config.n_ctx, D, dtype) for _ in range(config.n_layer)]
