"""Wrap the tree of parameters in modules, as DDP, FSDP2 and torch.compile need them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from numpy_gpt.params import named, tree_map

from ..model import block, gpt2
from ..ops import cross_entropy


class Leaves(nn.Module):
    """Hold the leaves of a tree as a module's parameters, which share the tensors' memory"""

    def __init__(self, tree):
        super().__init__()
        names = [name.replace(".", "_") for name, _ in named(tree)]
        for name, (_, leaf) in zip(names, named(tree), strict=True):
            self.register_parameter(name, nn.Parameter(leaf))
        remaining = iter(names)
        self.names = tree_map(lambda _: next(remaining), tree)

    def tree(self):
        """Return the tree of the current parameters: FSDP2 replaces them when it gathers or frees a layer"""
        return tree_map(lambda name: getattr(self, name), self.names)


class Layer(Leaves):
    """Hold a block's parameters, which FSDP2 gathers when the module is called"""

    def forward(self, x, config, noise, block):
        return block(x, self.tree(), config, None, noise)


class GPT(nn.Module):
    """Compute the loss of tokens and targets (B,T)"""

    block: Callable
    loss: Callable

    def __init__(self, m, checkpointing=False, sharded=False, compiled=lambda f: f):
        super().__init__()
        self.config, self.checkpointing, self.sharded = m.config, checkpointing, sharded
        self.layers = nn.ModuleList(Layer(p) for p in m.params.h)
        self.rest = Leaves(m.params._replace(h=[]))
        self.block = compiled(block) if sharded else block
        self.loss = loss if sharded else compiled(loss)

    def tree(self):
        layers: list[Any] = [*self.layers]
        return self.rest.tree()._replace(h=[layer.tree() for layer in layers])

    def forward(self, tokens, targets, noise=None, eager=False):
        block_function, loss_function = (block, loss) if eager else (self.block, self.loss)
        p, run = self.tree(), None
        if self.sharded:
            p, run = p._replace(h=list(self.layers)), partial(run_layer, block_function)
        return loss_function(tokens, targets, p, self.config, noise, self.checkpointing, run)


def run_layer(block, x, layer, config, kv, noise):
    """Call a block through its module, so that FSDP2 gathers the parameters first"""
    return layer(x, config, noise, block)


def loss(tokens, targets, p, config, noise, checkpointing, run):
    """Return the mean cross-entropy, without the logits of a padded vocabulary's additional ids"""
    logits = gpt2(tokens, p, config, noise, checkpointing, run)
    return cross_entropy(logits[..., : config.n_vocab], targets)


def shard(gpt, device, dtype):
    """Apply FSDP2: every process keeps a share of the weights, and gathers one layer at a time"""
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = mixed if dtype == torch.bfloat16 else MixedPrecisionPolicy()
    for layer in gpt.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(gpt, mesh=mesh, mp_policy=policy)
