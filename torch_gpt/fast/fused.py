"""Run PyTorch's fused AdamW on the tree of parameters: one or two kernels for many leaves.

torch_gpt/adamw.py needs a dozen kernels for each leaf.
"""

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from numpy_gpt.adamw import Moments
from numpy_gpt.params import named, tree_map


class Fused:
    """Update the parameters and moments of a run in place"""

    def __init__(self, params, moments, options):
        s = options
        self.leaves = [p for _, p in named(params)]
        self.moments = Moments(*(tree_map(distribute_like, tree, params) for tree in moments))
        groups = [
            {"params": [p for p in self.leaves if p.ndim == 2], "weight_decay": s.weight_decay},
            {"params": [p for p in self.leaves if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(s.beta1, s.beta2), eps=s.eps, fused=True)
        self.initialised = False

    def set_state(self, t):
        """Give PyTorch's optimiser the state after step t - 1"""
        leaves = zip(self.leaves, named(self.moments.m), named(self.moments.v), strict=True)
        for p, (_, m), (_, v) in leaves:
            self.adam.state[p] = {"step": torch.tensor(t - 1.0, device=p.device), "exp_avg": m, "exp_avg_sq": v}
        self.initialised = True

    def step(self, t, lr, max_norm):
        """Take step t, and return the gradient's norm before clipping, as a tensor that the GPU may still compute"""
        if not self.initialised:
            self.set_state(t)
        norm = torch.nn.utils.clip_grad_norm_(self.leaves, max_norm)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def distribute_like(a, p):
    """Shard a tensor like the parameter p, if p is sharded"""
    return distribute_tensor(a, p.device_mesh, p.placements) if isinstance(p, DTensor) else a
