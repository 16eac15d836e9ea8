"""The tree of parameters as modules, which DDP, FSDP2 and PyTorch's optimisers ask for."""

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
    """The leaves of a tree as parameters; the tensors stay where they are"""

    def __init__(self, tree):
        super().__init__()
        names = [name.replace(".", "_") for name, _ in named(tree)]
        for name, (_, leaf) in zip(names, named(tree), strict=True):
            self.register_parameter(name, nn.Parameter(leaf))
        following = iter(names)
        self.names = tree_map(lambda _: next(following), tree)

    def tree(self):
        """As it is now: FSDP2 puts other tensors in the place of those that it gathers"""
        return tree_map(lambda name: getattr(self, name), self.names)


class Layer(Leaves):
    """What FSDP2 gathers at a time: a block's parameters, when it is called"""

    def forward(self, x, config, noise, block):
        return block(x, self.tree(), config, None, noise)


class GPT(nn.Module):
    """tokens, targets (B,T) -> the loss"""

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
        inner, whole = (block, loss) if eager else (self.block, self.loss)
        p, run = self.tree(), None
        if self.sharded:
            p, run = p._replace(h=list(self.layers)), partial(gathered, inner)
        return whole(tokens, targets, p, self.config, noise, self.checkpointing, run)


def gathered(block, x, layer, config, kv, noise):
    return layer(x, config, noise, block)


def loss(tokens, targets, p, config, noise, checkpointing, run):
    """A padded vocabulary has logits of ids that don't exist"""
    logits = gpt2(tokens, p, config, noise, checkpointing, run)
    return cross_entropy(logits[..., : config.n_vocab], targets)


def shard(gpt, device, dtype):
    """FSDP2: every process keeps its share, and gathers a layer when it comes to it"""
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = half if dtype == torch.bfloat16 else MixedPrecisionPolicy()
    for layer in gpt.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(gpt, mesh=mesh, mp_policy=policy)
