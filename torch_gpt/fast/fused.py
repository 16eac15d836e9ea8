"""PyTorch's fused AdamW over our tree, with our moments: a kernel or two where adamw.py has a dozen for every leaf."""

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from numpy_gpt.adamw import Moments
from numpy_gpt.params import named, tree_map


class Fused:
    def __init__(self, params, moments, settings):
        s = self.settings = settings
        self.leaves = [p for _, p in named(params)]
        self.moments = Moments(*(tree_map(beside, tree, params) for tree in moments))
        groups = [
            {"params": [p for p in self.leaves if p.ndim == 2], "weight_decay": s.weight_decay},
            {"params": [p for p in self.leaves if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(s.beta1, s.beta2), eps=s.eps, fused=True)
        self.begun = False

    def begin(self, t):
        """The optimiser's state as it is after step t - 1"""
        leaves = zip(self.leaves, named(self.moments.m), named(self.moments.v), strict=True)
        for p, (_, m), (_, v) in leaves:
            self.adam.state[p] = {"step": torch.tensor(t - 1.0, device=p.device), "exp_avg": m, "exp_avg_sq": v}
        self.begun = True

    def step(self, t, lr, max_norm):
        """-> the norm before it was clipped, as a tensor: nobody waits for it"""
        if not self.begun:
            self.begin(t)
        norm = torch.nn.utils.clip_grad_norm_(self.leaves, max_norm)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def beside(a, p):
    """Where p is sharded, so is a"""
    return distribute_tensor(a, p.device_mesh, p.placements) if isinstance(p, DTensor) else a
