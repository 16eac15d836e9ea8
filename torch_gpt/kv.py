"""The keys and values that one layer has seen: a new token attends to them, and nothing is computed twice."""

import torch


class KV:
    def __init__(self, B, H, N, D, dtype=torch.float32, device="cpu"):
        self.k = torch.empty((B, H, N, D), dtype=dtype, device=device)
        self.v = torch.empty((B, H, N, D), dtype=dtype, device=device)
        self.length = 0

    def append(self, k, v):
        """k, v (B,H,T,D) of the new tokens -> (B,H,S,D) of all so far, as views: nothing that was there is copied"""
        start, self.length = self.length, self.length + k.shape[2]
        self.k[:, :, start : self.length] = k
        self.v[:, :, start : self.length] = v
        return self.k[:, :, : self.length], self.v[:, :, : self.length]


def new_kv(config, B=1, dtype=torch.float32, device="cpu"):
    """One KV a layer, with room for the whole context"""
    D = config.n_embd // config.n_head
    return [KV(B, config.n_head, config.n_ctx, D, dtype, device) for _ in range(config.n_layer)]
